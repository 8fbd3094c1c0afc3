"""Celery as its documentation would have it set up for speed: a worker, and a sender told what to do.

``python -m benchmarks.peers.celery_main worker``: prefork, two children. ``… sender``: answers to ``chords N``,
``one N``, ``tasks N``, ``drain N`` and ``live N``. ``PEER_BROKER`` and ``PEER_BACKEND`` are URLs; ``PEER_DONE`` names a
file of counters.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from billiard.process import current_process
from celery import Celery, chord, signals
from kombu import Queue

from benchmarks.programs import Found, answer

PATIENCE = 120
"""Seconds without anything done until it is given up."""
CHILDREN = 2
_SLOT = 8
"""Bytes of one child's counter."""

rabbitmq = os.environ["PEER_BROKER"].startswith("amqp")
app = Celery("peer", broker=os.environ["PEER_BROKER"], backend=os.environ.get("PEER_BACKEND") or None)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_default_queue="peer",
    worker_prefetch_multiplier=32,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_concurrency=CHILDREN,
    worker_hijack_root_logger=False,
    task_acks_late=rabbitmq,  # durable: a task is acknowledged when it is done
    broker_transport_options={"confirm_publish": True} if rabbitmq else {},
    broker_heartbeat=0,
    task_queues=[Queue("peer", routing_key="peer", durable=True)],
)


class Counters:
    """How many tasks each child has done: shared memory, which costs the worker nothing."""

    def __init__(self) -> None:
        """Opens the file."""
        path = Path(os.environ["PEER_DONE"])
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SLOT * (CHILDREN + 1))

    def count(self, child: int) -> None:
        """One more."""
        at = child * _SLOT
        n = int.from_bytes(self._memory[at : at + _SLOT], "little") + 1
        self._memory[at : at + _SLOT] = n.to_bytes(_SLOT, "little")

    def total(self) -> int:
        """Of all children."""
        return sum(int.from_bytes(self._memory[at : at + _SLOT], "little") for at in range(0, len(self._memory), _SLOT))


_counters: list[Any] = []


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _forked(**_: object) -> None:
    _counters[:] = [Counters(), current_process().index]


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def nothing() -> None:
    """A durable task that does nothing, and is counted."""
    _counters[0].count(_counters[1])


@app.task  # type: ignore[untyped-decorator]
def step(n: int) -> int:
    """One of four."""
    return n


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def finish(results: Sequence[int], token: int) -> None:
    """The callback: tells the sender."""
    app.backend.client.rpush("done", f"{token}:{sum(results)}")


def _begin(token: int) -> None:
    chord([step.s(n) for n in range(4)])(finish.s(token))


def _done(open_: set[int]) -> list[str]:
    """One callback's word; what was wrong with it."""
    said = app.backend.client.blpop("done", timeout=PATIENCE)
    if said is None:
        raise TimeoutError(f"{len(open_)} chords never ended")
    token, _, total = said[1].decode().partition(":")
    open_.discard(int(token))
    return [] if total == "6" else [f"a callback was given {total}"]


def chords(number: int) -> Found:
    """Publish chords of four, and wait for all their callbacks."""
    wrong: list[str] = []
    cpu, began = time.process_time(), time.perf_counter()
    for token in range(number):
        _begin(token)
    open_ = set(range(number))
    while open_:
        wrong += _done(open_)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "wrong": wrong[:3]}


def one(number: int) -> Found:
    """One chord at a time: milliseconds each."""
    wrong, times = [], []
    for token in range(number):
        began = time.perf_counter()
        _begin(token)
        wrong += _done({token})
        times.append((time.perf_counter() - began) * 1000)
    return {"milliseconds": times, "wrong": wrong[:3]}


def tasks(number: int) -> Found:
    """Publish durable tasks, each confirmed; how long that took. Somebody else waits for them to be done."""
    began = time.perf_counter()
    with app.producer_or_acquire() as producer:
        for _ in range(number):
            nothing.apply_async(producer=producer)
    return {"seconds": time.perf_counter() - began, "wrong": []}


def live(number: int) -> Found:
    """Publish durable tasks to a worker that runs; seconds from the first publish until all are done."""
    counters = Counters()
    before, began = counters.total(), time.perf_counter()
    wrong = [*tasks(number)["wrong"], *_until_done(counters, before + number)]
    return {"seconds": time.perf_counter() - began, "wrong": wrong}


def _until_done(counters: Counters, total: int) -> list[str]:
    until = time.monotonic() + PATIENCE
    while counters.total() < total and time.monotonic() < until:
        time.sleep(0.001)
    return [] if counters.total() == total else [f"{counters.total()} tasks were done, and not {total}"]


def drain(number: int) -> Found:
    """Wait until that many more tasks are done; seconds from the first of them to the last."""
    counters = Counters()
    before = counters.total()
    until = time.monotonic() + PATIENCE
    while counters.total() == before and time.monotonic() < until:
        time.sleep(0.001)
    first, began = counters.total() - before, time.perf_counter()
    wrong = _until_done(counters, before + number)
    return {"seconds": (time.perf_counter() - began) * number / (number - first), "wrong": wrong}


def main() -> None:
    """Be a worker, or a sender."""
    if sys.argv[1] == "sender":
        answer({"chords": chords, "one": one, "tasks": tasks, "drain": drain, "live": live})
        return
    worker = app.Worker(
        pool="prefork",
        concurrency=CHILDREN,
        loglevel="WARNING",
        without_heartbeat=True,
        without_gossip=True,
        without_mingle=True,
        optimization="fair" if rabbitmq else "",
        quiet=True,
    )
    worker.start()
