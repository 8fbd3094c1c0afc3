"""A worker's readiness: Celery owns its main loop, so a thread asks the database and the broker instead."""

from __future__ import annotations

import threading
import time

from orchestrator.broker import topology
from orchestrator.errors import Unavailable
from orchestrator.runtime import Runtime
from orchestrator.store.database import Database
from orchestrator.web.health import Health

EVERY = 10.0
"""Seconds between two looks."""


class Probe:
    """Looks whether the worker could work now."""

    def __init__(self, runtime: Runtime, health: Health) -> None:
        """Has connections of its own: py-amqp's must not be shared between threads."""
        self._settings, self._health = runtime.settings, health
        self._database = Database(self._settings.database_url.get_secret_value(), pool=1, name="habeas probe")

    def start(self) -> None:
        """In the background."""
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._health.report("database", self._ask_database())
            self._health.report("broker", self._ask_broker())
            time.sleep(EVERY)

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
