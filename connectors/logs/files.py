"""Which files belong to which source; nothing outside the root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from io import FileIO
from pathlib import Path
from typing import Final

from connectors.contract import ConnectorError, Fatal, Retryable
from connectors.logs.codecs import kind_of
from connectors.logs.config import SourceConfig

__all__ = ["OWN_PREFIX", "LogFile", "Moved", "from_os_error", "log_files", "open_log"]

OWN_PREFIX: Final = ".habeas"
"""How the names of the connector's own files below the root start; patterns never match them."""

COMPRESSED: Final = 8
"""How many times as large logs are before compression, more or less."""


class Moved(Exception):
    """The file went away or changed its name since it was listed: the rotation is at work."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """One regular file of one source."""

    source: int
    """Index of the source."""
    path: Path
    """Absolute, without symbolic links."""
    name: str
    """Relative to the root, for people."""
    live: bool
    inode: tuple[int, int]
    size: int

    @property
    def kind(self) -> str:
        """Its compression; raises ``Fatal`` for one that cannot be read."""
        return kind_of(self.name)

    @property
    def weight(self) -> int:
        """About how many bytes there are to look at: what the file holds before compression."""
        return self.size * (COMPRESSED if self.name.endswith((".gz", ".zst")) else 1)


def from_os_error(error: OSError, name: str) -> ConnectorError:
    """What an operator is told when the operating system refuses something about a log file."""
    if error.errno in _FULL:
        return Retryable(f"no space is left to rewrite log file {name!r}: make room on its disk")
    if isinstance(error, PermissionError):
        return Fatal(f"log file {name!r} cannot be read or rewritten: give this worker's user the permission")
    return Retryable(f"log file {name!r} cannot be read or rewritten ({os.strerror(error.errno or 0)}): check its disk")


def log_files(root: Path, sources: Sequence[SourceConfig]) -> Iterator[LogFile]:
    """Every file of every source, each once (the first source that matches has it), largest first.

    Raises ``Fatal`` for a missing root and for a symbolic link that leaves it.
    """
    try:
        root = root.resolve(strict=True)
        found: dict[tuple[int, int], LogFile] = {}
        for index, source in enumerate(sources):
            for path in _matches(root, source):
                file = _inspect(root, path, index, source)
                if file is not None:
                    found.setdefault(file.inode, file)
    except FileNotFoundError:
        raise Fatal("the root directory of the logs does not exist: correct 'root', or create it") from None
    except OSError as error:
        raise from_os_error(error, "(listing)") from error
    return iter(sorted(found.values(), key=lambda file: (-file.size, file.name)))


def open_log(file: LogFile) -> FileIO:
    """Open a listed file for reading; raises ``Moved`` when another file has taken its name, or none."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Moved from None
    now = os.fstat(descriptor)
    if (now.st_dev, now.st_ino) != file.inode:
        os.close(descriptor)
        raise Moved
    return FileIO(descriptor)


def _matches(root: Path, source: SourceConfig) -> Iterator[Path]:
    for pattern in source.files:
        for path in root.glob(pattern):
            if not path.name.startswith(OWN_PREFIX):
                yield path


def _inspect(root: Path, path: Path, index: int, source: SourceConfig) -> LogFile | None:
    name = str(path.relative_to(root))
    real = path.resolve()
    if not real.is_relative_to(root):
        raise Fatal(f"log file {name!r} is reached by a symbolic link that leaves the root: remove it from 'files'")
    try:
        status = real.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    live = any(fnmatch(name, pattern) for pattern in source.live)
    return LogFile(index, real, name, live, (status.st_dev, status.st_ino), status.st_size)


_FULL: Final = frozenset({28, 122})  # ENOSPC, EDQUOT
