"""The relay: outbox → broker, in windows, each event confirmed before it counts as published.

A crash between confirm and note publishes again: events go out at least once, always under the same event id.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import psycopg
from kombu import Connection, Producer
from sqlalchemy import text

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.messages import names
from orchestrator.settings import Settings
from orchestrator.store.database import Database

_log = logs.get("relay")

WINDOW = 500
"""Events published before their confirmations are awaited."""


class NotConfirmed(ConnectionError):
    """The broker did not confirm in time, or refused: the connection is thrown away and the window sent again."""


class Relay:
    """Publishes what the outbox holds."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Connects when first used."""
        self._settings, self._database = settings, database
        self._connection: Connection | None = None

    def publish(self) -> int:
        """Publish everything that waits; how many events. Raises ``Unavailable`` or ``topology.AWAY``."""
        total = 0
        while rows := self._window():
            try:
                self._send(rows)
            except BaseException:
                self.close()
                raise
            with self._database.transaction() as tx:
                tx.execute(_PUBLISHED, {"ids": [r.id for r in rows]})
            total += len(rows)
            _log.info("outbox.published", events=len(rows))
        return total

    def close(self) -> None:
        """Throw the connection away."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None

    def _window(self) -> Sequence[Any]:
        with self._database.transaction() as tx:
            return tx.execute(_UNPUBLISHED, {"n": WINDOW}).all()

    def _send(self, rows: Sequence[Any]) -> None:
        if self._connection is None:
            self._connection = topology.connect(self._settings, "relay")
            self._connection.connect()
            topology.declare(self._connection, ())
        pgmq = topology.is_pgmq(self._settings)
        with self._connection.channel() as channel:
            publish = _Window(channel, confirms=not pgmq)
            for row in rows:
                publish(row, names.EVENTS_EXCHANGE, row.routing_key)
                if row.reply_to:
                    self._reply(publish, row, pgmq=pgmq)
            self._await_confirmed(publish)

    def _await_confirmed(self, window: _Window) -> None:
        """Until the broker has confirmed the whole window. Raises ``NotConfirmed``."""
        window.await_all()

    @staticmethod
    def _reply(publish: _Window, row: Any, *, pgmq: bool) -> None:
        """The sender's copy. A reply queue that is gone loses it, and must not hold up anybody else's events."""
        try:
            publish(row, "", row.reply_to)
        except psycopg.ProgrammingError:
            if not pgmq:
                raise
            _log.warning("reply.undeliverable", event_id=str(row.event_id))


class _Window:
    """Counts what was published against what was confirmed, on one channel.

    Without ``confirms`` (pgmq) each publish is a committed transaction: it is confirmed when it returns.
    """

    def __init__(self, channel: Any, *, confirms: bool) -> None:
        self._channel, self._confirms = channel, confirms
        self._producer = Producer(channel, auto_declare=False)
        self._sent = 0
        self._open: set[int] = set()
        self._refused = False
        if confirms:
            # py-amqp waits for each confirmation in turn; here the whole window is on its way before the first is
            # awaited.
            channel.basic_publish = channel._basic_publish  # noqa: SLF001 - the driver has no public way
            channel.confirm_select()
            channel.events["basic_ack"].add(self.acknowledged)
            channel.events["basic_nack"].add(self.refused)

    def __call__(self, row: Any, exchange: str, routing_key: str) -> None:
        """Publish one event, without waiting."""
        facts = row.headers
        properties = {**facts["properties"], "correlation_id": row.correlation_id}
        self._producer.publish(
            bytes(row.body).decode(), exchange=exchange, routing_key=routing_key, headers=facts["headers"], **properties
        )
        if self._confirms:
            self._sent += 1  # the broker numbers messages of a channel in the same way
            self._open.add(self._sent)

    def acknowledged(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - called so by the driver
        """The broker confirmed."""
        self._open = {t for t in self._open if t > tag} if multiple else self._open - {tag}

    def refused(self, _tag: int, _multiple: bool) -> None:  # noqa: FBT001 - called so by the driver
        """The broker refused."""
        self._refused = True

    def await_all(self) -> None:
        """Wait until everything is confirmed. Raises ``NotConfirmed``."""
        while self._open and not self._refused:
            try:
                self._channel.connection.drain_events(timeout=topology.CONFIRM_TIMEOUT)
            except TimeoutError as error:
                raise NotConfirmed("the broker did not confirm in time") from error
        if self._refused:
            raise NotConfirmed("the broker refused an event")


_UNPUBLISHED = text("""
SELECT id, event_id, routing_key, reply_to, correlation_id, headers, body FROM outbox
WHERE published_at IS NULL ORDER BY id LIMIT :n""")
_PUBLISHED = text("UPDATE outbox SET published_at = clock_timestamp() WHERE id = ANY(:ids)")
