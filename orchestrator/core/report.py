"""What came of a request: the facts of its completion event, of the proof that is kept, and of the operator's table."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.model import JSON, Result
from orchestrator.core.vocabulary import Action, Outcome

WORST_FIRST = (
    Outcome.SKIPPED,
    Outcome.UNSUPPORTED,
    Outcome.RETAINED,
    Outcome.RESIDUAL,
    Outcome.ACCEPTED,
    Outcome.EXECUTED,
    Outcome.VERIFIED,
    Outcome.NO_MATCH,
)
"""Of several outcomes on one system, the first in this order is what is reported for it."""

ENGINE_ACTIONS = frozenset({Action.GATE, Action.PACKAGE})
"""Steps of the engine's own: not part of what is reported per system."""


def result_facts(result: Result) -> dict[str, JSON]:
    """A result as JSON values."""
    facts: dict[str, JSON] = {"outcome": str(result.outcome), "counts": dict(sorted(result.counts.items()))}
    if result.retained:
        facts["retained"] = [
            {
                "what": r.what,
                "reason": r.reason,
                "legal_basis": r.legal_basis,
                "records": r.records,
                "until": r.until.isoformat() if r.until else None,
            }
            for r in result.retained
        ]
    if result.residues:
        facts["residues"] = [{"where": r.where, "until": r.until.isoformat()} for r in result.residues]
    if result.note:
        facts["note"] = result.note
    return facts


def outcome_of(results: Iterable[Result]) -> Outcome:
    """One outcome for several: the worst, except that proof settles what was only executed."""
    outcomes = {r.outcome for r in results}
    if outcomes == {Outcome.EXECUTED, Outcome.VERIFIED}:
        return Outcome.VERIFIED
    return next((o for o in WORST_FIRST if o in outcomes), Outcome.NO_MATCH)
