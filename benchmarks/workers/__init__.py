"""Workers on a vendor that takes 200 ms to answer: how many calls one holds, how they share a limit, how they scale."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Report, WrongResult, interleaved
from benchmarks.orchestration.habeas import await_up, deployed, sending
from benchmarks.programs import Found, Program, running
from benchmarks.servers import IN_WORDS, Servers, servers
from benchmarks.workers.vendor import SECONDS
from tests.support.deployment import Deployment, eventually, rows

TITLE = "a vendor that takes 200 ms: calls that one worker holds, a limit that all share, and workers side by side"
WORKFLOW = "workflow: erasure\nversion: 1\nright: erasure\nsteps:\n  - {id: erase, action: erase}\n"
PATIENCE = 300.0
"""Seconds that all calls of a round may take."""
IN_FLIGHT = 500
"""Calls that one worker process is to hold."""


@dataclass(frozen=True)
class Limit:
    """The vendor's, and what is made of it."""

    parallel: int
    """Threads of a batch, and steps of a batch."""
    per_second: int
    requests: int


@dataclass(frozen=True)
class Side:
    """Workers side by side, each of one child with so many threads."""

    parallel: int
    requests: int
    """For each worker."""
    rounds: int


FULL = Limit(600, 100, 1400), Side(16, 480, 3)
SMALL = Limit(60, 40, 100), Side(8, 30, 1)


def run(folder: Path, *, small: bool) -> Report:
    """Measure."""
    limit, side = SMALL if small else FULL
    with servers() as on:
        held, busiest = _limited(folder / "limit", on, limit)
        runs = iter(range(1000))

        def rate(workers: int) -> float:
            name = f"side{next(runs)}"
            return _side_by_side(folder / name, on, name, side, workers)

        one, two, four = interleaved(side.rounds, lambda: rate(1), lambda: rate(2), lambda: rate(4))
    allowed = limit.per_second + limit.parallel
    return Report(
        {
            "vendor": f"HTTP, {SECONDS * 1000:g} ms for each call",
            "limit": f"{limit.per_second} a second, {limit.parallel} at once after a rest; {limit.requests} requests, "
            f"workers of one child with {limit.parallel} threads",
            "side by side": f"{side.requests} requests for each worker of one child with {side.parallel} threads, "
            f"{side.rounds} rounds, taking turns",
            "PostgreSQL": IN_WORDS,
        },
        [
            Figure("calls in flight from one worker process", "calls", [held], "target", [_target(limit)], at_least=1),
            Figure("calls in the busiest second, two workers", "calls", [busiest], "the limit", [allowed], at_most=1),
            Figure("2 workers", "calls/s", two, "1 worker", one, at_least=1.9),
            Figure("4 workers", "calls/s", four, "1 worker", one, at_least=3.6),
        ],
    )


def _target(limit: Limit) -> int:
    return min(IN_FLIGHT, limit.parallel * 5 // 6)


@contextmanager
def _slow(
    folder: Path, on: Servers, name: str, parallel: int, requests: int, **entry: Any
) -> Iterator[tuple[Deployment, Program]]:
    """A deployment with so many requests admitted and no worker yet; and the vendor, who was not called yet."""
    folder.mkdir(parents=True)
    with running("benchmarks.workers.vendor", environment=os.environ, log=folder / "vendor.log") as vendor:
        config = {"port": vendor.ask("port")["port"]}
        system = {"name": "slow", "connector": "benchmarks.workers.connector:Slow", "config": config, **entry}
        system |= {"parallel": parallel, "batch": parallel}
        with deployed(folder, on, name, parallel, WORKFLOW, [system]) as deployment, sending(deployment) as sender:
            deployment.start("intake", "clock")
            await_up(deployment, "intake", "clock")
            sender.ask("publish", requests)
            admitted = partial(_count, deployment, "SELECT count(*) AS n FROM step WHERE state = 'ready'")
            eventually(lambda: admitted() == requests, "all requests are admitted")
            yield deployment, vendor


def _limited(folder: Path, on: Servers, limit: Limit) -> tuple[int, int]:
    """Most calls in flight while one worker ran; calls in the busiest second, once a second worker had joined it."""
    rate = {"per_second": limit.per_second, "burst": limit.parallel}
    with _slow(folder, on, "limit", limit.parallel, limit.requests, rate=rate) as (deployment, vendor):
        time.sleep(limit.parallel / limit.per_second)  # after a rest: what may begin at once has to gather first
        _start(deployment, "worker-1")
        eventually(lambda: _settled(deployment) >= limit.parallel, "the first batch is settled")
        most = int(vendor.ask("seen")["most"])
        _start(deployment, "worker-2")
        eventually(lambda: _settled(deployment) == limit.requests, "all is settled", PATIENCE)
        return most, int(_seen(vendor, limit.requests)["busiest"])


def _side_by_side(folder: Path, on: Servers, name: str, side: Side, workers: int) -> float:
    """Calls a second, from the first that was settled to the last."""
    requests = side.requests * workers
    with _slow(folder, on, name, side.parallel, requests) as (deployment, vendor):
        _start(deployment, *(f"worker-{n + 1}" for n in range(workers)))
        eventually(lambda: _settled(deployment) == requests, "all is settled", PATIENCE)
        _seen(vendor, requests)
        [row] = _ask(deployment, "SELECT min(at) AS first, max(at) AS last FROM audit WHERE what = 'settled'")
        return requests / float((row.last - row.first).total_seconds())


def _start(deployment: Deployment, *workers: str) -> None:
    deployment.start(*workers, arguments=("-c", "1"))


def _settled(deployment: Deployment) -> int:
    return _count(deployment, "SELECT count(*) AS n FROM audit WHERE what = 'settled'")


def _count(deployment: Deployment, query: str) -> int:
    return int(_ask(deployment, query)[0].n)


def _ask(deployment: Deployment, query: str) -> list[Any]:
    runtime = deployment.runtime()
    try:
        return rows(runtime, query)
    finally:
        runtime.close()


def _seen(vendor: Program, requests: int) -> Found:
    """What the vendor saw. Raises ``WrongResult`` unless each person was worked on once."""
    seen = vendor.ask("seen")
    if seen["calls"] != requests or seen["repeated"]:
        raise WrongResult(f"{requests} people made {seen['calls']} calls, {seen['repeated']} of them again")
    return seen
