"""The passes over all files: one that reads, and one that rewrites."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO, FileIO
from typing import Final

from connectors.contract import ConnectorError, Retryable
from connectors.logs.batch import Batch, Tally
from connectors.logs.codecs import Bytes
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
        number = 1  # of the line at which the chunk starts, or the last hit
        for chunk, hits in batch.lines(file, stream, tally):
            at = 0
            for hit in hits:
                holding = batch.holding(file, hit)
                for task in holding:
                    tally.lines[task, name] += 1
                if visit is not None and holding:
                    number += chunk.buffer.count(b"\n", at, hit.start)
                    at = hit.start
                    visit(file, number, holding, list(hit.spans))
            if visit is not None:
                number += chunk.buffer.count(b"\n", at, chunk.end)
    return tally


def erase(batch: Batch, journal: Journal) -> Tally:
    """Rewrite every file with lines that a task is about, without them. Only for the holder of the root's lock."""
    return each_file(batch, partial(_erase_in, batch, journal))


def _erase_in(batch: Batch, journal: Journal, file: LogFile) -> Tally:
    with open_log(file) as stream:
        for _ in range(1 if file.live else REWRITES):
            before = os.fstat(stream.fileno())
            tally, start, unparsed = Tally(files=1), 0, 0
            for changed, _, size in _edited(batch, file, stream, tally):
                if changed and not file.live:
                    break
                start, unparsed = start + size, tally.unparsed
            else:
                break
            tally = Tally(files=1, rewritten=1, unparsed=unparsed)
            try:
                _rewrite(batch, journal, file, stream, before, tally, start)
            except Busy:
                continue
            return tally
    return Tally(live=tally.lines, files=1, unparsed=tally.unparsed)


def _rewrite(
    batch: Batch, journal: Journal, file: LogFile, stream: FileIO, before: os.stat_result, tally: Tally, start: int
) -> None:
    """Replace one file, up to the byte ``start`` by its like; fills the tally, the new file's inode included."""

    def announce(inode: tuple[int, int]) -> None:
        tally.inodes.add(inode)
        journal.announce(inode, _by_task(batch, tally.lines))

    try:
        edited = _edited(batch, file, stream, tally, start)
        replace(file, stream, before, (data for _, data, _ in edited), announce)
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


def _edited(
    batch: Batch, file: LogFile, stream: FileIO, tally: Tally, start: int = 0
) -> Iterator[tuple[bool, memoryview, int]]:
    """The file as erasure leaves it, chunk by chunk: whether it was changed, the chunk, and its size before.

    A chunk is there until the next is asked for. Lines up to the byte ``start`` are known to stay. Fills the tally.
    """
    name, changed = batch.source(file).name, BytesIO()
    for chunk, hits in batch.lines(file, stream, tally, start=start):
        data, parts, at = memoryview(chunk.buffer)[: chunk.end], list[Bytes](), 0
        for hit in hits:
            edit = batch.edit(file, hit)
            if edit is None:
                continue
            for task in edit.tasks:
                tally.lines[task, name] += 1
            parts.append(data[at : hit.start])
            if edit.replacement is not None:
                parts.append(edit.replacement)
                at = hit.end
            else:
                at = chunk.buffer.find(b"\n", hit.end, chunk.end) + 1 or chunk.end
        if parts:
            # In one piece again, in memory that is used again: compressors are slow with little at a time.
            changed.seek(0)
            changed.writelines([*parts, data[at:]])
            data = changed.getbuffer()[: changed.tell()]
        yield bool(parts), data, chunk.end
        data.release()
