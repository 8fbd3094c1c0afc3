"""One request at a time on a system at rest, beside a Celery chord; and what being at rest costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

from benchmarks.costs import seconds_of
from benchmarks.figures import Figure, Report
from benchmarks.orchestration.habeas import STEPS, Size, deployed, sending, start
from benchmarks.peers.programs import celery
from benchmarks.servers import IN_WORDS, servers
from tests.support.deployment import Deployment

TITLE = "one request at a time, from message published to completion received, beside a Celery chord; CPU at rest"
LIMIT_MS = 150
"""What 99 of 100 requests may take."""
LIMIT_CPU = 2
"""Percent of one core that all processes together may use at rest."""


def run(folder: Path, *, small: bool) -> Report:
    """Measure, in turns."""
    rounds, each, rest = (1, 5, 1.0) if small else (3, 100, 30.0)
    size = Size(each, batch=100)
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    with (
        servers() as on,
        deployed(folder / "habeas", on, "latency", size.batch) as deployment,
        sending(deployment) as sender,
        celery(folder / "celery", on.rabbitmq.add_vhost("chords"), on.redis.url_of()) as peer,
        peer.worker(),
    ):
        start(deployment, size)
        for program in (sender, peer.sender):
            program.ask("one", 3, *[STEPS] * (program is sender))
        for _ in range(rounds):
            ours.append(sender.ask("one", each, STEPS)["milliseconds"])
            theirs.append(peer.sender.ask("one", each)["milliseconds"])
        idle = _at_rest(deployment, rest)
    return Report(
        {
            "rounds": f"{rounds} of {each} requests and {each} chords, one at a time, taking turns",
            "Habeas": f"six steps, {size.in_words()}, RabbitMQ quorum queues, settings as they come otherwise",
            "chords": "four and a callback, prefork 2, RabbitMQ as broker, results in Redis",
            "PostgreSQL": IN_WORDS,
            "at rest": f"all processes for {rest:g} s",
        },
        _figures(ours, theirs, idle),
    )


def _figures(ours: Sequence[list[float]], theirs: Sequence[list[float]], idle: float) -> list[Figure]:
    chord, limit = "a Celery chord of four and a callback", "the limit"
    return [
        Figure("a request of six steps, median", "ms", [median(r) for r in ours], chord, [median(r) for r in theirs],
               at_most=2),
        Figure("99 of 100 take at most", "ms", [_p99(r) for r in ours], limit, [LIMIT_MS], at_most=1),
        Figure("99 of 100 take at most", "ms", [_p99(r) for r in ours], chord, [_p99(r) for r in theirs]),
        Figure("CPU of all processes at rest", "% of a core", [idle], limit, [LIMIT_CPU], at_most=1),
    ]  # fmt: skip


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100, method="inclusive")[-1]


def _at_rest(deployment: Deployment, seconds: float) -> float:
    """Percent of a core."""
    time.sleep(min(seconds, 2))  # what the last request left to do is done
    pids = [process.pid for process in deployment.processes.values()]
    before, began = sum(map(seconds_of, pids)), time.monotonic()
    time.sleep(seconds)
    return (sum(map(seconds_of, pids)) - before) / (time.monotonic() - began) * 100
