"""A process beside the worker that searches log files, and writes down what erasure leaves of them.

It never opens a file: it is handed descriptors, one to read from and one to write to, and only the worker gives what
was written a name. So a process that is left behind could do no harm; and none is, for it ends when the worker does,
however that ends. Whom to look for comes through a socket shared with the worker alone, and is forgotten after a batch.

    python -m connectors.logs.child DESCRIPTOR
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import FileIO
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from threading import Thread
from typing import Final

from connectors.contract import ConnectorError
from connectors.logs.batch import Batch, Tally
from connectors.logs.work import Line, Order, erase_in, find_in

__all__ = ["main"]

LINES: Final = 500
"""Lines that are told of at once."""


class _Refused(Exception):
    """The file is not to be rewritten; the worker knows why."""


def main() -> None:
    """Carry out orders until the worker ends, or has none for a while."""
    Thread(target=_end_with_the_worker, daemon=True).start()
    worker, batch = Connection(int(sys.argv[1])), None
    with suppress(EOFError, OSError):  # it is gone
        while True:
            match worker.recv():
                case Order() as order if batch is not None:
                    _carry_out(worker, batch, order)
                case (config, tasks):
                    batch = Batch(config, tasks)
                case _:
                    batch = None


def _end_with_the_worker() -> None:
    """The worker holds the other end of our standard input, and writes nothing to it."""
    os.read(0, 1)
    os._exit(1)  # in the middle of whatever it is


def _carry_out(worker: Connection, batch: Batch, order: Order) -> None:
    """Deal with a file; answers with lists of lines, ``None`` to ask where to write, and what became of it at last."""
    with FileIO(recv_handle(worker)) as stream:
        try:
            answer: Tally | Exception = _dealt_with(worker, batch, order, stream)
        except _Refused:
            return
        except ConnectorError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - a fault of ours; its text may hold personal data, its place does not
            answer = RuntimeError(f"{type(error).__name__} {_place(error)}")
    worker.send(answer)


def _dealt_with(worker: Connection, batch: Batch, order: Order, stream: FileIO) -> Tally:
    if order.erasing:
        return _erased(worker, batch, order, stream)
    if not order.telling:
        return find_in(batch, order.file, stream, None)
    held = list[Line]()

    def tell(line: Line) -> None:
        held.append(line)
        if len(held) >= LINES:
            worker.send(held)
            held.clear()

    tally = find_in(batch, order.file, stream, tell)
    worker.send(held)
    return tally


def _erased(worker: Connection, batch: Batch, order: Order, stream: FileIO) -> Tally:
    granted = list[int]()

    def begin() -> int:
        worker.send(None)
        if not worker.recv():
            raise _Refused
        granted.append(recv_handle(worker))
        return granted[0]

    try:
        return erase_in(batch, order.file, stream, begin)
    finally:
        for descriptor in granted:
            os.close(descriptor)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}" if trace else ""


if __name__ == "__main__":
    main()
