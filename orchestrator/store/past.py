"""What was: the steps of requests closed long ago, folded into one entry of their audit chain and read back from it.

A step's row is made for work: four times as wide as what remains to be said of it, in the table that is claimed from.
Folding takes the rows away and leaves one entry that says what each step was and how it ended. The chain covers it from
then on, so what an operator is shown of an old request can't be changed unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
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

FOLDED = "folded"
"""What such an entry is called in the audit."""


def fold(tx: Connection, n: int) -> int:
    """Fold the steps of requests that are due for it, the first due first, ``n`` at most; how many requests."""
    due = tx.execute(_DUE, {"n": n}).all()
    if not due:
        return 0
    moment = now(tx)
    told = {r.request_id: r.steps for r in tx.execute(_STEPS, {"ids": [r.id for r in due]})}
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


def unfold(tx: Connection, request: UUID) -> tuple[tuple[Step, ...], Mapping[int, StepTimes]]:
    """The steps of a folded request, and when each was settled; what each waited for is no longer known."""
    row = tx.execute(_FOLDED, {"request": request, "what": FOLDED}).one_or_none()
    if row is None:
        return (), {}
    settled: dict[int, datetime] = {r.ordinal: r.at for r in tx.execute(_SETTLED, {"request": request})}
    steps = tuple(_step(ordinal, facts) for ordinal, facts in enumerate(row.facts["steps"]))
    return steps, {s.ordinal: StepTimes(settled.get(s.ordinal, row.closed_at)) for s in steps}


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
_DELETE = text("DELETE FROM step WHERE request_id = ANY(:ids)")
_FOLDED = text("""
SELECT a.facts, r.closed_at FROM audit a JOIN request r ON r.id = a.request_id
WHERE a.request_id = :request AND a.what = :what ORDER BY a.seq DESC LIMIT 1""")
_SETTLED = text("""
SELECT ordinal, max(at) AS at FROM audit WHERE request_id = :request AND ordinal IS NOT NULL GROUP BY ordinal""")
