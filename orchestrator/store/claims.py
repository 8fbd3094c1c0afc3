"""Claiming: up to N ready steps of one system, under a lease with a random token.

What a system may take is decided in the same transaction: pause, circuit breaker, rate and concurrency live in its row
of ``connector_state``, so they hold across all workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.core.model import Limits, Step
from orchestrator.store import rates
from orchestrator.store.rows import STEP, to_step


@dataclass(frozen=True, slots=True)
class Claimed:
    """One step that is ours until the lease runs out."""

    request: UUID
    token: UUID
    step: Step
    deadline: Any


def claim(tx: Connection, system: str, limits: Limits, n: int, token: UUID, lease: timedelta) -> list[Claimed]:
    """Take up to ``n`` ready steps in order of rank: by deadline, with fair turns for all sources (``turns``).

    A step that was lost before is taken alone. Rows that somebody else works on are passed over, never waited for.
    """
    looked = rates.look(tx, system, limits.rate) if limits.rate is not None else None
    free = n if limits.rate is None else int(looked.bucket.tokens) if looked is not None else 0
    if free <= 0:  # before the probe of an open breaker is used up
        return []
    room = min(free, _room(tx, system, limits, min(n, limits.batch)))
    if room <= 0:
        return []
    rows = tx.execute(_TAKE, {"system": system, "n": room, "token": token, "lease": lease}).all()
    if looked is not None and rows:
        rates.take(tx, system, looked, token, len(rows), lease)
    return [Claimed(r.request_id, token, to_step(r), r.deadline) for r in rows]


_TAKE = text(f"""
WITH solo AS (
    SELECT request_id, ordinal FROM step
    WHERE system = :system AND state = 'ready' AND crashes > 0
    ORDER BY rank, request_id, ordinal LIMIT 1 FOR UPDATE SKIP LOCKED
), many AS (
    SELECT request_id, ordinal FROM step
    WHERE system = :system AND state = 'ready' AND crashes = 0 AND NOT EXISTS (SELECT 1 FROM solo)
    ORDER BY rank, request_id, ordinal LIMIT :n FOR UPDATE SKIP LOCKED
), taken AS (SELECT * FROM solo UNION ALL SELECT * FROM many)
UPDATE step SET state = 'running', token = :token, lease_until = clock_timestamp() + :lease,
    attempt = attempt + 1, changed_at = now()
FROM taken WHERE step.request_id = taken.request_id AND step.ordinal = taken.ordinal
RETURNING {STEP}, step.deadline
""")  # noqa: S608 - our own columns


def _room(tx: Connection, system: str, limits: Limits, n: int) -> int:
    """How many steps the system may take now, but for its rate."""
    guarded = limits.concurrency is not None
    row = tx.execute(_STATE_LOCKED if guarded else _STATE, {"system": system}).one_or_none()
    if row is None or row.paused or row.resting:
        return 0
    if row.half_open:
        # One probe: whoever comes first closes the door behind itself.
        probe = tx.execute(_PROBE, {"system": system, "rest": limits.breaker_rest}).rowcount
        return min(n, probe)
    if limits.gather and not tx.execute(_GATHERED, {"system": system, "n": n, "gather": limits.gather}).scalar_one():
        return 0
    if limits.concurrency is not None:
        batches = tx.execute(_UNDER_WAY, {"system": system}).scalar_one()
        if batches >= limits.concurrency:
            return 0
    return n


_STATE_SQL = """
SELECT paused, breaker_until > clock_timestamp() AS resting, breaker_until IS NOT NULL AS half_open
FROM connector_state WHERE system = :system"""
_STATE = text(_STATE_SQL)
_STATE_LOCKED = text(_STATE_SQL + " FOR UPDATE")
_PROBE = text("""
UPDATE connector_state SET breaker_until = clock_timestamp() + :rest
WHERE system = :system AND breaker_until <= clock_timestamp()
    AND (EXISTS (SELECT 1 FROM step WHERE step.system = :system AND step.state = 'ready' AND crashes = 0)
        OR EXISTS (SELECT 1 FROM step WHERE step.system = :system AND step.state = 'ready' AND crashes > 0))""")
_GATHERED = text("""
SELECT count(*) >= :n OR coalesce(min(changed_at) <= clock_timestamp() - CAST(:gather AS interval), false)
FROM (
    SELECT changed_at FROM step WHERE system = :system AND state = 'ready' AND crashes > 0
    UNION ALL SELECT changed_at FROM step WHERE system = :system AND state = 'ready' AND crashes = 0
    LIMIT :n
) AS waiting""")
_UNDER_WAY = text("SELECT count(DISTINCT token) FROM step WHERE system = :system AND state = 'running'")


def extend(tx: Connection, tokens: Iterable[UUID], lease: timedelta) -> int:
    """Heartbeat: extend the leases that this process still holds; how many steps that were."""
    result = tx.execute(_EXTEND, {"tokens": list(tokens), "lease": lease})
    return int(result.rowcount)


_EXTEND = text("""
UPDATE step SET lease_until = clock_timestamp() + :lease WHERE state = 'running' AND token = ANY(:tokens)""")
