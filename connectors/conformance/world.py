"""What an author gives the suite, a real system with people in it, and what the suite plays: the engine's side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from connectors.contract import Connector, Identity, Pending, Task

__all__ = ["Gathered", "Snapshot", "TestCall", "World"]

NOW: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
Snapshot = Mapping[str, object]
"""Whose data → a comparable picture of it. The keys ``person`` and ``other`` are the world's; more are welcome."""


@dataclass(frozen=True)
class World:
    """A real system with people in it."""

    connector: Connector[Any]
    person: tuple[Identity, ...]
    """Somebody the system holds data about."""
    other: tuple[Identity, ...]
    """Somebody else; shares no identity with ``person``."""
    stranger: tuple[Identity, ...]
    """Nobody."""
    snapshot: Callable[[], Snapshot]
    """Reads the system itself, past the connector."""
    unreachable: Connector[Any] | None = None
    """The same connector, set to a system that does not answer; ``None`` only where there is none to reach."""
    corrections: Mapping[str, str] = field(default_factory=lambda: {"user.name": "Conformance Rectified"})
    """What rectify writes: Fides data category → a value that nobody has yet."""
    purposes: frozenset[str] = frozenset({"marketing"})
    respond: Callable[[Task, Pending], Mapping[str, Any] | None] = lambda task, pending: None  # noqa: ARG005
    """What happens outside while a task is parked: let the system go on, or do a person's work; returns the report."""


@dataclass
class Gathered:
    """A sink that remembers."""

    records: list[tuple[str, str]] = field(default_factory=list)
    """Collection and JSON text of each record."""
    files: list[tuple[str, bytes]] = field(default_factory=list)

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        """Refuses, with ``TypeError``, what JSON cannot take."""
        self.records.append((collection, json.dumps(dict(record), allow_nan=False, ensure_ascii=False)))

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        """Refuses, with ``ValueError``, what is not ``count`` lines of JSON objects."""
        records = [json.loads(line) for line in lines.decode().removesuffix("\n").split("\n")]
        if len(records) != count or not lines.endswith(b"\n"):
            raise ValueError(f"{count} records were announced, and {len(records)} came")
        for record in records:
            self.write(collection, record)

    def attach(self, name: str, chunks: Iterable[bytes]) -> None:
        """Keep a file."""
        self.files.append((name, b"".join(chunks)))

    def text(self) -> str:
        """Everything gathered, as one text."""
        return "\n".join([r for _, r in self.records] + [c.decode(errors="replace") for _, c in self.files])


class TestCall:
    """A call whose clock is the suite's and whose sinks remember."""

    __test__ = False  # a helper, whatever its name begins with

    def __init__(self, now: datetime = NOW) -> None:
        """``now``: UTC."""
        self.now = now
        self.sinks: dict[str, Gathered] = {}

    def sink(self, task: Task) -> Gathered:
        """The sink of one task."""
        return self.sinks.setdefault(task.key, Gathered())
