"""The form of an artifact: a sealed stream of pieces, each compressed by itself.

    piece:  kind (1) | name (4) | count (4) | plain bytes (4) | CRC-32 (4) | packed bytes (4) | packed

* ``NAME``: a name in UTF-8, not compressed, numbered from 0 in order of appearance; ``name`` says of which kind
* ``RECORDS``: ``count`` JSON objects of the collection ``name``, one on each line
* ``FILE``: ``count`` bytes of the attachment ``name``; attachments without a piece are empty files
* ``END``: the table of contents as JSON, not compressed; nothing follows

Packed is raw deflate that ends at a byte, is not marked as the last block, and refers to nothing before it. So the
pieces of one name, put one after the other with ``LAST`` behind them, are one deflate stream: a package takes them over
as they are. For the same reason each piece has the CRC-32 of all that its name holds up to its end.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from isal import isal_zlib

from orchestrator.artifacts.spool import Stored, open_stored
from orchestrator.artifacts.stream import CHUNK, UnsealingReader
from orchestrator.errors import VaultError
from orchestrator.privacy.vault import RequestKey

__all__ = ["LAST", "Kind", "Piece", "deflate", "head", "read_pieces"]

LAST = b"\x03\x00"
"""The empty last block that ends a deflate stream."""
_HEAD = struct.Struct(">BIIIII")
_LEVEL = 1
"""Of ISA-L: the size of zlib's level 3 at several times the speed."""
_SHORT = 256  # bytes; setting up a compressor costs more than it saves


class Kind(IntEnum):
    """What a piece holds."""

    NAME = 1
    RECORDS = 2
    FILE = 3
    END = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of one collection or attachment, in order; the first piece of an attachment is empty."""

    name: str = field(repr=False)
    is_file: bool
    count: int
    """Records of a collection, bytes of an attachment."""
    size: int
    """Bytes, unpacked."""
    crc: int
    """CRC-32 of everything of this name up to here."""
    packed: bytes = field(repr=False)

    def data(self) -> bytes:
        """What it holds, unpacked. Raises ``VaultError``."""
        # Bounded: a small file must not be able to blow up in memory.
        plain: bytes = isal_zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.packed, max(self.size, 1))
        if len(plain) != self.size:
            raise VaultError("a piece of the sealed file does not hold what it says")
        return plain

    def records(self) -> Iterator[Mapping[str, Any]]:
        """The records of a piece of a collection."""
        for line in self.data().splitlines():
            yield json.loads(line)


def deflate(plain: bytes | bytearray) -> bytes:
    """Packed as a piece wants it."""
    if len(plain) < _SHORT:
        return struct.pack("<BHH", 0, len(plain), len(plain) ^ 0xFFFF) + plain
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -zlib.MAX_WBITS)
    packed: bytes = compressor.compress(plain) + compressor.flush(isal_zlib.Z_FULL_FLUSH)
    return packed


def head(kind: Kind, name: int, count: int = 0, size: int = 0, crc: int = 0, packed: int = 0) -> bytes:
    """What stands before a piece."""
    return _HEAD.pack(kind, name, count, size, crc, packed)


def read_pieces(stored: Stored, key: RequestKey, aad: str, directory: Path) -> Iterator[Piece]:
    """Everything in an artifact, one piece at a time.

    Raises ``VaultError`` (shredded, tampered with, cut off) and ``NotFound`` (the file is gone), if need be midway.
    """
    with closing(io.BufferedReader(UnsealingReader(open_stored(stored, directory), key, aad), CHUNK)) as source:
        names: list[str] = []
        while True:
            kind, number, count, size, crc, packed = _HEAD.unpack(_exactly(source, _HEAD.size))
            data = _exactly(source, packed)
            if kind == Kind.NAME:
                names.append(data.decode())
                if number == Kind.FILE:
                    yield Piece(names[-1], is_file=True, count=0, size=0, crc=0, packed=b"")
            elif kind == Kind.END:
                if source.read(1):  # reading on makes sure that the last chunk holds too
                    raise VaultError("the sealed file goes on after its end")
                return
            else:
                yield Piece(names[number], kind == Kind.FILE, count, size, crc, data)


def _exactly(source: io.BufferedReader[Any], size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise VaultError("the sealed file ends before its contents do")
    return data
