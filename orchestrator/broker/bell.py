"""Ringing doorbells, after the commit. A ring that fails is no error: the sweep rings again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from celery import Celery

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.broker.celery_app import RING

_log = logs.get("bell")


class Bell(Protocol):
    """Rings for systems that have work."""

    def ring(self, systems: Mapping[str, int]) -> None:
        """``systems``: name → how many steps are ready; not exact, and not important."""


class CeleryBell:
    """Rings through the broker."""

    def __init__(self, app: Celery) -> None:
        """Connections come from the app's pool."""
        self._app = app

    def ring(self, systems: Mapping[str, int]) -> None:
        """One doorbell for each system: a worker that takes a full batch rings for the next one."""
        try:
            with self._app.producer_or_acquire() as producer:
                for system in sorted(s for s, n in systems.items() if n):
                    self._app.send_task(
                        RING,
                        args=(system,),
                        queue=topology.work_queue_name(system),
                        producer=producer,
                        ignore_result=True,
                        retry=False,
                    )
        except topology.AWAY as error:
            _log.warning("broker.unavailable", error=type(error).__name__)
