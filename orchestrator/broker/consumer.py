"""The intake process: takes messages off the queue in batches, admits them, and acknowledges after the commit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kombu import Connection, Consumer

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.broker.bell import Bell
from orchestrator.errors import Unavailable
from orchestrator.messages.envelope import Delivery
from orchestrator.runtime import Runtime
from orchestrator.store import outbox

_log = logs.get("intake")

IDLE = 1.0
"""Seconds of waiting for a message before it is looked whether to stop."""
PAUSE = 1.0
"""Seconds between attempts while the database or the broker is away."""


class IntakeConsumer:
    """Consumes until stopped; outlives the broker and the database."""

    def __init__(self, runtime: Runtime, bell: Bell, stop: threading.Event, turned: Callable[[], None]) -> None:
        """``turned`` is called whenever the loop turns."""
        self._runtime, self._bell, self._stop, self._turned = runtime, bell, stop, turned
        self._batch = runtime.settings.intake_batch
        self._linger = runtime.settings.intake_linger_ms / 1000
        self._waiting: list[Any] = []
        self._alone = True
        """The last message was alone in its batch."""

    def run(self) -> None:
        """Until ``stop`` is set."""
        while not self._stop.is_set():
            try:
                with topology.connect(self._runtime.settings, "intake") as connection:
                    connection.connect()
                    topology.declare(connection, self._runtime.definitions.systems)
                    self._consume(connection)
            except Unavailable as error:
                # Nothing was acknowledged: the broker gives the batch again once we reconnect.
                self._away("database.unavailable", error)
            except topology.AWAY as error:
                self._away("broker.unavailable", error)

    def _consume(self, connection: Connection) -> None:
        channel = connection.channel()
        consumer = Consumer(channel, [topology.intake_queue], on_message=self._waiting.append, accept=None)
        consumer.qos(prefetch_count=self._batch * 2)
        self._waiting.clear()
        with consumer:
            while not self._stop.is_set():
                self._turned()
                self._fill(connection)
                if self._waiting:
                    batch, self._waiting[:] = self._waiting[: self._batch], self._waiting[self._batch :]
                    self._alone = len(batch) == 1
                    self._admit(batch)

    def _fill(self, connection: Connection) -> None:
        """Wait for a first message; then a moment for more, and a longer one where many are coming."""
        until = time.monotonic() + IDLE
        while len(self._waiting) < self._batch:
            left = until - time.monotonic()
            if left <= 0:
                return
            had = len(self._waiting)
            try:
                connection.drain_events(timeout=left)
            except (TimeoutError, socket.timeout):  # noqa: UP041 - pgmq raises the old name
                connection.heartbeat_check()
                return
            if not had and self._waiting:
                if self._alone:
                    return  # nobody waits for company that doesn't come
                until = time.monotonic() + self._linger

    def _admit(self, batch: list[Any]) -> None:
        now = datetime.now(UTC)
        admitted = self._runtime.intake.admit([Delivery.of(message, now) for message in batch])
        # In order of haste: somebody waits for the work to begin.
        self._bell.ring(admitted.advanced.rings)
        self._acknowledge(batch)
        if admitted.accepted:
            with self._runtime.database.statements() as tx:
                outbox.wake(tx)
        for refused in admitted.refused:
            _log.warning("message.refused", reason=str(refused.reason), field=refused.field)
        accepted, repeated = len(admitted.accepted), len(admitted.repeated)
        _log.info("request.admitted", accepted=accepted, repeated=repeated, refused=len(admitted.refused))

    def _acknowledge(self, batch: list[Any]) -> None:
        if topology.is_pgmq(self._runtime.settings):
            for message in batch:
                message.ack()
        else:
            # They came in order, and all before them is acknowledged: one word for the batch instead of one for each.
            batch[-1].ack(multiple=True)

    def _away(self, event: str, error: Exception) -> None:
        self._turned()
        _log.warning(event, error=type(error).__name__)
        self._stop.wait(PAUSE)
