"""What operators do: each is an event of the core, applied under the same locks as everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import text

from orchestrator.core import events as ev
from orchestrator.core.model import Step
from orchestrator.core.transitions import Impossible
from orchestrator.core.vocabulary import Action, StepState
from orchestrator.errors import Conflict, NotFound
from orchestrator.stages.advance import Advance, Advanced, Happening
from orchestrator.store import runs, systems
from orchestrator.store.database import Database

BULK = 200
"""Steps changed in one transaction by a bulk operation."""


class Operate:
    """Operators' hands. Every method commits, and returns what is to be rung for."""

    def __init__(self, database: Database, advance: Advance) -> None:
        """Shares ``Advance`` with the other stages."""
        self._database, self._advance = database, advance

    def apply(self, request: UUID, event: ev.Event) -> Advanced:
        """One event of one request. Raises ``NotFound`` or ``Conflict``."""
        with self._database.transaction() as tx:
            if request not in runs.lock(tx, [request]).stored:
                raise NotFound(f"there is no request {request}")
            try:
                return self._advance.apply(tx, [Happening(request, event)])
            except Impossible as reason:
                raise Conflict(str(reason)) from reason

    def cancel(self, request: UUID, actor: str, reason: str) -> Advanced:
        """Begin nothing more; close when what runs has ended."""
        return self.apply(request, ev.CancelAsked(actor, reason))

    def pause(self, request: UUID, actor: str, reason: str) -> Advanced:
        """Begin nothing more until resumed."""
        return self.apply(request, ev.PauseAsked(actor, reason))

    def resume(self, request: UUID, actor: str) -> Advanced:
        """Go on."""
        return self.apply(request, ev.ResumeAsked(actor))

    def retry(self, request: UUID, ordinal: int, actor: str) -> Advanced:
        """Try a step again, now."""
        return self.apply(request, ev.RetryAsked(ordinal, actor))

    def skip(self, request: UUID, ordinal: int, actor: str, reason: str) -> Advanced:
        """Leave a step out."""
        return self.apply(request, ev.SkipAsked(ordinal, actor, reason))

    def done(self, request: UUID, ordinal: int, actor: str, evidence: str) -> Advanced:
        """Record that a step was carried out by hand."""
        return self.apply(request, ev.DoneAsked(ordinal, actor, evidence))

    def report(self, request: UUID, ordinal: int, signal: Mapping[str, Any]) -> Advanced:
        """Give a parked step what it waits for: a decision or a report. Raises ``Conflict`` for a person's records.

        A signal lies in the step's row in the clear until it is read, so no personal data may be in it.
        """
        if "records" in signal:
            raise Conflict("a report must not carry a person's records; hand them over yourself and report the counts")
        return self.apply(request, ev.Reported(ordinal, signal))

    def decide(
        self, request: UUID, decision: str, actor: str, reason: str = "", ordinal: int | None = None
    ) -> Advanced:
        """Answer a gate: the one that is asked for, or the only one that waits. Raises ``Conflict``."""
        if ordinal is None:
            ordinal = self._the_waiting_gate(request)
        signal = {"decision": decision, "actor": actor, **({"reason": reason} if reason else {})}
        return self.report(request, ordinal, signal)

    def retry_all(self, system: str, actor: str, failure: str | None = None) -> Advanced:
        """Retry every step of a system that wants attention, or those with one class of failure."""
        return self._each(system, failure, lambda ordinal: ev.RetryAsked(ordinal, actor))

    def skip_all(self, system: str, actor: str, reason: str, failure: str | None = None) -> Advanced:
        """Skip every step of a system that wants attention, or those with one class of failure."""
        return self._each(system, failure, lambda ordinal: ev.SkipAsked(ordinal, actor, reason))

    def pause_system(self, system: str, actor: str, reason: str) -> None:
        """Begin nothing more on a system. Raises ``NotFound``."""
        with self._database.transaction() as tx:
            systems.pause(tx, system, actor, reason)

    def resume_system(self, system: str) -> Advanced:
        """Go on with a system, its breaker closed. Raises ``NotFound``."""
        with self._database.transaction() as tx:
            systems.resume(tx, system)
        advanced = Advanced()
        advanced.rings[system] += 1
        return advanced

    def _the_waiting_gate(self, request: UUID) -> int:
        with self._database.transaction() as tx:
            stored = runs.lock(tx, [request]).stored.get(request)
        if stored is None:
            raise NotFound(f"there is no request {request}")
        waiting = [s for s in stored.run.steps if s.state is StepState.PARKED and _asks_a_person(s)]
        if len(waiting) != 1:
            which = ", ".join(f"{s.ordinal} ({s.name} in {s.system})" for s in waiting) or "none"
            raise Conflict(f"name the step with --step: those that await a report are {which}")
        return waiting[0].ordinal

    def _each(self, system: str, failure: str | None, event: Callable[[int], ev.Event]) -> Advanced:
        total = Advanced()
        after: tuple[Any, int] = (UUID(int=0), -1)
        while batch := self._attention(system, failure, after):
            after = batch[-1]
            with self._database.transaction() as tx:
                locked = runs.lock(tx, {request for request, _ in batch}).stored
                still = [
                    Happening(request, event(ordinal))
                    for request, ordinal in batch
                    if locked[request].run.steps[ordinal].state is StepState.ATTENTION
                ]
                total.add(self._advance.apply(tx, still))
        return total

    def _attention(self, system: str, failure: str | None, after: tuple[Any, int]) -> list[tuple[UUID, int]]:
        values = {"system": system, "failure": failure, "request": after[0], "ordinal": after[1], "n": BULK}
        with self._database.transaction() as tx:
            return [(r.request_id, r.ordinal) for r in tx.execute(_ATTENTION, values)]


def _asks_a_person(step: Step) -> bool:
    """Whether the desk asked somebody; a vendor's pending job is not a person's to approve."""
    return bool(step.waiting_on) and (step.action is Action.GATE or "asked_at" in (step.handle or {}))


_ATTENTION = text("""
SELECT request_id, ordinal FROM step
WHERE system = :system AND state = 'attention' AND (CAST(:failure AS text) IS NULL OR failure = :failure)
    AND (request_id, ordinal) > (:request, :ordinal)
ORDER BY request_id, ordinal LIMIT :n""")
