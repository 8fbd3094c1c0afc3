"""The relay: outbox → broker, in windows, each event confirmed before it counts as published.

A crash between confirm and note publishes again: events go out at least once, always under the same event id.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg
from kombu import Connection

from orchestrator import logs, wire
from orchestrator.broker import topology
from orchestrator.confirms import Window, window_on
from orchestrator.messages import names
from orchestrator.messages.outbound import ALWAYS
from orchestrator.settings import Settings
from orchestrator.store import outbox
from orchestrator.store.database import Database

_log = logs.get("relay")

WINDOW = 500
"""Events published before their confirmations are awaited."""


class Relay:
    """Publishes what the outbox holds."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Connects when first used."""
        self._settings, self._database = settings, database
        self._connection: Connection | None = None
        self._window: Window | None = None

    def publish(self) -> int:
        """Publish everything that waits; how many events. Raises ``Unavailable`` or ``topology.AWAY``."""
        total = 0
        while rows := self._waiting():
            try:
                self._send(rows)
            except BaseException:
                self.close()
                raise
            with self._database.statements() as tx:
                outbox.published(tx, [r.id for r in rows])
            total += len(rows)
            _log.info("outbox.published", events=len(rows))
            if len(rows) < WINDOW:
                break  # what came meanwhile wakes whoever called
        return total

    def close(self) -> None:
        """Throw the connection away."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection, self._window = None, None

    def _waiting(self) -> Sequence[outbox.Waiting]:
        with self._database.statements() as tx:
            return outbox.waiting(tx, WINDOW)

    def _send(self, rows: Sequence[outbox.Waiting]) -> None:
        window = self._connected()
        for row in rows:
            content = window.content(bytes(row.body), _properties(row))
            window.publish(content, names.EVENTS_EXCHANGE, row.routing_key)
            if row.reply_to:
                self._reply(window, content, row.reply_to, row.event_id)
        self._await_confirmed(window)

    def _connected(self) -> Window:
        if self._window is None:
            self._connection = topology.connect(self._settings, "relay", heartbeat=0)
            self._connection.connect()
            topology.declare(self._connection, ())
            self._window = window_on(self._connection.channel(), confirms=not topology.is_pgmq(self._settings))
        return self._window

    def _await_confirmed(self, window: Window) -> None:
        """Until the broker has confirmed the whole window. Raises ``NotConfirmed``."""
        window.await_all(topology.CONFIRM_TIMEOUT)

    def _reply(self, window: Window, content: Any, reply_to: str, event: UUID) -> None:
        """The sender's copy. A reply queue that is gone loses it, and must not hold up anybody else's events."""
        if len(reply_to.encode()) > wire.SHORT:  # no queue has such a name
            _log.warning("reply.undeliverable", event_id=str(event))
            return
        try:
            window.publish(content, "", reply_to)
        except psycopg.ProgrammingError:
            if not topology.is_pgmq(self._settings):
                raise
            _log.warning("reply.undeliverable", event_id=str(event))


def _properties(row: outbox.Waiting) -> Mapping[str, Any]:
    facts = row.headers
    # An id has up to 255 characters, a property of AMQP up to 255 bytes; the event itself always carries it.
    correlation_id = row.correlation_id if len((row.correlation_id or "").encode()) <= wire.SHORT else None
    own = {"message_id": str(row.event_id), "headers": facts["headers"], "correlation_id": correlation_id}
    return {**ALWAYS, **facts["properties"], **own}
