"""Pace: what was claimed from a system with a rate begins while its permit surely lasts, or is handed back."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

from orchestrator import logs
from orchestrator.core.bucket import Rate
from orchestrator.errors import Unavailable
from orchestrator.store import rates
from orchestrator.store.database import Database

_log = logs.get("pace")

REPORT = 0.1
"""Seconds between two words on how much has begun; the last is said at once."""


class Pace:
    """One claim's permit. A context manager: outside of it nothing begins."""

    def __init__(
        self,
        database: Database,
        system: str,
        rate: Rate | None,
        token: UUID,
        steps: int,
        since: float,
        lasts: timedelta,
    ) -> None:
        """``since``: ``time.monotonic()`` before the claim, so that the permit ends here before it ends there.

        Without a ``rate`` everything may begin.
        """
        self._database, self._system, self._rate, self._token = database, system, rate, token
        self._lasts = lasts
        self._until = since + lasts.total_seconds()
        self._unbegun = self._said = steps
        self._wake = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._report, name="pace", daemon=True)
        self.refused: set[str] = set()
        """Keys of tasks that may not begin any more: others may have them."""

    def begin(self, key: str) -> bool:
        """Whether the task may begin, now. One that may counts as begun."""
        if self._rate is None:
            return True
        with self._wake:
            if time.monotonic() >= self._until:
                self.refused.add(key)
                return False
            self._unbegun -= 1
            if self._unbegun == 0:
                self._wake.notify()
            return True

    def __enter__(self) -> Self:
        """From now on it is said what has begun."""
        if self._rate is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what never began."""
        if self._rate is None:
            return
        with self._wake:
            self._ended, self._until = True, 0.0
            self._wake.notify()
        self._thread.join()
        if self._said == 0:
            return
        try:
            with self._database.transaction() as tx:
                rates.end(tx, self._system, self._rate, self._token, self._unbegun)
        except Unavailable:
            _log.warning("database.unavailable", system=self._system)  # the permit runs out by itself

    def _report(self) -> None:
        assert self._rate is not None  # noqa: S101 - there is no thread without
        renewed = time.monotonic()
        while self._said:
            with self._wake:
                self._wake.wait_for(lambda: self._ended or self._unbegun == 0, REPORT)
                if self._ended:
                    return
                unbegun = self._unbegun
            since = time.monotonic()
            if unbegun == self._said and since - renewed < self._lasts.total_seconds() / 3:
                continue
            try:
                with self._database.transaction() as tx:
                    lasts = rates.keep(tx, self._system, self._rate, self._token, unbegun, self._lasts)
            except Unavailable:
                # The permit may run out; then the rest is handed back, and that is right.
                _log.warning("database.unavailable", system=self._system)
                time.sleep(REPORT)
                continue
            renewed, self._said = since, unbegun
            with self._wake:
                self._until = since + self._lasts.total_seconds() if lasts and not self._ended else 0.0
