"""Rows ↔ core values.

Steps are read more often than anything else, and a step knows nothing of its request: in a batch of a thousand requests
that go the same way, most of the rows say the same. So a row is read as one text, each distinct text is made a value
once, and many requests share it; values are frozen.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from orchestrator.core.model import Residue, Result, Retention, Run, Step
from orchestrator.core.report import result_facts
from orchestrator.core.vocabulary import Action, Failure, Outcome, ParkedFor, Resolution, Right, StepState
from orchestrator.store.bulk import encoded

STEP = (
    "ROW(step.ordinal, step.name, step.system, step.action, step.state, step.due, step.needs, step.options, "
    "step.attempt, step.failures, step.crashes, step.token, step.handle, step.signal, step.parked_for, "
    "step.waiting_on, step.failure, step.error, step.result)::text"
)
"""What ``to_step`` reads: a step's columns as PostgreSQL writes a row."""
_REMEMBERED, _RUNS = 20_000, 4_000
"""Steps, and runs, that are remembered: a few batches' worth, for they may be large."""


@lru_cache(_RUNS)
def to_steps(rows: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps of a run, in order of ordinal, as the core's values. Equal ones are the same object."""
    return tuple(map(to_step, rows))


@lru_cache(_REMEMBERED)
def to_step(row: str) -> Step:
    """One step as the core's value."""
    # PostgreSQL writes a row as CSV between brackets, and doubles backslashes as well. It quotes an empty text where it
    # leaves out a null, and csv takes both for empty: none of the columns that may be null is ever empty.
    (
        ordinal,
        name,
        system,
        action,
        state,
        due,
        needs,
        options,
        attempt,
        failures,
        crashes,
        token,
        handle,
        signal,
        parked_for,
        waiting_on,
        failure,
        error,
        result,
    ) = (cell.replace("\\\\", "\\") for cell in next(csv.reader([row[1:-1]], strict=True)))
    return Step(
        ordinal=int(ordinal),
        name=name,
        system=system,
        action=Action(action),
        state=StepState(state),
        due=datetime.fromisoformat(due),
        needs=frozenset(map(int, filter(None, needs.strip("{}").split(",")))),
        options=json.loads(options),
        attempt=int(attempt),
        failures=int(failures),
        crashes=int(crashes),
        token=UUID(token) if token else None,
        handle=json.loads(handle) if handle else None,
        signal=json.loads(signal) if signal else None,
        parked_for=ParkedFor(parked_for) if parked_for else None,
        waiting_on=waiting_on,
        failure=Failure(failure) if failure else None,
        error=error,
        result=to_result(json.loads(result)) if result else None,
    )


def to_run(request: UUID, right: str, row: Sequence[Any], steps: Sequence[str]) -> Run:
    """A run. ``row``: deadline, paused, stopping, stop_reason, resolution; ``steps``: rows (``STEP``) in order."""
    deadline, paused, stopping, stop_reason, resolution = row
    return Run(
        request,
        Right(right),
        to_steps(tuple(steps)),
        deadline,
        paused,
        Resolution(stopping) if stopping else None,
        stop_reason,
        Resolution(resolution) if resolution else None,
    )


def to_result(facts: Mapping[str, Any]) -> Result:
    """A stored result."""
    return Result(
        Outcome(facts["outcome"]),
        facts.get("counts", {}),
        tuple(
            Retention(r["what"], r["reason"], r["legal_basis"], r["records"], _date(r["until"]))
            for r in facts.get("retained", ())
        ),
        tuple(Residue(r["where"], date.fromisoformat(r["until"])) for r in facts.get("residues", ())),
        facts.get("evidence", {}),
        facts.get("note", ""),
    )


def from_result(result: Result) -> dict[str, Any]:
    """A result to store."""
    return {**result_facts(result), **({"evidence": dict(result.evidence)} if result.evidence else {})}


def from_step(step: Step, lease_until: datetime | None = None) -> dict[str, Any]:
    """The columns of a step that change in its life. ``lease_until``: the end of its lease, if it is running."""
    return {
        "ordinal": step.ordinal,
        "state": str(step.state),
        "due": step.due,
        "attempt": step.attempt,
        "failures": step.failures,
        "crashes": step.crashes,
        "token": step.token,
        "lease_until": lease_until if step.state is StepState.RUNNING else None,
        "handle": step.handle,
        "signal": step.signal,
        "parked_for": step.parked_for,
        "waiting_on": step.waiting_on,
        "failure": step.failure,
        "error": step.error,
        "result": encoded(from_result(step.result)) if step.result is not None else None,
    }


def from_new_step(step: Step) -> dict[str, Any]:
    """All columns of a step that has just been planned, but for what its request says."""
    return {
        **from_step(step),
        "name": step.name,
        "system": step.system,
        "action": str(step.action),
        "needs": sorted(step.needs),
        "options": encoded(dict(step.options)),
    }


def _date(value: str | None) -> date | None:
    return date.fromisoformat(value) if value else None
