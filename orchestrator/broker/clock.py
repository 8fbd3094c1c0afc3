"""The clock process: one leader sweeps, relays and purges; the others stand by to take over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.broker.bell import Bell
from orchestrator.broker.relay import Relay
from orchestrator.errors import Unavailable
from orchestrator.runtime import Runtime
from orchestrator.stages.sweep import COVERED
from orchestrator.store import outbox

_log = logs.get("clock")

LEADER_LOCK = 0x48_41_42_4C  # "HABL": whoever holds this advisory lock leads
PAUSE = 1.0
"""Seconds between attempts to lead, and while the database or the broker is away."""
CROWD, BREATH = 32, 0.05
"""Events published at once from which on the outbox is left alone for a moment, and for how many seconds."""
ASLEEP = 30.0
"""Seconds without a word from a leader after which the database ends its session, and with it the lock: it was stopped,
or the network to it is gone. At least three sweeps."""


class Clock:
    """Leads when it can, until stopped."""

    def __init__(
        self, runtime: Runtime, relay: Relay, bell: Bell, stop: threading.Event, turned: Callable[[], None]
    ) -> None:
        """``turned`` is called whenever the loop turns."""
        self._runtime, self._relay, self._bell = runtime, relay, bell
        self._stop, self._turned = stop, turned
        self._crowd = False
        """Whether the last look at the outbox found many events."""
        self._next = {"sweep": 0.0, "take_back": 0.0, "purge": 0.0, "checkpoint": 0.0}

    def run(self) -> None:
        """Until ``stop`` is set; outlives the database and the broker."""
        while not self._stop.is_set():
            try:
                self._lead_or_wait()
            except (Unavailable, psycopg.Error) as error:
                self._turned()
                _log.warning("database.unavailable", error=type(error).__name__)
                self._stop.wait(PAUSE)
        self._relay.close()

    def _lead_or_wait(self) -> None:
        # A session of its own: the lock is held as long as the connection lives, and dies with it.
        url = topology.libpq(self._runtime.settings.database_url.get_secret_value())
        with psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="habeas leader") as session:
            while not self._stop.is_set():
                self._turned()
                row = session.execute("SELECT pg_try_advisory_lock(%s)", [LEADER_LOCK]).fetchone()
                if row is not None and row[0]:
                    self._lead(session)
                    return
                self._stop.wait(PAUSE)

    def _lead(self, session: psycopg.Connection[Any]) -> None:
        _log.info("leader.elected")
        settings = self._runtime.settings
        asleep = max(ASLEEP, 3 * settings.sweep_seconds)
        session.execute(f"SET idle_session_timeout = '{asleep:.0f}s'")
        # Perhaps the database was away for longer than a lease: workers that live are given time to renew theirs.
        self._next["take_back"] = time.monotonic() + settings.lease_seconds / 3 + PAUSE
        session.execute(f"LISTEN {outbox.CHANNEL}")
        self._runtime.register_systems()
        while not self._stop.is_set():
            self._turn(session)
            self._wait(session)

    def _turn(self, session: psycopg.Connection[Any]) -> None:
        now = time.monotonic()
        self._turned()
        if now >= self._due():
            # Proves that the session and with it the lock is still ours. Not asked for the relay's sake, which each
            # event wakes: what two of them publish is published twice, under one id.
            session.execute("SELECT 1")
        if now >= self._next["sweep"]:
            advanced = self._runtime.sweep.tick(take_back=now >= self._next["take_back"])
            self._bell.ring(advanced.rings)
            self._next["sweep"] = now + self._runtime.settings.sweep_seconds
        if now >= self._next["purge"]:
            more = self._runtime.sweep.purge().more
            self._next["purge"] = now if more else now + self._runtime.settings.retention_sweep_seconds
        if now >= self._next["checkpoint"]:
            more = self._runtime.sweep.checkpoint() >= COVERED
            self._next["checkpoint"] = now if more else now + self._runtime.settings.retention_sweep_seconds
        try:
            self._crowd = self._relay.publish() >= CROWD
        except topology.AWAY as error:
            _log.warning("outbox.stuck", error=type(error).__name__)
            self._stop.wait(PAUSE)

    def _wait(self, session: psycopg.Connection[Any]) -> None:
        """Until something is in the outbox, or something else is due."""
        if self._crowd:
            # More are being written just now: a window with all of them costs hardly more than one with the first.
            self._stop.wait(BREATH)
        left = max(0.0, self._due() - time.monotonic())
        for _ in session.notifies(timeout=left, stop_after=1):
            return

    def _due(self) -> float:
        """When something else than events is to be done."""
        return min(self._next[what] for what in ("sweep", "purge", "checkpoint"))
