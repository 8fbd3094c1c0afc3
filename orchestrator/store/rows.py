"""Rows ↔ core values.

Steps are read more often than anything else, and a step knows nothing of its request: in a batch of a thousand requests
that go the same way, most of the rows say the same. So each distinct row is made a value once, and many requests share
it; values are frozen. Its JSON columns come as text, which can be compared without being parsed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from orchestrator.core.model import Residue, Result, Retention, Run, Step
from orchestrator.core.report import result_facts
from orchestrator.core.vocabulary import Action, Failure, Outcome, ParkedFor, Resolution, Right, StepState

STEP = (
    "step.request_id, step.ordinal, step.name, step.system, step.action, step.state, step.due, step.needs::text, "
    "step.options::text, step.attempt, step.failures, step.crashes, step.token, step.handle::text, step.signal::text, "
    "step.parked_for, step.waiting_on, step.failure, step.error, step.result::text"
)
"""The columns that ``to_step`` reads, in order; a query may add others after them."""
_WIDTH = STEP.count(",") + 1
_REMEMBERED = 20_000


def to_step(row: Any) -> Step:
    """A row that begins with the columns ``STEP`` as the core's value."""
    return _step(*row[1:_WIDTH])


@lru_cache(_REMEMBERED)
def _step(  # noqa: PLR0917 - a row's columns, in order
    ordinal: int,
    name: str,
    system: str,
    action: str,
    state: str,
    due: datetime,
    needs: str,
    options: str,
    attempt: int,
    failures: int,
    crashes: int,
    token: UUID | None,
    handle: str | None,
    signal: str | None,
    parked_for: str | None,
    waiting_on: str,
    failure: str | None,
    error: str,
    result: str | None,
) -> Step:
    return Step(
        ordinal=ordinal,
        name=name,
        system=system,
        action=Action(action),
        state=StepState(state),
        due=due,
        needs=frozenset(map(int, filter(None, needs.strip("{}").split(",")))),
        options=json.loads(options),
        attempt=attempt,
        failures=failures,
        crashes=crashes,
        token=token,
        handle=json.loads(handle) if handle is not None else None,
        signal=json.loads(signal) if signal is not None else None,
        parked_for=ParkedFor(parked_for) if parked_for else None,
        waiting_on=waiting_on,
        failure=Failure(failure) if failure else None,
        error=error,
        result=to_result(json.loads(result)) if result is not None else None,
    )


def to_run(row: Any, steps: Iterable[Any]) -> Run:
    """A request's row and its steps' rows, in order of ordinal, as the core's value."""
    return Run(
        request=row.id,
        right=Right(row.right),
        steps=tuple(to_step(s) for s in steps),
        deadline=row.deadline,
        paused=row.paused,
        stopping=Resolution(row.stopping) if row.stopping else None,
        stop_reason=row.stop_reason,
        resolution=Resolution(row.resolution) if row.resolution else None,
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


def from_step(request: UUID, step: Step) -> dict[str, Any]:
    """The columns of a step that change in its life."""
    return {
        "request_id": request,
        "ordinal": step.ordinal,
        "state": str(step.state),
        "due": step.due,
        "failures": step.failures,
        "crashes": step.crashes,
        "token": step.token,
        "handle": step.handle,
        "signal": step.signal,
        "parked_for": step.parked_for,
        "waiting_on": step.waiting_on,
        "failure": step.failure,
        "error": step.error,
        "result": from_result(step.result) if step.result is not None else None,
    }


def from_new_step(request: UUID, step: Step, deadline: datetime, rank: datetime) -> dict[str, Any]:
    """All columns of a step that has just been planned."""
    return {
        **from_step(request, step),
        "name": step.name,
        "system": step.system,
        "action": str(step.action),
        "needs": sorted(step.needs),
        "options": dict(step.options),
        "deadline": deadline,
        "rank": rank,
    }


def _date(value: str | None) -> date | None:
    return date.fromisoformat(value) if value else None
