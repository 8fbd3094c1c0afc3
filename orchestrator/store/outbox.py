"""The outbox: what upstream services are to be told, and which of it the broker has not confirmed yet.

An event's row is written once, with its body. That it waits to be published is a narrow row of its own
(``unpublished``), written by the same statement and deleted once the broker has confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.store import bulk, tables

CHANNEL = "habeas_outbox"
"""PostgreSQL notification channel: the relay listens there, and is woken when the transaction commits."""


def put(tx: Connection, rows: Sequence[Mapping[str, Any]], *, wake: bool = True) -> None:
    """Put events in, and ``wake`` the relay when the transaction commits."""
    bulk.insert(tx, tables.outbox, rows, returning="id", then=_MARK if wake else _MARK_ALONE)


def wake(tx: Connection) -> None:
    """Wake the relay. Where nobody does, it looks by itself when the next sweep is due."""
    bulk.send(tx, _WAKE)


def put_again(tx: Connection, request: UUID, reply_to: str, correlation_id: str) -> None:
    """Publish a request's latest event once more, under its own event id."""
    values = {"request": request, "reply_to": reply_to or None, "correlation_id": correlation_id or None}
    tx.execute(_AGAIN, values)


class Waiting(NamedTuple):
    """An event that waits to be published."""

    id: int
    event_id: UUID
    routing_key: str
    reply_to: str | None
    correlation_id: str | None
    headers: Mapping[str, Any]
    body: bytes


def waiting(tx: Connection, n: int) -> Sequence[Waiting]:
    """The oldest events that wait to be published."""
    return [Waiting(*row) for row in bulk.send(tx, _WAITING, {"n": n}).fetchall()]


def published(tx: Connection, ids: Sequence[int]) -> None:
    """The broker has confirmed these."""
    bulk.send(tx, _PUBLISHED, {"ids": ids})


def drop_old(tx: Connection, keep: timedelta, n: int) -> int:
    """Drop up to ``n`` events older than that, and published; how many they were."""
    return int(tx.execute(_DROP_OLD, {"keep": keep, "n": n}).rowcount)


_MARKED = ", marked AS (INSERT INTO unpublished (id) SELECT id FROM new)"
_WAKE = f"SELECT pg_notify('{CHANNEL}', '')"
_MARK, _MARK_ALONE = f"{_MARKED} {_WAKE}", f"{_MARKED} SELECT 1"
_AGAIN = text(f"""
WITH new AS (
    INSERT INTO outbox (event_id, request_id, kind, routing_key, reply_to, correlation_id, headers, body)
    SELECT event_id, request_id, kind, routing_key, :reply_to, :correlation_id, headers, body FROM outbox
    WHERE request_id = :request ORDER BY id DESC LIMIT 1 RETURNING id
){_MARK}""")  # noqa: S608 - our own channel
# Arrays, for then both tables are read by their keys, whatever their statistics say.
_WAITING = f"""
SELECT {", ".join(Waiting._fields)} FROM outbox
WHERE id = ANY(ARRAY(SELECT id FROM unpublished ORDER BY id LIMIT %(n)s)) ORDER BY id"""  # noqa: S608 - our own columns
# Not waited for until it is on the disk: what a crash forgets is published once more, as if the crash had come earlier.
_PUBLISHED = """
WITH unsynced AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
DELETE FROM unpublished USING unsynced WHERE id = ANY(%(ids)s)"""
_DROP_OLD = text("""
DELETE FROM outbox WHERE id = ANY(ARRAY(
    SELECT id FROM outbox AS o WHERE created_at < statement_timestamp() - :keep
        AND NOT EXISTS (SELECT 1 FROM unpublished AS u WHERE u.id = o.id)
    ORDER BY created_at LIMIT :n))""")
