"""What a connector is lent for one call, and what it leaves there: gathered records, deposits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from connectors import contract
from orchestrator.artifacts.records import Artifact, ArtifactWriter, place
from orchestrator.artifacts.spool import Stored
from orchestrator.privacy.vault import RequestKey
from orchestrator.stages.secrets import Opened
from orchestrator.store.claims import Claimed


class Item(Protocol):
    """What is known of a task here."""

    @property
    def claimed(self) -> Claimed:
        """Its step."""

    @property
    def opened(self) -> Opened:
        """Its request's facts."""


class Lent:
    """What a connector is lent for one call: the time, and sinks."""

    def __init__(self, directory: Path, items: Mapping[str, Item]) -> None:
        """``items``: by the key of their tasks."""
        self._directory, self._items = directory, items
        self._writers: dict[str, ArtifactWriter] = {}
        self._deposits: dict[str, Artifact] = {}

    @property
    def now(self) -> datetime:
        """See ``contract.Call``."""
        return datetime.now(UTC)

    def sink(self, task: contract.Task) -> contract.Sink:
        """See ``contract.Call``."""
        if task.key not in self._writers:
            self._writers[task.key] = ArtifactWriter(self.key(task), self.place(task), self._directory)
        return self._writers[task.key]

    def key(self, task: contract.Task) -> RequestKey:
        """The request's key."""
        return self._items[task.key].opened.key

    def request(self, task: contract.Task) -> UUID:
        """The request's id."""
        return self._items[task.key].claimed.request

    def place(self, task: contract.Task) -> str:
        """Where an artifact of this task belongs."""
        return place(self.request(task), self._items[task.key].claimed.step.ordinal)

    def deposit(self, task: contract.Task, stored: Stored, counts: Mapping[str, int]) -> None:
        """Take what a connector of our own has stored already."""
        self._deposits[task.key] = Artifact(stored, counts)

    def finish(self, task: contract.Task, system: str, one: Claimed) -> dict[str, Any] | None:
        """The artifact row of what a task left, if anything."""
        if not (self._writers or self._deposits):
            return None
        writer = self._writers.pop(task.key, None)
        artifact = writer.finish() if writer is not None else self._deposits.pop(task.key, None)
        if artifact is None:
            return None
        return {
            "request_id": one.request,
            "ordinal": one.step.ordinal,
            "system": system,
            "records": artifact.records,
            "bytes": artifact.stored.size,
            "counts": {"collections": dict(artifact.collections), "attachments": dict(artifact.attachments)},
            "digest": artifact.stored.digest,
            "inline": artifact.stored.inline,
            "location": artifact.stored.file,
        }

    def discard(self) -> None:
        """Throw away what unfinished tasks wrote."""
        for writer in self._writers.values():
            writer.discard()
        self._writers.clear()
