"""Prometheus metrics, read from the truth at scrape time."""

from __future__ import annotations

from orchestrator.settings import Settings
from orchestrator.store.database import Database


class Metrics:
    """Renders metrics."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings

    def render(self) -> bytes:
        """Prometheus text."""
        return b""
