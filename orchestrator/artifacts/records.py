"""What a connector gathered about a person: records and files, compressed and sealed while they stream in.

Inside the sealed stream lies one zlib stream of frames ``kind (1) | name (4) | length (4) | payload``:

* ``NAME``: the payload is a name in UTF-8, numbered from 0 in order of appearance
* ``RECORD``: the payload is one JSON object of the collection ``name``
* ``FILE``: the payload is a piece of the attachment ``name``; attachments with no piece are empty files
* ``END``: the payload is the table of contents, as JSON; nothing follows
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID

from orchestrator.artifacts.spool import INLINE_LIMIT, Spool, Stored, open_stored
from orchestrator.artifacts.stream import CHUNK, SealingWriter, UnsealingReader
from orchestrator.errors import VaultError
from orchestrator.privacy.vault import RequestKey

__all__ = ["Artifact", "ArtifactWriter", "FilePiece", "Record", "place", "read_artifact"]

_HEAD = struct.Struct(">BII")
_LEVEL = 3  # zlib: most of the gain at a third of the time


class _Kind(IntEnum):
    NAME = 1
    RECORD = 2
    FILE = 3
    END = 4


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


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a collection."""

    collection: str
    values: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FilePiece:
    """Some of an attachment, in order; the first piece of an empty file is empty."""

    name: str = field(repr=False)
    data: bytes = field(repr=False)


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
        self._zlib = zlib.compressobj(_LEVEL)
        self._names: dict[tuple[_Kind, str], int] = {}
        self._collections: dict[str, int] = {}
        self._attachments: dict[str, int] = {}
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
        payload = _json(dict(record))
        self._frame(_Kind.RECORD, self._number(_Kind.RECORD, collection), payload.encode("utf-8", "replace"))
        self._collections[collection] = self._collections.get(collection, 0) + 1

    def attach(self, name: str, chunks: Iterable[bytes]) -> None:
        """Add one file. Given again, the name gets more: what came first stays in front."""
        number = self._number(_Kind.FILE, name)
        self._attachments.setdefault(name, 0)
        for chunk in chunks:
            for start in range(0, len(chunk), CHUNK):
                self._frame(_Kind.FILE, number, chunk[start : start + CHUNK])
            self._attachments[name] += len(chunk)

    def finish(self) -> Artifact:
        """End and make durable; may be called again."""
        if self._artifact is None:
            contents = {"collections": self._collections, "attachments": self._attachments}
            self._frame(_Kind.END, 0, json.dumps(contents, ensure_ascii=False).encode("utf-8", "replace"))
            self._sealed.write(self._zlib.flush())
            self._sealed.finish()
            self._artifact = Artifact(self._spool.finish(), dict(self._collections), dict(self._attachments))
        return self._artifact

    def discard(self) -> None:
        """Throw everything away."""
        self._spool.discard()

    def _number(self, kind: _Kind, name: str) -> int:
        number = self._names.get((kind, name))
        if number is None:
            number = self._names[kind, name] = len(self._names)
            # The frame's own name field says what the name is for.
            self._frame(_Kind.NAME, int(kind), name.encode("utf-8", "replace"))
        return number

    def _frame(self, kind: _Kind, name: int, payload: bytes) -> None:
        if self._artifact is not None:
            raise ValueError("the artifact is finished")
        self._sealed.write(self._zlib.compress(_HEAD.pack(kind, name, len(payload))))
        self._sealed.write(self._zlib.compress(payload))


def read_artifact(stored: Stored, key: RequestKey, aad: str, directory: Path) -> Iterator[Record | FilePiece]:
    """Everything in an artifact, as it was written, in constant memory.

    Raises ``VaultError`` (shredded, tampered with, cut off) and ``NotFound`` (the file is gone), if need be midway.
    """
    with closing(UnsealingReader(open_stored(stored, directory), key, aad)) as sealed:
        frames = _Inflating(sealed)
        names: list[tuple[int, str]] = []
        while True:
            kind, number, length = _HEAD.unpack(frames.take(_HEAD.size))
            payload = frames.take(length)
            if kind == _Kind.NAME:
                names.append((number, payload.decode()))
                if number == _Kind.FILE:
                    yield FilePiece(names[-1][1], b"")
            elif kind == _Kind.RECORD:
                yield Record(names[number][1], cast("Mapping[str, Any]", json.loads(payload)))
            elif kind == _Kind.FILE:
                yield FilePiece(names[number][1], payload)
            else:
                # Reading on to the end makes sure that the last chunk holds too.
                frames.drain()
                return


class _Inflating:
    """Reads exact numbers of bytes out of a compressed stream."""

    def __init__(self, source: io.RawIOBase) -> None:
        self._source = source
        self._zlib = zlib.decompressobj()
        self._ready = bytearray()
        self._ended = False

    def take(self, size: int) -> bytes:
        while len(self._ready) < size:
            if self._ended:
                raise VaultError("the sealed file ends before its contents do")
            # Bounded: a small file must not be able to blow up in memory.
            fed = self._zlib.unconsumed_tail or (self._source.read(CHUNK) or b"")
            inflated = self._zlib.decompress(fed, max(CHUNK, size))
            # Without input zlib may still hold output back; the end is where neither is left.
            self._ended = not fed and not inflated
            self._ready += inflated
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def drain(self) -> None:
        while self._source.read(CHUNK):
            pass


def _json(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, default=_plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        # NaN and infinities are no JSON; a measurement that is one of them is kept by its name.
        return json.dumps(_finite(record), default=_plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


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
