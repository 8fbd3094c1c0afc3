"""The passes over all files: one that reads, and one that rewrites."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, Final

from connectors.contract import ConnectorError, Retryable
from connectors.logs.batch import Batch, Tally
from connectors.logs.files import LogFile, Moved, open_log
from connectors.logs.formats import Span
from connectors.logs.journal import Journal
from connectors.logs.rewrite import Busy, replace

__all__ = ["Visit", "each_file", "erase", "find"]

LISTINGS: Final = 5
"""How often the files are listed, in case the rotation renames them under us."""
REWRITES: Final = 2
"""How often a file is rewritten that is written to meanwhile, before it is taken for a live one."""

Visit = Callable[[LogFile, int, dict[int, list[Span]], list[Span]], None]
"""Told of each line that is somebody's: file, line number (from 1), task → fields in its scope, all fields."""


def each_file(batch: Batch, work: Callable[[LogFile], Tally]) -> Tally:
    """Do some work on every file that may hold a line of the batch, each once, several at a time.

    Every file is dealt with before the first error is raised, so that one bad file does not protect the others.
    """
    total, errors, lock = Tally(), list[ConnectorError](), threading.Lock()

    def one(file: LogFile) -> None:
        tally = Tally(inodes={file.inode})
        try:
            tally.add(work(file))
        except Moved:
            return
        except ConnectorError as error:
            errors.append(error)
        with lock:
            total.add(tally)

    with ThreadPoolExecutor(batch.config.threads, thread_name_prefix="logs") as pool:
        for _ in range(LISTINGS):
            left = [file for file in batch.files() if file.inode not in total.inodes]
            if not left:
                break
            for _result in pool.map(one, left):
                pass
        else:
            errors.append(Retryable("the log files were renamed again and again while they were searched"))
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Retryable))
    return total


def find(batch: Batch, visit: Visit | None = None) -> Tally:
    """Count each task's lines with fields in its scope; changes nothing."""
    return each_file(batch, partial(_find_in, batch, visit))


def _find_in(batch: Batch, visit: Visit | None, file: LogFile) -> Tally:
    tally, name = Tally(files=1), batch.source(file).name
    with open_log(file) as stream:
        number = 1
        for chunk, hits in batch.lines(file, stream, tally):
            at = 0
            for hit in hits:
                holding = batch.holding(file, hit)
                tally.lines.update((task, name) for task in holding)
                if visit is not None and holding:
                    number += chunk.data.count(b"\n", at, hit.start)
                    at = hit.start
                    visit(file, number, holding, list(hit.spans))
            if visit is not None:
                number += chunk.data.count(b"\n", at)
    return tally


def erase(batch: Batch, journal: Journal) -> Tally:
    """Rewrite every file with lines that a task is about, without them. Only for the holder of the root's lock."""
    return each_file(batch, partial(_erase_in, batch, journal))


def _erase_in(batch: Batch, journal: Journal, file: LogFile) -> Tally:
    with open_log(file) as stream:
        for _ in range(1 if file.live else REWRITES):
            before = os.fstat(stream.fileno())
            tally = Tally(files=1)
            edited = _edited(batch, file, stream, tally)
            if file.live or not any(changed for changed, _ in edited):
                for _piece in edited:
                    pass
                break
            tally = Tally(files=1, rewritten=1)
            try:
                _rewrite(batch, journal, file, stream, before, tally)
            except Busy:
                continue
            return tally
    return Tally(live=tally.lines, files=1, unparsed=tally.unparsed)


def _rewrite(
    batch: Batch, journal: Journal, file: LogFile, stream: BinaryIO, before: os.stat_result, tally: Tally
) -> None:
    """Replace one file; fills the tally, the new file's inode included."""

    def announce(inode: tuple[int, int]) -> None:
        tally.inodes.add(inode)
        journal.announce(inode, _by_task(batch, tally.lines))

    try:
        replace(file, stream, before, (data for _, data in _edited(batch, file, stream, tally)), announce)
    finally:
        for inode in tally.inodes:
            if _is_there(file, inode):
                journal.confirm(inode, _by_task(batch, tally.lines))
            else:
                journal.withdraw(inode)


def _is_there(file: LogFile, inode: tuple[int, int]) -> bool:
    try:
        there = file.path.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == inode


def _by_task(batch: Batch, lines: Counter[tuple[int, str]]) -> dict[str, dict[str, int]]:
    tasks: dict[str, dict[str, int]] = {}
    for (task, source), count in lines.items():
        tasks.setdefault(batch.tasks[task].key, {})[source] = count
    return tasks


def _edited(batch: Batch, file: LogFile, stream: BinaryIO, tally: Tally) -> Iterator[tuple[bool, bytes]]:
    """The file as erasure leaves it, chunk by chunk, and whether the chunk was changed; fills the tally."""
    name = batch.source(file).name
    for chunk, hits in batch.lines(file, stream, tally):
        data, parts, at = chunk.data, list[bytes](), 0
        for hit in hits:
            edit = batch.edit(file, data[hit.start : hit.end], hit)
            if edit is None:
                continue
            tally.lines.update((task, name) for task in edit.tasks)
            parts.append(data[at : hit.start])
            if edit.replacement is not None:
                parts.append(edit.replacement)
                at = hit.end
            else:
                at = data.find(b"\n", hit.end) + 1 or len(data)
        parts.append(data[at:])
        yield len(parts) > 1, b"".join(parts)
