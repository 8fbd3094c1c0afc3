"""Compression by file name: ``.gz`` (any number of members), ``.zst`` (any number of frames), or none."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from gzip import BadGzipFile
from typing import BinaryIO, Final, Protocol, cast

import zstandard
from isal import igzip, igzip_lib, isal_zlib

from connectors.contract import Fatal

__all__ = ["BLOCK", "Encoder", "blocks", "encoder", "kind_of"]

BLOCK: Final = 1 << 18
"""Bytes read at a time: what the processor's cache holds, which is three times as fast as a megabyte."""
GZIP_LEVEL: Final = 2
"""igzip's own default: about the size of gzip -4 at several times its speed."""
ZSTD_LEVEL: Final = 3
ZSTD_STEP: Final = (512, 16_384)
"""Compressed bytes handed over at a time, least and most: it bounds what a tiny file can blow up to in memory."""
ISAL_ERROR: Final = cast("type[Exception]", igzip_lib.IsalError)  # its stub says an instance
UNREADABLE: Final = (".bz2", ".xz", ".lzma", ".lz4", ".br", ".zip", ".7z", ".Z", ".sz", ".snappy")
MAGIC: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


class Encoder(Protocol):
    """Compresses a stream."""

    def compress(self, data: bytes, /) -> bytes:
        """The next compressed bytes, if any are ready."""

    def flush(self) -> bytes:
        """The last compressed bytes."""


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def kind_of(name: str) -> str:
    """``gzip``, ``zstd`` or ``plain``, by a file's name; raises ``Fatal`` for a compression that we cannot read."""
    if name.endswith(".gz"):
        return "gzip"
    if name.endswith(".zst"):
        return "zstd"
    if name.endswith(UNREADABLE):
        raise Fatal(f"log file {name!r} is compressed in a way that cannot be read: use .gz or .zst, or leave it out")
    return "plain"


def encoder(kind: str) -> Encoder:
    """A compressor that writes what ``blocks`` reads."""
    if kind == "gzip":
        compressor: Encoder = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, 31)
        return compressor
    if kind == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    return _Plain()


def blocks(file: BinaryIO, kind: str, name: str) -> Iterator[bytes]:
    """A file's bytes, decompressed, some at a time; raises ``Fatal`` naming the file where it is damaged."""
    try:
        if kind == "gzip":
            with igzip.open(file, "rb") as stream:  # type: ignore[no-untyped-call]
                yield from iter(lambda: stream.read(BLOCK), b"")
        elif kind == "zstd":
            yield from _zstd(file)
        else:
            yield from _plain(file)
    except (BadGzipFile, EOFError, zlib.error, ISAL_ERROR, zstandard.ZstdError) as error:
        raise Fatal(f"log file {name!r} is damaged or not what its name says: restore it or move it away") from error


def _plain(file: BinaryIO) -> Iterator[bytes]:
    block = file.read(BLOCK)
    if block.startswith(tuple(MAGIC.values())):
        raise BadGzipFile("compressed, and not named so")
    while block:
        yield block
        block = file.read(BLOCK)


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """Frame by frame; unlike ``stream_reader`` this notices a frame that breaks off."""
    least, step = ZSTD_STEP
    frame = None
    while data := file.read(step):
        size = 0
        while data:
            if frame is None:
                frame = zstandard.ZstdDecompressor().decompressobj()
            block = frame.decompress(data)
            size += len(block)
            if block:
                yield block
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
        step = max(least, step // 4) if size > BLOCK else min(ZSTD_STEP[1], step * 2)
    if frame is not None:
        raise EOFError
