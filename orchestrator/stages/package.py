"""The packager: the engine's own system, whose one action puts what access steps gathered into a sealed package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, cast
from uuid import UUID

from sqlalchemy import Connection, select

from connectors import contract
from orchestrator.artifacts.package import About, Part, build_package
from orchestrator.artifacts.records import Artifact, place
from orchestrator.artifacts.spool import Stored
from orchestrator.core.model import System
from orchestrator.core.planner import PACKAGER
from orchestrator.errors import NotFound, StoreFull
from orchestrator.privacy.vault import RequestKey
from orchestrator.store import tables
from orchestrator.store.database import Database

_TOGETHER: Final = 50
"""Requests whose artifacts are in memory at once; each may have 256 KiB for each system."""


class EngineCall(contract.Call, Protocol):
    """What the engine lends its own systems beyond what it lends connectors."""

    def key(self, task: contract.Task) -> RequestKey:
        """The request's key."""

    def request(self, task: contract.Task) -> UUID:
        """The request that the task belongs to."""

    def place(self, task: contract.Task) -> str:
        """What the task's artifact is sealed for."""

    def deposit(self, task: contract.Task, stored: Stored, counts: Mapping[str, int]) -> None:
        """Keep what was made as the step's artifact."""


class PackagerConfig(contract.ConnectorConfig):
    """The packager has no settings."""


class Packager(contract.Connector[PackagerConfig]):
    """Builds packages, for many requests in one claim."""

    Config = PackagerConfig
    batch = 200

    def __init__(self, database: Database, artifacts: Path, systems: Mapping[str, System] | None = None) -> None:
        """``systems``: for the data categories named in the package's index; set once they are loaded."""
        super().__init__(PACKAGER, PackagerConfig())
        self._database, self._artifacts = database, artifacts
        self.systems: Mapping[str, System] = systems or {}

    def package_many(self, tasks: Sequence[contract.Task], call: contract.Call) -> contract.Results:
        """One package for each request. A request for which nothing was gathered gets one that says so."""
        engine = cast("EngineCall", call)
        results: dict[str, contract.Result] = {}
        for start in range(0, len(tasks), _TOGETHER):
            results |= self._package(tasks[start : start + _TOGETHER], engine)
        return results

    def _package(self, tasks: Sequence[contract.Task], engine: EngineCall) -> contract.Results:
        requests = {engine.request(task): task for task in tasks}
        with self._database.transaction() as tx:
            abouts = _abouts(tx, requests)
            parts = self._parts(tx, requests)
        results: dict[str, contract.Result] = {}
        for request, task in requests.items():
            try:
                key = engine.key(task)
                package = build_package(parts[request], abouts[request], key, engine.place(task), self._artifacts)
            except (OSError, StoreFull) as error:
                results[task.key] = contract.Retryable(_words(error))
                continue
            engine.deposit(task, package.stored, {"records": package.records, "files": package.files})
            counts = {"records": package.records, "files": package.files}
            results[task.key] = contract.Done(
                contract.Outcome.EXECUTED, counts=counts, evidence={"sha256": package.zip_digest}
            )
        return results

    def _parts(self, tx: Connection, requests: Iterable[UUID]) -> dict[UUID, list[Part]]:
        artifact = tables.artifact
        query = select(artifact).where(artifact.c.request_id.in_(list(requests)), artifact.c.system != PACKAGER)
        parts: dict[UUID, list[Part]] = {request: [] for request in requests}
        for row in tx.execute(query.order_by(artifact.c.system, artifact.c.ordinal)):
            categories = self.systems[row.system].categories if row.system in self.systems else frozenset()
            parts[row.request_id].append(Part(row.system, to_artifact(row), aad(row), row.created_at, categories))
        return parts


def _words(error: OSError | StoreFull) -> str:
    """What is wrong with the artifacts folder; a file's name is nobody's business."""
    return str(error) if isinstance(error, StoreFull) else f"the artifacts folder failed: {error.strerror}"


def to_artifact(row: Any) -> Artifact:
    """A stored artifact."""
    return Artifact(to_stored(row), row.counts.get("collections", {}), row.counts.get("attachments", {}))


def to_stored(row: Any) -> Stored:
    """Where an artifact's sealed bytes lie."""
    return Stored(row.bytes, row.digest, inline=row.inline, file=row.location)


def aad(row: Any) -> str:
    """The place an artifact was sealed for: the step that made it."""
    return place(row.request_id, row.ordinal)


def find_package(tx: Connection, request: UUID) -> Any:
    """The row of a request's package. Raises ``NotFound``."""
    artifact = tables.artifact
    query = select(artifact).where(artifact.c.request_id == request, artifact.c.system == PACKAGER)
    row = tx.execute(query.order_by(artifact.c.ordinal.desc()).limit(1)).one_or_none()
    if row is None:
        raise NotFound(f"request {request} has no package: it gathered none, or it was shredded")
    return row


def _abouts(tx: Connection, requests: Iterable[UUID]) -> dict[UUID, About]:
    table = tables.request
    query = select(table.c.id, table.c.right, table.c.regulation, table.c.received_at)
    now = datetime.now(UTC)
    return {
        r.id: About(str(r.id), r.right, r.regulation, r.received_at, now)
        for r in tx.execute(query.where(table.c.id.in_(list(requests))))
    }
