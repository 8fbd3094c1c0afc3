"""What is measured on a database, whatever lies in it: throughput, latency, the clock's tick, a claim, and looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median, quantiles
from typing import Any
from uuid import uuid4

from benchmarks.figures import WrongResult
from benchmarks.flat.engine import Engine, messages
from benchmarks.flat.looks import looks
from orchestrator.store import claims

MS = 1000.0
CLAIMS = 4
"""Claims of which a round takes the median: each needs a batch of ready steps."""


def throughput(engine: Engine, requests: int) -> float:
    """Requests a second, from the first message admitted to the last event published; one process does everything."""
    asked = messages(requests)
    began = time.perf_counter()
    ids = engine.admit(asked)
    engine.drain()
    took = time.perf_counter() - began
    engine.closed(ids)
    return requests / took


def latency(engine: Engine, requests: int) -> list[float]:
    """Milliseconds of each of some requests that come one by one."""
    return [MS / throughput(engine, 1) for _ in range(requests)]


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100)[98]


def tick(engine: Engine, times: int) -> float:
    """Milliseconds of one round of the clock; the median of some."""
    return timed(engine.runtime.sweep.tick, times)


def claim(engine: Engine, batch: int) -> float:
    """Milliseconds to claim a full batch while more are ready; the median of some, one after the other."""
    ids = engine.admit(messages((CLAIMS + 2) * batch))
    limits = engine.runtime.definitions.systems["users"].limits
    token = uuid4()

    def claimed() -> None:
        with engine.runtime.database.transaction() as tx:
            taken = claims.claim(tx, "users", limits, batch, token, timedelta(minutes=10))
        if len(taken) != batch:
            raise WrongResult(f"{len(taken)} of {batch} steps were claimed")

    value = timed(claimed, CLAIMS)
    engine.rows(_GIVE_BACK, token=token)
    engine.drain()
    engine.closed(ids)
    return value


_GIVE_BACK = (
    "UPDATE step SET state = 'ready', token = NULL, lease_until = NULL WHERE state = 'running' AND token = :token"
)


def look_times(engine: Engine, times: int) -> dict[str, float]:
    """Milliseconds of each look of an operator: the median of some, after a first that is not counted."""

    def looked(query: Callable[[Any], Any]) -> Callable[[], object]:
        def once() -> None:
            with engine.runtime.database.transaction() as tx:
                query(tx)

        return once

    return {name: timed(looked(query), times) for name, query in looks(engine).items()}


def timed(act: Callable[[], object], times: int) -> float:
    """Milliseconds of an act: the median of some, after a first that is not counted."""
    act()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * MS)
    return median(taken)
