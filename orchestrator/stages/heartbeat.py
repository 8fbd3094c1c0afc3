"""Heartbeat: while a connector works, its leases are extended; one statement for the whole process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from orchestrator import logs
from orchestrator.errors import Unavailable
from orchestrator.store import claims
from orchestrator.store.database import Database

_log = logs.get("heartbeat")


class Heartbeat:
    """Extends the leases that this process holds, three times per lease."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        """The thread starts with the first lease that is held."""
        self.lease = lease
        self._database = database
        self._held: set[UUID] = set()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def holding(self, token: UUID) -> Iterator[None]:
        """Keep one lease alive inside the ``with`` block."""
        with self._wake:
            self._held.add(token)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._thread.start()
            self._wake.notify()
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(token)

    def _beat(self) -> None:
        while True:
            with self._wake:
                while not self._held:
                    self._wake.wait()
            # Not waiting on the condition: each new batch would wake it, and cost a statement of its own.
            time.sleep(self.lease.total_seconds() / 3)
            with self._lock:
                tokens = set(self._held)
            if not tokens:
                continue
            try:
                with self._database.transaction() as tx:
                    claims.extend(tx, tokens, self.lease)
            except Unavailable:
                # The lease may run out; then the settle is fenced, and that is right.
                _log.warning("database.unavailable", leases=len(tokens))
