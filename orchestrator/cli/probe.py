"""Readiness: a thread asks the database and the broker, for an idle main loop would not notice that they are gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.errors import Unavailable
from orchestrator.runtime import Runtime
from orchestrator.store.database import Database
from orchestrator.web.health import Health

_log = logs.get("process")

EVERY = 5.0
"""Seconds between two looks."""


class Probe:
    """Looks whether the process could work now."""

    def __init__(self, runtime: Runtime, health: Health, turned: Callable[[], None] = lambda: None) -> None:
        """Has connections of its own: py-amqp's must not be shared between threads.

        ``turned`` is called at every look: for a worker, whose main loop is Celery's and can't say that it turns.
        """
        self._settings, self._health, self._turned = runtime.settings, health, turned
        self._database = Database(self._settings.database_url.get_secret_value(), pool=1, name="habeas probe")

    def start(self) -> None:
        """In the background."""
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def _run(self) -> None:
        while True:
            database = self._ask_database()
            self._report("database", database)
            self._report("broker", database if topology.is_pgmq(self._settings) else self._ask_broker())
            self._turned()
            time.sleep(EVERY)

    def _report(self, part: str, well: bool) -> None:
        was = self._health.parts.get(part, True)
        self._health.report(part, well)
        if was and not well:
            _log.warning(f"{part}.unavailable")
        elif well and not was:
            _log.info(f"{part}.back")

    def _ask_database(self) -> bool:
        try:
            self._database.ping()
        except Unavailable:
            return False
        return True

    def _ask_broker(self) -> bool:
        try:
            with topology.connect(self._settings, "work") as connection:
                connection.connect()
        except topology.AWAY:
            return False
        return True
