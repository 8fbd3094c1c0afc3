"""Which files belong to which source; nothing outside the root."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from errno import ELOOP
from fnmatch import fnmatch
from functools import partial
from io import FileIO
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from connectors.contract import ConnectorError, Fatal, Retryable
from connectors.logs.codecs import kind_of
from connectors.logs.config import SourceConfig

__all__ = ["OWN_PREFIX", "Listing", "LogFile", "Moved", "from_os_error", "log_files", "open_log"]

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


class Listing(NamedTuple):
    """What there is of every source."""

    files: list[LogFile]
    """Each once (the first source that matches has it), largest first."""
    errors: list[ConnectorError]
    """What could not be looked at. Whoever claims to have seen everything must raise one of them."""


def log_files(root: Path, sources: Sequence[SourceConfig]) -> Listing:
    """Every file of every source. Raises ``Fatal`` for a missing root, and what the system says of an unreadable one.

    Symbolic links that leave the root, and directories that cannot be listed, are errors beside the other files.
    """
    try:
        root = root.resolve(strict=True)
        _list(root)
    except FileNotFoundError:
        raise Fatal("the root directory of the logs does not exist: correct 'root', or create it") from None
    except OSError as error:
        raise from_os_error(error, "(listing)") from error
    found, errors = dict[tuple[int, int], LogFile](), dict[str, ConnectorError]()
    for index, source in enumerate(sources):
        for pattern in source.files:
            for path in _directories(root, pattern):
                _noting(errors, root, path, _list)
            for path in root.glob(pattern):
                if not path.name.startswith(OWN_PREFIX):
                    file = _noting(errors, root, path, partial(_inspect, root, index, source))
                    if file is not None:
                        found.setdefault(file.inode, file)
    return Listing(sorted(found.values(), key=lambda file: (-file.size, file.name)), list(errors.values()))


def open_log(file: LogFile) -> FileIO:
    """Open a listed file for reading; raises ``Moved`` when another file has taken its name, or none."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Moved from None
    now = os.fstat(descriptor)
    if (now.st_dev, now.st_ino) != file.inode or not stat.S_ISREG(now.st_mode):  # numbers are given again
        os.close(descriptor)
        raise Moved
    return FileIO(descriptor)


def _noting(
    errors: dict[str, ConnectorError], root: Path, path: Path, look: Callable[[Path], LogFile | None]
) -> LogFile | None:
    """Look at one path; what keeps us from it is noted, once."""
    name = str(path.relative_to(root))
    try:
        return look(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != ELOOP:  # links that lead to each other, and to no file
            errors.setdefault(name, from_os_error(error, name))
    except ConnectorError as error:
        errors.setdefault(name, error)
    return None


def _directories(root: Path, pattern: str) -> Iterator[Path]:
    """The directories in which a pattern looks: ``glob`` passes over those that it may not list, and says nothing."""
    parts = PurePath(pattern).parts
    for depth in range(1, len(parts)):
        yield from (path for path in root.glob("/".join(parts[:depth])) if path.is_dir())


def _list(directory: Path) -> None:
    os.scandir(directory).close()
    os.stat(f"{directory}/.")  # noqa: PTH116 - a Path has no such end, which tells whether what is in there can be met


def _inspect(root: Path, index: int, source: SourceConfig, path: Path) -> LogFile | None:
    name = str(path.relative_to(root))
    status = path.stat()
    real = path.resolve()
    if not real.is_relative_to(root):
        raise Fatal(f"log file {name!r} is reached by a symbolic link that leaves the root: remove it from 'files'")
    if not stat.S_ISREG(status.st_mode):
        return None
    live = any(fnmatch(name, pattern) for pattern in source.live)
    return LogFile(index, real, name, live, (status.st_dev, status.st_ino), status.st_size)


_FULL: Final = frozenset({28, 122})  # ENOSPC, EDQUOT
