"""A ZIP written front to back, whose files may come deflated already; ``zipfile`` takes plain data alone.

Sizes and CRC-32 follow each file in a data descriptor, all in ZIP64. The form is PKWARE's APPNOTE 6.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from isal import isal_zlib

from orchestrator.artifacts.pieces import LAST, deflate

__all__ = ["Archive", "Entry"]

_LOCAL = struct.Struct("<4s5H3I2H")
_EXTRA = struct.Struct("<2H2Q")
_DESCRIPTOR = struct.Struct("<4sI2Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CENTRAL_EXTRA = struct.Struct("<2H3Q")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_VERSION: Final = 45  # the first with ZIP64
_MADE_ON_UNIX: Final = 3 << 8
_FLAGS: Final = 0x0808  # a data descriptor follows; the name is UTF-8
_DEFLATED: Final = 8
_MODE: Final = 0o100600 << 16  # the person's own, and nobody else's
_IN_EXTRA: Final = 0xFFFFFFFF
_ZIP64: Final = 1
_LATER: Final = 0xFFFF


class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


@dataclass(slots=True)
class Entry:
    """One file of the archive, while it is written and afterwards."""

    path: bytes
    offset: int
    size: int = 0
    packed: int = 0
    crc: int = 0


class Archive:
    """Writes to ``sink``, which is not closed. One file at a time: ``open``, any number of ``put``, ``close``."""

    def __init__(self, sink: _Writable, moment: datetime) -> None:
        """``moment``: when all files were last changed, as far as the archive knows."""
        at = moment.astimezone(UTC)
        self._sink = sink
        self._time = at.hour << 11 | at.minute << 5 | at.second // 2
        self._date = max(at.year - 1980, 0) << 9 | at.month << 5 | at.day
        self._entries: list[Entry] = []
        self._position = 0

    @property
    def files(self) -> int:
        """How many there are."""
        return len(self._entries)

    def add(self, path: str, pieces: Iterable[bytes]) -> None:
        """A whole file of plain data."""
        entry, crc = self.open(path), 0
        for piece in pieces:
            crc = isal_zlib.crc32(piece, crc)
            self.put(entry, deflate(piece), len(piece))
        self.close(entry, crc)

    def open(self, path: str) -> Entry:
        """Begin a file."""
        entry = Entry(path.encode(), self._position)
        self._entries.append(entry)
        extra = _EXTRA.pack(_ZIP64, _EXTRA.size - 4, 0, 0)
        head = _LOCAL.pack(
            b"PK\3\4", _VERSION, _FLAGS, _DEFLATED, self._time, self._date, 0, _IN_EXTRA, _IN_EXTRA,
            len(entry.path), len(extra),
        )  # fmt: skip
        self._write(head + entry.path + extra)
        return entry

    def put(self, entry: Entry, packed: bytes, size: int) -> None:
        """The next ``size`` bytes of a file, packed as ``pieces`` says."""
        entry.size += size
        entry.packed += len(packed)
        self._write(packed)

    def close(self, entry: Entry, crc: int) -> None:
        """End a file; ``crc`` is the CRC-32 of all of it, unpacked."""
        self.put(entry, LAST, 0)
        entry.crc = crc
        self._write(_DESCRIPTOR.pack(b"PK\7\10", crc, entry.packed, entry.size))

    def finish(self) -> None:
        """Write the directory: the archive is complete."""
        start = self._position
        for e in self._entries:
            extra = _CENTRAL_EXTRA.pack(_ZIP64, _CENTRAL_EXTRA.size - 4, e.size, e.packed, e.offset)
            head = _CENTRAL.pack(
                b"PK\1\2", _MADE_ON_UNIX | _VERSION, _VERSION, _FLAGS, _DEFLATED, self._time, self._date, e.crc,
                _IN_EXTRA, _IN_EXTRA, len(e.path), len(extra), 0, 0, 0, _MODE, _IN_EXTRA,
            )  # fmt: skip
            self._write(head + e.path + extra)
        end, count, size = self._position, len(self._entries), self._position - start
        self._write(
            _END64.pack(
                b"PK\6\6", _END64.size - 12, _MADE_ON_UNIX | _VERSION, _VERSION, 0, 0, count, count, size, start
            )
        )
        self._write(_LOCATOR.pack(b"PK\6\7", 0, end, 1))
        self._write(_END.pack(b"PK\5\6", 0, 0, _LATER, _LATER, _IN_EXTRA, _IN_EXTRA, 0))

    def _write(self, data: bytes) -> None:
        self._position += len(data)
        self._sink.write(data)
