"""Ringing doorbells, after the commit. A ring that fails is no error: the sweep rings again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from kombu import Connection

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.broker.celery_app import RING
from orchestrator.confirms import Window, window_on
from orchestrator.settings import Settings

_log = logs.get("bell")


class Bell(Protocol):
    """Rings for systems that have work."""

    def ring(self, systems: Mapping[str, int]) -> None:
        """``systems``: name → how many steps are ready; not exact, and not important."""


class BrokerBell:
    """Rings through the broker, with messages that Celery's workers take for theirs.

    Celery's own way to send one takes ten times as long, and a request waits for it before its first step.
    """

    def __init__(self, settings: Settings) -> None:
        """Connects when first used, so that it can be made before a fork."""
        self._settings = settings
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._window: Window | None = None
        self._declared: set[str] = set()
        """Systems whose queues this connection knows."""

    def ring(self, systems: Mapping[str, int]) -> None:
        """One doorbell for each system: a worker that takes a full batch rings for the next one."""
        names = sorted(s for s, n in systems.items() if n)
        if not names:
            return
        with self._lock:
            # Once more on a fresh connection: this one may have been cut while nobody rang.
            for left in (1, 0) if self._window is not None else (0,):
                try:
                    self._ring(names)
                except topology.AWAY as error:
                    self._drop()
                    if not left:
                        _log.warning("broker.unavailable", error=type(error).__name__)
                else:
                    return

    def close(self) -> None:
        """Let go of the connection; a later ring makes another."""
        with self._lock:
            self._drop()

    def _ring(self, names: Sequence[str]) -> None:
        window = self._connected(names)
        for name in names:
            content = window.content(*doorbell(name))
            window.publish(content, topology.work_exchange.name, topology.work_queue_name(name))
        window.await_all(topology.CONFIRM_TIMEOUT)

    def _connected(self, names: Sequence[str]) -> Window:
        if self._connection is None or self._window is None:
            self._connection = topology.connect(self._settings, "bell", heartbeat=0)
            self._connection.connect()
            self._window = window_on(self._connection.channel(), confirms=not topology.is_pgmq(self._settings))
        if not self._declared.issuperset(names):
            with self._connection.channel() as channel:
                for name in names:
                    topology.work_queue(name)(channel).declare()
            self._declared.update(names)
        return self._window

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection, self._window = None, None
        self._declared.clear()


def doorbell(system: str) -> tuple[bytes, Mapping[str, Any]]:
    """A call of the task ``RING`` in Celery's protocol, version 2; as much of it as its workers ask for."""
    id_ = str(uuid4())
    properties = {
        "headers": {"lang": "py", "task": RING, "id": id_, "root_id": id_},
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "correlation_id": id_,
    }
    return f'[["{system}"], {{}}, {{}}]'.encode(), properties
