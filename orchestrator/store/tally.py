"""The tally: requests counted as they are admitted and as they close, so that figures cost nothing to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection, text

from orchestrator.store.runs import Change

ADMITTED = "admitted"


def count(tx: Connection, changes: Sequence[Change]) -> None:
    """Count what these changes admit and close: one statement, in the transaction that does it."""
    counts: Counter[tuple[str, str]] = Counter()
    for change in changes:
        if change.before is None:
            counts[str(change.after.right), ADMITTED] += 1
        if change.after.resolution is not None and (change.before is None or change.before.open):
            counts[str(change.after.right), str(change.after.resolution)] += 1
    if counts:
        keys = sorted(counts)  # everybody in the same order: nobody waits in a circle
        values = {"rights": [k[0] for k in keys], "whats": [k[1] for k in keys], "ns": [counts[k] for k in keys]}
        tx.execute(_COUNT, values)


# A row for each of sixteen backends: those that settle at the same time seldom meet.
_COUNT = text("""
INSERT INTO tally ("right", what, shard, n)
SELECT u.r, u.w, pg_backend_pid() % 16, u.n
FROM unnest(CAST(:rights AS text[]), CAST(:whats AS text[]), CAST(:ns AS bigint[])) AS u(r, w, n)
ON CONFLICT ("right", what, shard) DO UPDATE SET n = tally.n + excluded.n""")
