"""Claiming: up to N ready steps of one system, under a lease with a random token.

What a system may take is decided in the same transaction: pause, circuit breaker, rate and concurrency live in its row
of ``connector_state``, so they hold across all workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.core.model import Limits, Step
from orchestrator.store import bulk, rates
from orchestrator.store.rows import STEP, to_step


class Claimed(NamedTuple):
    """One step that is ours until the lease runs out."""

    request: UUID
    token: UUID
    step: Step
    deadline: Any
    rank: Any
    """Its place in order of claiming, the same in all steps of a request."""


def claim(
    tx: Connection, system: str, limits: Limits, n: int, token: UUID, lease: timedelta, *, beside: bool = False
) -> list[Claimed]:
    """Take up to ``n`` ready steps in order of rank: by deadline, with fair turns for all sources (``turns``).

    A step that was lost before is taken alone. Rows that somebody else works on are passed over, never waited for.
    ``beside``: another system's steps are taken in the same transaction; then nothing is taken where a step was lost
    before, or where a single one is to probe whether the system is well again.
    """
    n, looked = min(n, limits.batch), None
    values = {"system": system, "token": token, "lease": lease, "alone": not beside}
    rows = [] if limits.limited else _take(tx, {**values, "n": n, "cleared": False})
    if not rows and not beside:
        # Nothing is ready, or the system is paused, resting or to be probed; or its limits have the first word.
        if limits.rate is not None:
            looked = rates.look(tx, system, limits.rate)
            n = min(n, int(looked.bucket.tokens)) if looked is not None else 0
        room = 0 if n <= 0 else _room(tx, system, limits, n) if limits.limited else _probe(tx, system, limits)
        rows = _take(tx, {**values, "n": room, "cleared": True}) if room > 0 else []
    if looked is not None and rows:
        rates.take(tx, system, looked, token, len(rows), lease)
    return [Claimed(request, token, to_step(step), deadline, rank) for request, step, deadline, rank in rows]


def _take(tx: Connection, values: Mapping[str, Any]) -> list[Any]:
    with bulk.together(tx):  # with the beginning of the transaction
        taken = bulk.send(tx, _TAKE, values)
    return taken.fetchall()


_TAKE = f"""
WITH free AS (
    SELECT 1 WHERE %(cleared)s
        OR EXISTS (SELECT 1 FROM connector_state WHERE system = %(system)s AND NOT paused AND breaker_until IS NULL)
), solo AS (
    SELECT request_id, ordinal FROM step
    WHERE EXISTS (SELECT 1 FROM free) AND %(alone)s AND system = %(system)s AND state = 'ready' AND crashes > 0
    ORDER BY rank, request_id, ordinal LIMIT 1 FOR UPDATE SKIP LOCKED
), many AS (
    SELECT request_id, ordinal FROM step
    WHERE EXISTS (SELECT 1 FROM free) AND system = %(system)s AND state = 'ready' AND crashes = 0
        AND NOT EXISTS (SELECT 1 FROM solo)
        AND (%(alone)s OR NOT EXISTS (SELECT 1 FROM step WHERE system = %(system)s AND state = 'ready' AND crashes > 0))
    ORDER BY rank, request_id, ordinal LIMIT %(n)s FOR UPDATE SKIP LOCKED
), taken AS (SELECT * FROM solo UNION ALL SELECT * FROM many)
UPDATE step SET state = 'running', token = %(token)s, lease_until = statement_timestamp() + %(lease)s,
    attempt = attempt + 1, changed_at = now()
FROM taken WHERE step.request_id = taken.request_id AND step.ordinal = taken.ordinal
RETURNING step.request_id, {STEP}, step.deadline, step.rank
"""  # noqa: S608 - our own columns


@dataclass(frozen=True, slots=True)
class Firsts:
    """Who stands first in the queues of systems that nothing keeps claims off."""

    places: Mapping[str, tuple[Any, UUID] | None]
    """System → rank and request of the first; ``None`` where nothing is ready."""
    holds: bool
    """Whether any legal hold is in force."""
    by: str
    """The id of the transaction that asked."""


def ask_firsts(tx: Connection, systems: Iterable[str]) -> Callable[[], Firsts]:
    """Ask who stands first in the queues of these systems; the answer may be read later (``bulk.together``).

    Left out are those that are paused, resting, to be probed, or have something ready that was lost before.
    """
    asked = bulk.send(tx, _FIRSTS, {"systems": list(systems)})

    def answer() -> Firsts:
        rows = asked.fetchall()
        places = {r[0]: (r[3], r[4]) if r[3] is not None else None for r in rows if r[0] is not None}
        return Firsts(places, rows[0][2], rows[0][1])

    return answer


# At least one row: whether a hold is in force must be known also where claims are kept off all of them.
_FIRSTS = """
SELECT c.system, by, holds, rank, request_id
FROM (
    SELECT pg_current_xact_id()::xid::text AS by, EXISTS (SELECT 1 FROM hold WHERE released_at IS NULL) AS holds
) AS us
LEFT JOIN connector_state AS c ON c.system = ANY(%(systems)s) AND NOT paused AND breaker_until IS NULL
    AND NOT EXISTS (SELECT 1 FROM step WHERE system = c.system AND state = 'ready' AND crashes > 0)
LEFT JOIN LATERAL (
    SELECT rank, request_id FROM step WHERE system = c.system AND state = 'ready' AND crashes = 0
    ORDER BY rank, request_id LIMIT 1
) AS first ON true"""


def _room(tx: Connection, system: str, limits: Limits, n: int) -> int:
    """How many steps a limited system may take now, but for its rate; its row stays locked."""
    row = tx.execute(_STATE, {"system": system}).one_or_none()
    if row is None or row.paused or row.resting:
        return 0
    if row.half_open:
        return _probe(tx, system, limits)
    if limits.gather and not tx.execute(_GATHERED, {"system": system, "n": n, "gather": limits.gather}).scalar_one():
        return 0
    if limits.concurrency is not None:
        batches = tx.execute(_UNDER_WAY, {"system": system}).scalar_one()
        if batches >= limits.concurrency:
            return 0
    return n


def _probe(tx: Connection, system: str, limits: Limits) -> int:
    """One, where a step is to find out whether a system is well again: whoever comes first closes the door behind."""
    return int(tx.execute(_PROBE, {"system": system, "rest": limits.breaker_rest}).rowcount)


_STATE = text("""
SELECT paused, breaker_until > clock_timestamp() AS resting, breaker_until IS NOT NULL AS half_open
FROM connector_state WHERE system = :system FOR UPDATE""")
_PROBE = text("""
UPDATE connector_state SET breaker_until = clock_timestamp() + :rest
WHERE system = :system AND NOT paused AND breaker_until <= clock_timestamp()
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
UPDATE step SET lease_until = statement_timestamp() + :lease WHERE state = 'running' AND token = ANY(:tokens)""")
