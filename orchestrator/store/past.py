"""What was: the steps of requests closed long ago, folded into one entry of their audit chain and read back from it.

A step's row is made for work: wider than what remains to be said of it, and in the table that workers claim from.
Folding takes the rows away and leaves one entry that says what each step was, and of how it ended what the chain does
not say already. The chain covers it from then on: what an operator is shown of an old request can't be changed unseen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.core.model import Step
from orchestrator.core.vocabulary import Action, StepState
from orchestrator.core.why import StepTimes
from orchestrator.privacy import audit as chain
from orchestrator.store import bulk, tables
from orchestrator.store.rows import to_result
from orchestrator.store.runs import audit_entry, now

Facts = Mapping[str, Any]
FOLDED = "folded"
"""What such an entry is called in the audit."""
_WHOLE = "whole"
"""Marks a step of which the entry says everything: its chain says something else."""


def fold(tx: Connection, n: int) -> int:
    """Fold the steps of requests that are due for it, the first due first, ``n`` at most; how many requests."""
    due = tx.execute(_DUE, {"n": n}).all()
    if not due:
        return 0
    moment = now(tx)
    ids = {"ids": [r.id for r in due]}
    chains = _settled(tx, ids)
    told = {r.request_id: _beside(r.steps, chains[r.request_id]) for r in tx.execute(_STEPS, ids)}
    entries: list[dict[str, Any]] = []
    heads: list[dict[str, Any]] = []
    for row in due:
        seq, head = row.audit_seq, row.audit_head
        if row.id in told:
            seq, facts = seq + 1, {"steps": told[row.id]}
            head = chain.link(head, audit_entry(row.id, seq, moment, FOLDED, None, facts))
            what = {"at": moment, "what": FOLDED, "ordinal": None, "facts": facts}
            entries.append({"request_id": row.id, "seq": seq, **what, "hash": head})
        heads.append({"id": row.id, "audit_seq": seq, "audit_head": head})
    bulk.insert(tx, tables.audit, entries)
    bulk.update(tx, tables.request, ("id",), heads, also=", fold_at = NULL")
    tx.execute(_DELETE, {"ids": list(told)})
    return len(due)


@dataclass(frozen=True, slots=True)
class Folded:
    """What the chain tells of a request's steps. What each waited for is no longer known."""

    at: datetime
    """When they were folded."""
    steps: tuple[Step, ...]
    times: Mapping[int, StepTimes]
    """When each was settled."""


def unfold(tx: Connection, request: UUID) -> Folded | None:
    """The steps of a folded request; ``None`` where it is not folded."""
    row = tx.execute(_FOLDED, {"request": request, "what": FOLDED}).one_or_none()
    if row is None:
        return None
    told = _settled(tx, {"ids": [request]})[request]
    steps = tuple(
        _step(n, facts if _WHOLE in facts else {**told.get(n, {}), **facts})
        for n, facts in enumerate(row.facts["steps"])
    )
    times: dict[int, datetime] = {r.ordinal: r.at for r in tx.execute(_TIMES, {"request": request})}
    settled = {s.ordinal: StepTimes(times.get(s.ordinal, row.closed_at)) for s in steps}
    return Folded(row.at, steps, settled)


def _settled(tx: Connection, ids: Mapping[str, list[UUID]]) -> dict[UUID, dict[int, Facts]]:
    """What the chains of these requests say already of how each step ended."""
    found: dict[UUID, dict[int, Facts]] = defaultdict(dict)
    for row in tx.execute(_ENTRIES, ids):
        found[row.request_id][row.ordinal] = row.facts
    return found


def _beside(steps: Sequence[Facts], settled: Mapping[int, Facts]) -> list[Facts]:
    """Of each step's facts those that must stand beside what its chain says; together they say it all, and no more."""
    kept: list[Facts] = []
    for ordinal, step in enumerate(steps):
        said = settled.get(ordinal, {})
        beside = {k: v for k, v in step.items() if k not in said or said[k] != v}
        kept.append(beside if {**said, **beside} == step else {**step, _WHOLE: True})
    return kept


def _step(ordinal: int, facts: Mapping[str, Any]) -> Step:
    action = Action(facts["action"])
    return Step(
        ordinal=ordinal,
        name=facts.get("step", str(action)),
        system=facts["system"],
        action=action,
        state=StepState.DONE,
        attempt=facts.get("attempt", 1),
        result=to_result(facts) if "outcome" in facts else None,
    )


# Only what is closed, whatever ``fold_at`` says: nobody works on it any more.
_DUE = text("""
SELECT id, audit_seq, audit_head FROM request
WHERE fold_at <= statement_timestamp() AND resolution IS NOT NULL
ORDER BY fold_at LIMIT :n FOR UPDATE SKIP LOCKED""")
# What goes without saying is left out: there are millions of these.
_STEPS = text("""
SELECT request_id, jsonb_agg(
    CASE WHEN result -> 'counts' = '{}' THEN result - 'counts' ELSE coalesce(result, '{}') END
    || jsonb_strip_nulls(jsonb_build_object(
        'step', CASE WHEN name <> action THEN name END, 'system', system, 'action', action,
        'attempt', CASE WHEN attempt <> 1 THEN attempt END
    )) ORDER BY ordinal) AS steps
FROM step WHERE request_id = ANY(:ids) GROUP BY request_id""")
_ENTRIES = text("""
SELECT request_id, ordinal, facts FROM audit WHERE request_id = ANY(:ids) AND what = 'settled' ORDER BY seq""")
_DELETE = text("DELETE FROM step WHERE request_id = ANY(:ids)")
_FOLDED = text("""
SELECT a.at, a.facts, r.closed_at FROM audit a JOIN request r ON r.id = a.request_id
WHERE a.request_id = :request AND a.what = :what ORDER BY a.seq DESC LIMIT 1""")
_TIMES = text("""
SELECT ordinal, max(at) AS at FROM audit WHERE request_id = :request AND ordinal IS NOT NULL GROUP BY ordinal""")
