"""The passes over all files: one that reads, and one that rewrites."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import FileIO
from typing import Final

from connectors.contract import ConnectorError, Retryable
from connectors.logs.batch import Batch, Tally
from connectors.logs.children import Child, lent, wait
from connectors.logs.files import LogFile, Moved, from_os_error, open_log
from connectors.logs.formats import Span
from connectors.logs.journal import Journal
from connectors.logs.rewrite import Busy, Rewrite
from connectors.logs.work import Line, Order, erase_in, find_in

__all__ = ["Visit", "erase", "find"]

LISTINGS: Final = 5
"""How often the files are listed, in case the rotation renames them under us."""
REWRITES: Final = 2
"""How often a file is rewritten that is written to meanwhile, before it is taken for a live one."""
WORTH: Final = 128 << 20
"""Bytes, before compression, from which on it is worth it to have processes at work: a tenth of a second or more."""

Visit = Callable[[LogFile, int, Mapping[int, list[Span]], Sequence[Span]], None]
"""Told of each line that is somebody's: file, line number (from 1), task → fields in its scope, all fields."""


def find(batch: Batch, visit: Visit | None = None) -> Tally:
    """Count each task's lines with fields in its scope; changes nothing."""
    return _Pass(batch, visit=visit).run()


def erase(batch: Batch, journal: Journal) -> Tally:
    """Rewrite every file with lines that a task is about, without them. Only for the holder of the root's lock."""
    return _Pass(batch, journal=journal).run()


@dataclass(slots=True)
class _Job:
    """One file that is being dealt with."""

    file: LogFile
    stream: FileIO
    before: os.stat_result
    rewrite: Rewrite | None = None

    def begin(self) -> int:
        """Begin to rewrite the file; returns where to."""
        self.rewrite = Rewrite(self.file, self.stream, self.before)
        return self.rewrite.descriptor

    def close(self) -> None:
        """Let go of the file; a rewrite that is not finished goes."""
        if self.rewrite is not None:
            self.rewrite.close()
        self.stream.close()


