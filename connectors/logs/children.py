"""The processes beside this one, in which files are searched and rewritten: Python runs on one core in each.

They are started where there is much to do, kept for a while in case more comes, and end with this process. Celery's
workers may not have children of ``multiprocessing``, so these are programs of their own (``child``).
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing import connection as connections
from multiprocessing.reduction import send_handle
from typing import Final, cast
from weakref import WeakSet

from connectors.contract import Retryable
from connectors.logs.batch import Batch, Tally
from connectors.logs.work import Line, Order

__all__ = ["IDLE", "Child", "lent", "wait"]

IDLE: Final = 60.0
"""Seconds after which processes without work end."""
MEANT_FOR_THE_WORKER: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Signals that terminals and service managers send to all of its processes; it may mean to finish its batch."""
NOBODY: Final = pickle.dumps(None)
GONE: Final = (EOFError, OSError)
"""What is raised where the process at the other end is no more."""
ENDED: Final = (
    "a process that dealt with log file {!r} ended unexpectedly: see whether the system ran out of memory, and lower "
    "'processes' or the number of workers if it did"
)


class Child:
    """One such process, at work for one batch; another takes its place if it ends."""

    def __init__(self) -> None:
        self._order: Order | None = None
        self._whom = NOBODY
        self._start()

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        # Our own modules, wherever they were found; -P: and none that lie in the current directory by chance.
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)  # noqa: PTH109 - as the path is
        ours = signal.pthread_sigmask(signal.SIG_BLOCK, MEANT_FOR_THE_WORKER)  # which it inherits
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-P", "-m", "connectors.logs.child", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            self._connection.close()
            raise Retryable("no process could be started to search log files: see what this user may start") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ours)
            theirs.close()

    @property
    def at_work(self) -> bool:
        """Whether it is dealing with a file."""
        return self._order is not None

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def fileno(self) -> int:
        """For ``wait``."""
        return self._connection.fileno()

    def look_for(self, whom: bytes) -> None:
        """Whom to look for from now on (settings and tasks, pickled); those before are forgotten."""
        self._whom = whom
        try:
            self._connection.send_bytes(whom)
        except GONE:
            if whom is not NOBODY:
                self._again()

    def _again(self) -> None:
        self.end()
        self._start()
        with suppress(*GONE):  # that will be heard
            self._connection.send_bytes(self._whom)

    def give(self, order: Order, descriptor: int) -> None:
        """Have it deal with a file, open at a descriptor."""
        self._order = order
        with suppress(*GONE):  # that will be heard
            self._connection.send(order)
            send_handle(self._connection, descriptor, self.pid)

    def hear(self) -> list[Line] | Tally | Exception | None:
        """Wait for what it says: of lines; ``None``, where to write the file anew; or what became of it."""
        try:
            said = cast("list[Line] | Tally | Exception | None", self._connection.recv())
        except GONE:
            order = cast("Order", self._order)
            self._order = None
            self._again()
            return Retryable(ENDED.format(order.file.name))
        if isinstance(said, (Tally, Exception)):
            self._order = None
        return said

    def grant(self, descriptor: int | None) -> None:
        """Say where to write the file anew; ``None``: it is not to be."""
        if descriptor is None:
            self._order = None
        with suppress(*GONE):
            self._connection.send(descriptor is not None)
            if descriptor is not None:
                send_handle(self._connection, descriptor, self.pid)

    def end(self) -> None:
        """End it, in the middle of whatever it does."""
        self.forsake()
        self._process.kill()
        self._process.wait()

    def forsake(self) -> None:
        """Let go of it: as far as this process is concerned, it ends."""
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


def wait(children: list[Child]) -> list[Child]:
    """Wait until any of them has something to say; returns those who have."""
    return cast("list[Child]", connections.wait(cast("list[connections.Connection]", children)))


class _Lender:
    """Whoever has work borrows processes; those that come back are kept for a while."""

    def __init__(self) -> None:
        self._all = WeakSet[Child]()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle, self._lent = list[Child](), 0
        self._timer: threading.Timer | None = None

    def forsake(self) -> None:
        """After a fork: they are our parent's, and would not notice its end if we held on to them."""
        for child in self._all:
            child.forsake()
        self._begin()

    def borrow(self, number: int) -> list[Child]:
        """Processes that are at nobody else's work; with those that are, no more than this number."""
        with self._lock:
            number -= self._lent
            if number <= 0:
                return []
            self._lent += number
            children, self._idle = self._idle[:number], self._idle[number:]
        try:
            while len(children) < number:
                children.append(Child())
                self._all.add(children[-1])
        except Retryable:
            self.give_back(children, number)
            raise
        return children

    def give_back(self, children: list[Child], number: int) -> None:
        """Those at work are ended: nobody waits for their answer any more."""
        for child in children:
            child.end() if child.at_work else child.look_for(NOBODY)
        with self._lock:
            self._lent -= number
            self._idle += [child for child in children if not child.at_work]
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(IDLE, self.end)
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        """End all that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()


_lender: Final = _Lender()
atexit.register(_lender.end)
os.register_at_fork(after_in_child=_lender.forsake)


@contextmanager
def lent(number: int, batch: Batch) -> Iterator[list[Child]]:
    """At most so many processes to work on a batch; fewer, or none, where other threads have some for theirs."""
    children = _lender.borrow(number)
    if not children:
        yield children
        return
    try:
        whom = pickle.dumps((batch.config, batch.tasks))
        for child in children:
            child.look_for(whom)
        yield children
    finally:
        _lender.give_back(children, len(children))
