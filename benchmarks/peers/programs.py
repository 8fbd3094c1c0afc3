"""Starting the peers: Celery's worker and sender, DBOS's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import Program, running

CELERY = "benchmarks.peers.celery_main"
_COUNTERS = 1024
"""Bytes: more than any number of children needs."""


@dataclass
class Celery:
    """A worker that may be stopped and started, and somebody who sends."""

    sender: Program
    environment: Mapping[str, str]
    log: Path

    @contextmanager
    def worker(self) -> Iterator[int]:
        """The worker, while it runs; its process id."""
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", CELERY, "worker"],
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def celery(folder: Path, broker: str, backend: str = "") -> Iterator[Celery]:
    """Celery's sender on a broker; its worker is started apart."""
    folder.mkdir(parents=True)
    counters, log = folder / "done", folder / "celery.log"
    counters.write_bytes(bytes(_COUNTERS))
    environment = {**os.environ, "PEER_BROKER": broker, "PEER_BACKEND": backend, "PEER_DONE": str(counters)}
    with running(CELERY, "sender", environment=environment, log=log) as sender:
        yield Celery(sender, environment, log)


@contextmanager
def dbos(folder: Path, database: str, processes: int, **more: str) -> Iterator[Sequence[Program]]:
    """DBOS's processes, which share one queue."""
    folder.mkdir(parents=True)
    environment = {**os.environ, "PEER_DATABASE": database.replace("+psycopg", "", 1), **more}
    with ExitStack() as stack:
        programs: list[Program] = []
        for _ in range(processes):
            program = running("benchmarks.peers.dbos_app", environment=environment, log=folder / "dbos.log")
            programs.append(stack.enter_context(program))
            # One after the other: the first makes the tables.
            programs[-1].ask("fan_out", 1)
        yield programs


def fan_out(programs: Sequence[Program], number: int) -> float:
    """Workflows a second, shared out among the processes."""
    each = number // len(programs)
    for program in programs:
        program.tell("fan_out", each)
    seconds = max(float(program.hear()["seconds"]) for program in programs)
    return each * len(programs) / seconds
