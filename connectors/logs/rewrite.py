"""Replacing a log file by its new version, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

from connectors.contract import Fatal
from connectors.logs.codecs import BLOCK, Bytes, encoder
from connectors.logs.files import OWN_PREFIX, LogFile, Moved, from_os_error

__all__ = ["Busy", "clean", "replace"]

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


def replace(
    file: LogFile,
    old: FileIO,
    before: os.stat_result,
    pieces: Iterable[Bytes],
    announce: Callable[[tuple[int, int]], None],
) -> None:
    """Write ``pieces``, compressed as the file is, in its place, with its owner, permissions, attributes and times.

    ``old`` is the file, open, and ``before`` its status when it was opened. ``announce`` is told the new file's
    device and inode when it is complete, right before it takes its place.

    Raises ``Busy`` or ``Moved``, with the file untouched, when it was written to or renamed meanwhile; ``Fatal`` when
    its owner cannot be kept or it has a second name; otherwise what the operating system says, as a connector error.
    """
    if before.st_nlink > 1:
        raise Fatal(f"log file {file.name!r} has a second name (hard link) that would keep the old lines: remove one")
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=file.path.parent)
        try:
            with os.fdopen(descriptor, "wb", buffering=BLOCK) as new:
                _write(new, pieces, file.kind)
                _dress(new.fileno(), old.fileno(), before)
                os.fsync(new.fileno())
                made = os.fstat(new.fileno())
                with _no_writers(old.fileno()):
                    _unchanged(file, old, before)
                    announce((made.st_dev, made.st_ino))
                    os.replace(temporary, file.path)  # noqa: PTH105 - the tests stop here, and only here
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
        _sync_directory(file.path.parent)
    except OSError as error:
        raise from_os_error(error, file.name) from error


def _write(new: BinaryIO, pieces: Iterable[Bytes], kind: str) -> None:
    compress = encoder(kind)
    for piece in pieces:
        _write_all(new, compress.compress(piece))
    _write_all(new, compress.flush())
    new.flush()


def _write_all(new: BinaryIO, data: Bytes) -> None:
    if data:  # a compressor gathers first
        new.write(data)


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
