"""Rows ↔ core values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from orchestrator.core.model import Residue, Result, Retention, Run, Step
from orchestrator.core.report import result_facts
from orchestrator.core.vocabulary import Action, Failure, Outcome, ParkedFor, Resolution, Right, StepState


def to_step(row: Any) -> Step:
    """A step's row as the core's value."""
    return Step(
        ordinal=row.ordinal,
        name=row.name,
        system=row.system,
        action=Action(row.action),
        state=StepState(row.state),
        due=row.due,
        needs=frozenset(row.needs),
        options=row.options,
        attempt=row.attempt,
        failures=row.failures,
        crashes=row.crashes,
        token=row.token,
        handle=row.handle,
        signal=row.signal,
        parked_for=ParkedFor(row.parked_for) if row.parked_for else None,
        waiting_on=row.waiting_on,
        failure=Failure(row.failure) if row.failure else None,
        error=row.error,
        result=to_result(row.result) if row.result is not None else None,
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
