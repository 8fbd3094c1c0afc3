"""Tallies: requests and parked steps counted as they come and go, so that figures cost nothing to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

from orchestrator.core.model import Run
from orchestrator.core.vocabulary import StepState
from orchestrator.store.runs import Change

ADMITTED = "admitted"
PARKED = StepState.PARKED


def count(tx: Connection, changes: Sequence[Change]) -> None:
    """Count what these changes admit, close, park and unpark, in the transaction that does it."""
    counts: Counter[tuple[str, str]] = Counter()
    parked: Counter[str] = Counter()
    went: Counter[tuple[int, int]] = Counter()  # runs that went the same way share their steps
    ways: dict[tuple[int, int], tuple[Run, Run]] = {}
    for change in changes:
        before, after = change.before, change.after
        if before is None:
            counts[str(after.right), ADMITTED] += 1
        if after.resolution is not None and (before is None or before.open):
            counts[str(after.right), str(after.resolution)] += 1
        if before is not None:  # a step is never parked from the beginning
            way = id(before.steps), id(after.steps)
            went[way] += 1
            ways[way] = before, after
    for way, (before, after) in ways.items():
        for one, other in zip(before.steps, after.steps, strict=True):
            if one is not other:
                parked[other.system] += went[way] * ((other.state is PARKED) - (one.state is PARKED))
    if counts:
        keys = sorted(counts)  # everybody in the same order: nobody waits in a circle
        values = {"rights": [k[0] for k in keys], "whats": [k[1] for k in keys], "ns": [counts[k] for k in keys]}
        tx.execute(_COUNT, values)
    count_parked(tx, parked)


def count_parked(tx: Connection, parked: Mapping[str, int]) -> None:
    """Count steps that were parked, by system; below zero: that are no longer."""
    systems = sorted(s for s, n in parked.items() if n)
    if systems:
        tx.execute(_COUNT_PARKED, {"systems": systems, "ns": [parked[s] for s in systems]})


# A row for each of sixteen backends: those that settle at the same time seldom meet.
_COUNT = text("""
INSERT INTO tally ("right", what, shard, n)
SELECT u.r, u.w, pg_backend_pid() % 16, u.n
FROM unnest(CAST(:rights AS text[]), CAST(:whats AS text[]), CAST(:ns AS bigint[])) AS u(r, w, n)
ON CONFLICT ("right", what, shard) DO UPDATE SET n = tally.n + excluded.n""")
_COUNT_PARKED = text("""
INSERT INTO parked (system, shard, n)
SELECT u.s, pg_backend_pid() % 16, u.n FROM unnest(CAST(:systems AS text[]), CAST(:ns AS bigint[])) AS u(s, n)
ON CONFLICT (system, shard) DO UPDATE SET n = parked.n + excluded.n""")