class _Pass:
    """Some work on every file that may hold a line of the batch, each once, several at a time if there is much to do.

    Every file is dealt with before the first error is raised, so that one bad file does not protect the others.
    """

    def __init__(self, batch: Batch, *, visit: Visit | None = None, journal: Journal | None = None) -> None:
        self._batch, self._visit, self._journal = batch, visit, journal
        self._total, self._errors = Tally(), list[ConnectorError]()
        self._busy = Counter[tuple[int, int]]()

    def run(self) -> Tally:
        """Do it."""
        for _ in range(LISTINGS):
            files, unseen = self._batch.files()
            left = [file for file in files if file.inode not in self._total.inodes]
            if not left:
                break
            with lent(_hands(left, self._batch.config.processes), self._batch) as children:
                self._beside(left, children) if children else self._here(left)
        else:
            self._errors.append(Retryable("the log files were renamed again and again while they were searched"))
        if errors := [*self._errors, *unseen]:
            raise min(errors, key=lambda error: isinstance(error, Retryable))
        return self._total

    def _open(self, file: LogFile) -> _Job | None:
        try:
            stream = open_log(file)
        except Moved:
            return None
        except OSError as error:
            self._errors.append(from_os_error(error, file.name))
            self._total.inodes.add(file.inode)
            return None
        return _Job(file, stream, os.fstat(stream.fileno()))

    def _here(self, files: Sequence[LogFile]) -> None:
        """Do the work in this process."""
        for file in files:
            job = self._open(file)
            if job is not None:
                self._settle(job, partial(self._finish, job, partial(self._work, job)))

    def _work(self, job: _Job) -> Tally:
        if self._journal is not None:
            return erase_in(self._batch, job.file, job.stream, job.begin)
        return find_in(self._batch, job.file, job.stream, self._visit and partial(self._tell, job.file))

    def _tell(self, file: LogFile, line: Line) -> None:
        if self._visit is not None:
            self._visit(file, *line)

    def _beside(self, files: Sequence[LogFile], children: Sequence[Child]) -> None:
        """Have processes do the work. What needs the root's lock is done here: that a rewrite takes its file's place.

        It waits for the disk, so it has threads; a process that is done is given the next file first.
        """
        waiting, jobs, finishing = deque(files), dict[Child, _Job](), list[tuple[_Job, Future[Tally]]]()
        with ThreadPoolExecutor(len(children), thread_name_prefix="logs") as threads:
            try:
                while self._give(waiting, jobs, children):
                    for child in wait(list(jobs)):
                        answer = self._hear(child, jobs[child])
                        if answer is not None:
                            job = jobs.pop(child)
                            finishing.append((job, threads.submit(self._finish, job, partial(_tally, answer))))
            finally:
                for job in jobs.values():
                    job.close()
        for job, future in finishing:
            self._settle(job, future.result)

    def _give(self, waiting: deque[LogFile], jobs: dict[Child, _Job], children: Sequence[Child]) -> bool:
        """Give every process something to do; whether any has."""
        for child in children:
            while waiting and child not in jobs:
                job = self._open(waiting.popleft())
                if job is not None:
                    jobs[child] = job
                    order = Order(job.file, erasing=self._journal is not None, telling=self._visit is not None)
                    child.give(order, job.stream.fileno())
        return bool(jobs)

    def _hear(self, child: Child, job: _Job) -> Tally | Exception | None:
        """What became of a file; ``None`` while it is being dealt with."""
        said = child.hear()
        if isinstance(said, (Tally, Exception)):
            return said
        if said is None:
            try:
                child.grant(job.begin())
            except ConnectorError as error:
                child.grant(None)
                return error
        else:
            for line in said:
                self._tell(job.file, line)
        return None

    def _finish(self, job: _Job, work: Callable[[], Tally]) -> Tally:
        """Have the file's new version, if there is one, take its place."""
        with closing(job):
            tally = work()
            if job.rewrite is None or self._journal is None:
                return tally
            try:
                _replace(job.rewrite, job.file, tally, self._by_task(tally.lines), self._journal)
            except Busy:
                self._busy[job.file.inode] += 1
                if self._busy[job.file.inode] < REWRITES:
                    raise
                return Tally(live=tally.lines, files=1, unparsed=tally.unparsed)
            return tally

    def _settle(self, job: _Job, outcome: Callable[[], Tally]) -> None:
        """Count what was done with a file, unless it is to be listed again."""
        tally = Tally(inodes={job.file.inode})
        try:
            tally.add(outcome())
        except (Moved, Busy):
            return
        except ConnectorError as error:
            self._errors.append(error)
        self._total.add(tally)

    def _by_task(self, lines: Counter[tuple[int, str]]) -> dict[str, dict[str, int]]:
        tasks: dict[str, dict[str, int]] = {}
        for (task, source), count in lines.items():
            tasks.setdefault(self._batch.tasks[task].key, {})[source] = count
        return tasks


def _hands(files: Sequence[LogFile], most: int) -> int:
    """How many processes to have these files dealt with; 0: this one does it."""
    much = sum(file.weight for file in files) >= WORTH
    return min(len(files), most) if much and len(files) > 1 and most > 1 else 0


def _tally(answer: Tally | Exception) -> Tally:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _replace(
    rewrite: Rewrite, file: LogFile, tally: Tally, tasks: Mapping[str, Mapping[str, int]], journal: Journal
) -> None:
    """Replace one file, and keep the journal; the new file's inode is added to the tally."""

    def announce(inode: tuple[int, int]) -> None:
        tally.inodes.add(inode)
        journal.announce(inode, tasks)

    try:
        rewrite.finish(announce)
    finally:
        for inode in tally.inodes:
            if _is_there(file, inode):
                journal.confirm(inode, tasks)
            else:
                journal.withdraw(inode)


def _is_there(file: LogFile, inode: tuple[int, int]) -> bool:
    try:
        there = file.path.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == inode
