"""Replacing a log file by its new version, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Final, cast

from connectors.contract import Fatal
from connectors.logs.files import OWN_PREFIX, LogFile, Moved, from_os_error

__all__ = ["Busy", "Rewrite", "clean"]

TEMPORARY: Final = f"{OWN_PREFIX}-rewrite-"


class Busy(Exception):
    """Somebody wrote to the file, or has it open for writing."""


def clean(root: Path) -> None:
    """Remove what a killed worker left half written. Only for the holder of the root's lock."""
    for directory, _, names in os.walk(root):
        for name in names:
            if name.startswith(TEMPORARY):
                with suppress(FileNotFoundError):
                    (Path(directory) / name).unlink()


class Rewrite:
    """A new version of a log file, under way beside the old one.

    Whoever is given its ``descriptor`` can write to it, and cannot give it the file's name: only ``finish`` does.
    """

    def __init__(self, file: LogFile, old: FileIO, before: os.stat_result) -> None:
        """``old`` is the file, open, and ``before`` its status when it was opened.

        Raises ``Fatal`` when it has a second name; otherwise what the operating system says, as a connector error.
        """
        if before.st_nlink > 1:
            raise Fatal(
                f"log file {file.name!r} has a second name (hard link) that would keep the old lines: remove one"
            )
        self._file, self._old, self._before = file, old, before
        try:
            self.descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=file.path.parent)
        except OSError as error:
            raise from_os_error(error, file.name) from error
        self._temporary: Path | None = Path(temporary)

    def finish(self, announce: Callable[[tuple[int, int]], None]) -> None:
        """Put what was written in the file's place, with its owner, permissions, attributes and times.

        ``announce`` is told the new file's device and inode when it is complete, right before it takes its place.
        Raises ``Busy`` or ``Moved``, with the file untouched, when it was written to or renamed meanwhile; connector
        errors as above, also when its owner cannot be kept.
        """
        file, old, new = self._file, self._old.fileno(), self.descriptor
        try:
            _dress(new, old, self._before)
            os.fsync(new)
            made = os.fstat(new)
            with _no_writers(old):
                _unchanged(file, self._old, self._before)
                announce((made.st_dev, made.st_ino))
                os.replace(cast("Path", self._temporary), file.path)  # noqa: PTH105 - the tests stop here, and only here
                self._temporary = None
            _sync_directory(file.path.parent)
        except OSError as error:
            raise from_os_error(error, file.name) from error

    def close(self) -> None:
        """Let go of it; what is not finished goes."""
        os.close(self.descriptor)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


def _dress(new: int, old: int, status: os.stat_result) -> None:
    """Owner before permissions, because changing it clears the set-user-id bits; times last."""
    made = os.fstat(new)
    if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, status.st_mode & 0o7777)
    with suppress(OSError):  # file systems without extended attributes
        for name in os.listxattr(old):
            with suppress(OSError):  # attributes that only the system sets
                os.setxattr(new, name, os.getxattr(old, name))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))


def _unchanged(file: LogFile, old: FileIO, before: os.stat_result) -> None:
    now = os.fstat(old.fileno())
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Busy
    try:
        there = file.path.lstat()
    except FileNotFoundError:
        raise Moved from None
    if (there.st_dev, there.st_ino) != (now.st_dev, now.st_ino):
        raise Moved


@contextmanager
def _no_writers(descriptor: int) -> Iterator[None]:
    """Make sure, where the system can tell, that nobody has the file open for writing, nor opens it meanwhile.

    A lease for reading is refused while there is a writer; while it is held, whoever opens the file for writing waits.
    File systems without leases, and files of other owners, are left with the comparison of size and time.
    """
    leased = False
    try:
        # The signal that tells of a waiting writer would end the process by default; this one does nothing.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        leased = True
    except BlockingIOError:
        raise Busy from None
    except (OSError, AttributeError):  # no leases here
        leased = False
    try:
        yield
    finally:
        if leased:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
