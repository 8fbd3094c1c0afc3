"""Where sealed bytes go: memory while they are few, a file of their own when they are more."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import NotFound, StoreFull

__all__ = ["INLINE_LIMIT", "Spool", "Stored", "finished_before", "open_stored", "remove_stored", "sweep_unfinished"]

INLINE_LIMIT = 256 * 1024
"""Sealed bytes kept in memory, to be stored in the database; beyond that they go to a file."""
_PARTIAL = ".part"
_NAME = re.compile(r"[0-9a-f]{32}\.sealed")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where sealed bytes lie: exactly one of ``inline`` and ``file`` is set."""

    size: int
    """Sealed bytes."""
    digest: str
    """SHA-256 hex of the sealed bytes."""
    inline: bytes | None = field(default=None, repr=False)
    file: str | None = None
    """Name inside the artifact directory."""


class Spool:
    """Takes sealed bytes until ``finish``. Not thread-safe."""

    def __init__(self, directory: Path, limit: int = INLINE_LIMIT) -> None:
        """Touches ``directory`` (made with mode 0700 when missing) only when more than ``limit`` bytes come."""
        self._directory = directory
        self._limit = limit
        self._memory: io.BytesIO | None = io.BytesIO()
        self._file: BinaryIO | None = None
        self._name = f"{secrets.token_hex(16)}.sealed"
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        """Take all of ``data``. Raises ``StoreFull``."""
        with _told():
            if self._memory is not None and self._size + len(data) > self._limit:
                self._overflow(self._memory)
            self._digest.update(data)
            self._size += len(data)
            (self._memory or self._open_file()).write(data)
        return len(data)

    def finish(self) -> Stored:
        """What was written, durable: a file is on disk under its final name, and so is the directory's entry.

        Raises ``StoreFull``.
        """
        digest = self._digest.hexdigest()
        if self._memory is not None:
            return Stored(self._size, digest, inline=self._memory.getvalue())
        with _told():
            file = self._open_file()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            (self._directory / (self._name + _PARTIAL)).rename(self._directory / self._name)
            _sync_directory(self._directory)
        return Stored(self._size, digest, file=self._name)

    def discard(self) -> None:
        """Throw away what was written and not finished; harmless after ``finish``."""
        self._memory = None
        if self._file is not None:
            with suppress(OSError):  # what is still buffered has no room on the disk
                self._file.close()
            (self._directory / (self._name + _PARTIAL)).unlink(missing_ok=True)

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the spool was discarded")
        return self._file

    def _overflow(self, memory: io.BytesIO) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / (self._name + _PARTIAL)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._file.write(memory.getvalue())
        self._memory = None


@contextmanager
def _told() -> Iterator[None]:
    """The folder's errors in words."""
    try:
        yield
    except OSError as error:
        raise StoreFull(f"the artifacts folder failed: {error.strerror}; make room there") from error


def open_stored(stored: Stored, directory: Path) -> BinaryIO:
    """The sealed bytes. Raises ``NotFound`` when the file is gone or the name is not one of ours."""
    if stored.inline is not None:
        return io.BytesIO(stored.inline)
    if stored.file is None or not _NAME.fullmatch(stored.file):
        raise NotFound("there is no artifact of that name")
    try:
        return (directory / stored.file).open("rb")
    except FileNotFoundError:
        raise NotFound(
            "the artifact's file is gone; it was purged, or the directory is not the one it was written to"
        ) from None


def remove_stored(stored: Stored, directory: Path) -> None:
    """Delete its file, if it has one and it is there."""
    if stored.file is not None and _NAME.fullmatch(stored.file):
        (directory / stored.file).unlink(missing_ok=True)


def finished_before(directory: Path, older_than: float) -> list[str]:
    """Names of finished files last written before ``older_than`` (seconds since 1970), for ``Stored.file``."""
    names = []
    for path in directory.glob("*.sealed"):
        with suppress(FileNotFoundError):
            if _NAME.fullmatch(path.name) and path.stat().st_mtime < older_than:
                names.append(path.name)
    return sorted(names)


def sweep_unfinished(directory: Path, older_than: float) -> int:
    """Delete partial files that killed workers left, last written before ``older_than`` (seconds since 1970)."""
    removed = 0
    for path in directory.glob(f"*{_PARTIAL}"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < older_than:
                path.unlink()
                removed += 1
    return removed


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
