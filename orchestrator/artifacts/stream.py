"""A sealed stream: AES-256-GCM in chunks, so that a file of any size is written and read in constant memory.

The STREAM construction: every chunk has its own nonce, made of its number and a flag on the last one. Dropping,
repeating, reordering or cutting off chunks, or joining two streams, is found out on reading. A chunk is handed on only
after its tag held.

Format: ``0x53 0x01 | salt (16) | chunks``; each chunk is up to 64 KiB of data and a 16-byte tag; only the last may be
shorter. The key is derived from the request's key and the salt, so nonces never meet.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.errors import VaultError
from orchestrator.privacy.vault import RequestKey

__all__ = ["CHUNK", "SealingWriter", "UnsealingReader", "chunks"]

CHUNK = 64 * 1024
"""Bytes of data in every chunk but the last."""
_MAGIC = b"\x53\x01"
_SALT_BYTES = 16
_TAG_BYTES = 16
_HEAD_BYTES = len(_MAGIC) + _SALT_BYTES


class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


class SealingWriter(io.RawIOBase):
    """Seals what is written to it and passes it on. ``finish`` must be called; without it the stream is cut off."""

    def __init__(self, sink: _Writable, key: RequestKey, aad: str) -> None:
        """``aad`` names what this is (e.g. ``<request>/<step>``); reading needs the same."""
        super().__init__()
        salt = os.urandom(_SALT_BYTES)
        self._sink = sink
        self._aead = AESGCM(key.subkey("stream", salt))
        self._aad = _MAGIC + aad.encode()
        self._pending = bytearray()
        self._number = 0
        self._finished = False
        sink.write(_MAGIC + salt)

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override] # buffers are meant
        """Take all of ``data``."""
        if self._finished:
            raise ValueError("the sealed stream is finished")
        rest = memoryview(data)
        if self._pending:
            missing = CHUNK - len(self._pending)
            self._pending += rest[:missing]
            rest = rest[missing:]
            if rest:
                self._emit(self._pending, last=False)
                self._pending.clear()
        while len(rest) > CHUNK:  # one chunk's worth is kept back: it may be the last
            self._emit(rest[:CHUNK], last=False)
            rest = rest[CHUNK:]
        self._pending += rest
        return len(data)

    def finish(self) -> None:
        """Write the last chunk. The sink stays open."""
        if not self._finished:
            self._emit(self._pending, last=True)
            self._pending.clear()
            self._finished = True

    def _emit(self, plain: bytearray | memoryview, *, last: bool) -> None:
        self._sink.write(self._aead.encrypt(_nonce(self._number, last=last), plain, self._aad))
        self._number += 1


class UnsealingReader(io.RawIOBase):
    """Reads a sealed stream. Raises ``VaultError`` as soon as a chunk does not hold, and at an end that is none."""

    def __init__(self, source: BinaryIO, key: RequestKey, aad: str) -> None:
        """``source`` is closed together with this."""
        super().__init__()
        head = _exactly(source.read, _HEAD_BYTES)
        if len(head) != _HEAD_BYTES or head[: len(_MAGIC)] != _MAGIC:
            raise VaultError("the sealed file has a format this version does not know, or is cut off")
        self._source = source
        self._aead = AESGCM(key.subkey("stream", head[len(_MAGIC) :]))
        self._aad = _MAGIC + aad.encode()
        self._number = 0
        self._plain = memoryview(b"")
        self._ahead = _exactly(source.read, CHUNK + _TAG_BYTES)
        self._ended = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # buffers are meant
        """Fill the buffer with what has been checked; 0 at the end."""
        while not self._plain and not self._ended:
            self._plain = memoryview(self._next())
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def close(self) -> None:
        """Close the source too."""
        if not self.closed:
            self._source.close()
        super().close()

    def _next(self) -> bytes:
        sealed = self._ahead
        self._ahead = _exactly(self._source.read, CHUNK + _TAG_BYTES) if len(sealed) == CHUNK + _TAG_BYTES else b""
        self._ended = not self._ahead
        try:
            plain = self._aead.decrypt(_nonce(self._number, last=self._ended), sealed, self._aad)
        except (InvalidTag, ValueError):
            raise VaultError(
                "the sealed file was tampered with, is cut off, or belongs to another key or place"
            ) from None
        self._number += 1
        return plain


def chunks(source: io.RawIOBase | BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """The rest of a stream in pieces of at most ``size`` bytes."""
    while data := source.read(size):
        yield data


def _exactly(read: Callable[[int], bytes | None], size: int) -> bytes:
    """``size`` bytes, or all there are: a raw file may give fewer at a time."""
    parts = bytearray()
    while len(parts) < size and (data := read(size - len(parts))):
        parts += data
    return bytes(parts)
