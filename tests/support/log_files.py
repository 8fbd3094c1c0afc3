"""Log files of every compression, and a connector to look after them."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard

from connectors.contract import Action, ConnectorError, Done, Identity, Pending, Result, Task
from connectors.logs import Logs, LogsConfig

NOW = datetime(2026, 11, 3, 9, 0, tzinfo=UTC)

JSON_SOURCE: Mapping[str, Any] = {
    "name": "app",
    "files": "app.jsonl*",
    "format": "jsonl",
    "fields": {
        "user_id": {"identity": "user_id"},
        "email": {"identity": "email"},
        "client.ip": {"identity": "ip"},
    },
    "context": ["at"],
}
COMBINED_SOURCE: Mapping[str, Any] = {
    "name": "access",
    "files": "access.log*",
    "format": "combined",
    "fields": {
        "remote_addr": {"identity": "ip"},
        "remote_user": {"identity": "user_id"},
        "user_agent": {"categories": "user.device"},
    },
}


@dataclass
class ListSink:
    """Keeps what it is given."""

    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        self.records.append((collection, dict(record)))

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        raise AssertionError("the logs writes records one by one")

    def attach(self, name: str, chunks: Iterable[bytes]) -> None:
        raise AssertionError(f"logs have no attachments, not even {name}")


@dataclass
class ListCall:
    """A call whose sinks can be looked into."""

    now: datetime = NOW
    sinks: dict[str, ListSink] = field(default_factory=dict)

    def sink(self, task: Task) -> ListSink:
        return self.sinks.setdefault(task.key, ListSink())


def logs(root: Path, *sources: Mapping[str, Any], **settings: Any) -> Logs:
    """A connector for these sources."""
    return Logs("logs", LogsConfig.model_validate({"root": root, "sources": sources, **settings}))


def task(key: str, action: str = "erase", *, scope: Iterable[str] | None = None, **identities: str) -> Task:
    """One person's task; identities by type."""
    found = tuple(Identity(kind, value) for kind, value in identities.items())
    return Task(key, Action(action), found, None if scope is None else frozenset(scope))


def run(connector: Logs, tasks: Sequence[Task], call: ListCall | None = None) -> dict[str, Result]:
    """What the engine would do with one batch."""
    return {t.key: result for t, result in connector.perform(tasks[0].action, tasks, call or ListCall())}


def done(connector: Logs, *tasks: Task, call: ListCall | None = None) -> list[Done]:
    """The results, all of which must be ``Done``."""
    results = list(run(connector, tasks, call).values())
    assert all(isinstance(result, Done) for result in results), [str(r) for r in results]
    return [result for result in results if isinstance(result, Done)]


def error(connector: Logs, one: Task) -> ConnectorError:
    """The error that one task ends with."""
    result = run(connector, [one])[one.key]
    assert isinstance(result, ConnectorError), result
    return result


def pending(connector: Logs, one: Task) -> Pending:
    """What one task waits for."""
    result = run(connector, [one])[one.key]
    assert isinstance(result, Pending), result
    return result


def pack(path: Path, data: bytes, parts: int = 1) -> Path:
    """Write a file, compressed as its name says, in several gzip members or zstd frames."""
    step = max(1, -(-len(data) // parts))
    pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    if path.suffix == ".gz":
        path.write_bytes(b"".join(gzip.compress(piece) for piece in pieces))
    elif path.suffix == ".zst":
        path.write_bytes(b"".join(zstandard.compress(piece) for piece in pieces))
    else:
        path.write_bytes(data)
    return path


def unpack(path: Path) -> bytes:
    """A file's content, read with other tools than the connector's where there are any."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return b"".join(_frames(data))
    return data


def _frames(data: bytes) -> Iterator[bytes]:
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        yield frame.decompress(data)
        assert frame.eof
        data = frame.unused_data
