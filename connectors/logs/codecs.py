"""Compression by file name: ``.gz`` (any number of members), ``.zst`` (any number of frames), or none."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from io import BytesIO, FileIO
from typing import Final, Protocol, cast

import zstandard
from isal import igzip, igzip_lib, isal_zlib

from connectors.contract import Fatal

__all__ = ["BLOCK", "Bytes", "Encoder", "encoder", "kind_of", "reader"]

BLOCK: Final = 1 << 19
"""Bytes read at a time: what the processor's cache holds."""
GZIP_LEVEL: Final = 2
"""igzip's own default: about the size of gzip -4 at several times its speed."""
ZSTD_LEVEL: Final = 3
ZSTD_FRAME: Final = 1 << 21
"""Bytes before compression: the window of level 3."""
ZSTD_STEP: Final = (512, 16_384)
"""Compressed bytes handed over at a time, least and most: it bounds what a tiny file can blow up to in memory."""
ISAL_ERROR: Final = cast("type[Exception]", igzip_lib.IsalError)  # its stub says an instance
UNREADABLE: Final = (".bz2", ".xz", ".lzma", ".lz4", ".br", ".zip", ".7z", ".Z", ".sz", ".snappy")
MAGIC: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


Bytes = bytes | memoryview


class Encoder(Protocol):
    """Compresses a stream."""

    def compress(self, data: Bytes, /) -> Bytes:
        """The next compressed bytes, if any are ready."""

    def flush(self) -> bytes:
        """The last compressed bytes."""


class _Plain:
    def compress(self, data: Bytes, /) -> Bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Zstd:
    """Frames one after the other, each compressed where it lies.

    A stream would copy everything into a window that is used in a circle, and compressing across its seam is slow:
    frames as long as the window are a fifth faster, and no larger.
    """

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
        self._held, self._size, self._any = bytearray(ZSTD_FRAME), 0, False

    def compress(self, data: Bytes, /) -> bytes:
        frame = b""
        if self._size + len(data) > ZSTD_FRAME:
            frame = self._frame()
        if len(data) > ZSTD_FRAME:
            return frame + self._compressor.compress(data)
        self._held[self._size : self._size + len(data)] = data
        self._size += len(data)
        return frame

    def flush(self) -> bytes:
        return self._frame() if self._size or not self._any else b""

    def _frame(self) -> bytes:
        with memoryview(self._held) as held, held[: self._size] as frame:
            packed = self._compressor.compress(frame)
        self._size, self._any = 0, True
        return packed


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
        return _Zstd()
    return _Plain()


def reader(file: FileIO | BytesIO, kind: str, name: str) -> Callable[[memoryview], int]:
    """A file from its start, decompressed: fills a buffer as ``readinto`` does.

    Raises ``Fatal`` naming the file where it is damaged. Plain files are read and not mapped: where a mapped file is
    cut short meanwhile, as rotation by copying does, the process would be killed.
    """
    file.seek(0)
    with _damage(name):
        read = {"gzip": _gzip, "zstd": _zstd}.get(kind, _plain)(file)

    def readinto(buffer: memoryview) -> int:
        with _damage(name):
            return read(buffer)

    return readinto


@contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except (BadGzipFile, EOFError, zlib.error, ISAL_ERROR, zstandard.ZstdError) as error:
        raise Fatal(f"log file {name!r} is damaged or not what its name says: restore it or move it away") from error


def _plain(file: FileIO | BytesIO) -> Callable[[memoryview], int]:
    if file.read(4).startswith(tuple(MAGIC.values())):
        raise BadGzipFile("compressed, and not named so")
    file.seek(0)
    return lambda buffer: file.readinto(buffer) or 0


def _gzip(file: FileIO | BytesIO) -> Callable[[memoryview], int]:
    stream = igzip.open(file, "rb")  # type: ignore[no-untyped-call]
    return cast("Callable[[memoryview], int]", stream.readinto)


def _zstd(file: FileIO | BytesIO) -> Callable[[memoryview], int]:
    frames, block = _frames(file), memoryview(b"")

    def read(buffer: memoryview) -> int:
        nonlocal block
        block = block or memoryview(next(frames, b""))
        size = min(len(block), len(buffer))
        buffer[:size], block = block[:size], block[size:]
        return size

    return read


def _frames(file: FileIO | BytesIO) -> Iterator[bytes]:
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
