"""What came of a request: the facts of its completion event, of the proof that is kept, and of the operator's table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from orchestrator.core.model import JSON, Result, Run, Step
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

_ENGINE = frozenset({Action.GATE, Action.PACKAGE, Action.DISCOVER})


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


def by_system(run: Run) -> dict[str, JSON]:
    """Per system: outcome, counts, what was retained or is residual, and why."""
    steps: dict[str, list[Step]] = defaultdict(list)
    for step in run.steps:
        if step.action not in _ENGINE and step.result is not None:
            steps[step.system].append(step)
    return {system: _of_system(steps[system]) for system in sorted(steps)}


def _of_system(steps: list[Step]) -> dict[str, JSON]:
    results = [s.result for s in steps if s.result is not None]
    merged: dict[str, Any] = {"outcome": str(outcome_of(results)), "counts": {}, "actions": {}}
    for step in steps:
        if step.result is None:
            continue
        facts = result_facts(step.result)
        merged["actions"][str(step.action)] = facts["outcome"]
        if step.action is not Action.VERIFY:
            for kind, n in facts["counts"].items():
                merged["counts"][kind] = merged["counts"].get(kind, 0) + n
            for key in ("retained", "residues"):
                if key in facts:
                    merged.setdefault(key, []).extend(facts[key])
        if "note" in facts:
            merged["note"] = facts["note"]
    return merged


def completion(run: Run) -> dict[str, JSON]:
    """The facts of the completion event."""
    return {
        "resolution": str(run.resolution),
        "reason": run.stop_reason or None,
        "systems": by_system(run),
        "deadline": run.deadline.isoformat(),
    }
