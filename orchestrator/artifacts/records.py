"""What a connector gathered about a person: records and files, compressed and sealed while they stream in."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from isal import isal_zlib

from orchestrator.artifacts.pieces import Kind, deflate, head
from orchestrator.artifacts.spool import INLINE_LIMIT, Spool, Stored
from orchestrator.artifacts.stream import CHUNK, SealingWriter
from orchestrator.privacy.vault import RequestKey

__all__ = ["Artifact", "ArtifactWriter", "place"]

_HELD = CHUNK
"""Bytes that one writer holds back before it makes pieces of them: a thousand may be open at once."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a finished writer leaves. Names of collections and files are kinds of things; no values."""

    stored: Stored
    collections: Mapping[str, int] = field(default_factory=dict)
    """Name → records, in order of appearance."""
    attachments: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Name → bytes, in order of appearance."""

    @property
    def records(self) -> int:
        """How many records there are in all."""
        return sum(self.collections.values())


@dataclass(slots=True)
class _Entry:
    """One collection or attachment in the making."""

    kind: Kind
    number: int
    total: int = 0
    """Records, or bytes of a file, so far."""
    crc: int = 0
    """Of what is in pieces already."""
    count: int = 0
    """The part of ``total`` that is held."""
    held: bytearray = field(default_factory=bytearray)


def place(request: UUID, ordinal: int) -> str:
    """What a step's artifact is sealed for: it can be opened as that step's, and as no other's."""
    return f"{request}/{ordinal}"


class ArtifactWriter:
    """The sink of one access task (``connectors.contract.Sink``). Use one thread at a time.

    As a context manager it throws everything away unless ``finish`` was called:

        with ArtifactWriter(key, aad, directory) as sink:
            connector.access(task, sink)
            artifact = sink.finish()
    """

    def __init__(self, key: RequestKey, aad: str, directory: Path, inline_limit: int = INLINE_LIMIT) -> None:
        """``aad`` names the ``place``; ``directory`` is used beyond ``inline_limit``."""
        self._spool = Spool(directory, inline_limit)
        self._sealed = SealingWriter(self._spool, key, aad)
        self._entries: dict[tuple[Kind, str], _Entry] = {}
        self._held = 0
        self._artifact: Artifact | None = None

    def __enter__(self) -> Self:
        """This."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Throw away what was not finished."""
        if self._artifact is None:
            self.discard()

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        """Add one record. Times, decimals, UUIDs and bytes are taken too; raises ``TypeError`` for other classes."""
        self.lines(collection, _json(dict(record)).encode("utf-8", "replace") + b"\n", 1)

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        """Add ``count`` records that are JSON already: objects in UTF-8, each on a line that ends with a newline."""
        self._take(self._entry(Kind.RECORDS, collection), lines, count)

    def attach(self, name: str, chunks: Iterable[bytes]) -> None:
        """Add one file. Given again, the name gets more: what came first stays in front."""
        entry = self._entry(Kind.FILE, name)
        for chunk in chunks:
            for start in range(0, len(chunk), CHUNK):
                piece = chunk[start : start + CHUNK]
                self._take(entry, piece, len(piece))

    def finish(self) -> Artifact:
        """End and make durable; may be called again."""
        if self._artifact is None:
            self._make_pieces()
            collections, attachments = self._totals(Kind.RECORDS), self._totals(Kind.FILE)
            contents = json.dumps({"collections": collections, "attachments": attachments}).encode()
            self._put(head(Kind.END, 0, packed=len(contents)), contents)
            self._sealed.finish()
            self._artifact = Artifact(self._spool.finish(), collections, attachments)
        return self._artifact

    def discard(self) -> None:
        """Throw everything away."""
        self._spool.discard()

    def _totals(self, kind: Kind) -> dict[str, int]:
        return {name: entry.total for (k, name), entry in self._entries.items() if k is kind}

    def _entry(self, kind: Kind, name: str) -> _Entry:
        if self._artifact is not None:
            raise ValueError("the artifact is finished")
        entry = self._entries.get((kind, name))
        if entry is None:
            # What came before goes first, so that names which do not mix lie one after the other.
            self._make_pieces()
            entry = self._entries[kind, name] = _Entry(kind, len(self._entries))
            text = name.encode("utf-8", "replace")
            self._put(head(Kind.NAME, int(kind), packed=len(text)), text)
        return entry

    def _take(self, entry: _Entry, data: bytes, count: int) -> None:
        entry.total += count
        if len(data) >= _HELD:
            self._make_pieces()
            self._piece(entry, data, count)
            return
        entry.held += data
        entry.count += count
        self._held += len(data)
        if self._held >= _HELD:
            self._make_pieces()

    def _make_pieces(self) -> None:
        if self._held:
            for entry in self._entries.values():
                if entry.held:
                    self._piece(entry, bytes(entry.held), entry.count)
                    entry.held.clear()
                    entry.count = 0
            self._held = 0

    def _piece(self, entry: _Entry, data: bytes, count: int) -> None:
        packed = deflate(data)
        entry.crc = isal_zlib.crc32(data, entry.crc)
        self._put(head(entry.kind, entry.number, count, len(data), entry.crc, len(packed)), packed)

    def _put(self, first: bytes, second: bytes) -> None:
        self._sealed.write(first)
        self._sealed.write(second)


def _json(record: Mapping[str, Any]) -> str:
    try:
        return _encoder.encode(record)
    except ValueError:
        # NaN and infinities are no JSON; a measurement that is one of them is kept by its name.
        return _encoder.encode(_finite(record))


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _plain(value: object) -> object:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    raise TypeError(f"a record holds a {type(value).__name__}, which JSON does not take; convert it in the connector")


_encoder = json.JSONEncoder(default=_plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
