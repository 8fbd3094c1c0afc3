"""Requests of six steps through real processes, beside a chord, a durable workflow's fan-out, and a plain task queue.

``python -m benchmarks.orchestration`` measures Habeas alone, with knobs, for those who change the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path

from benchmarks.costs import Costs
from benchmarks.figures import Figure, Report, interleaved
from benchmarks.orchestration.habeas import STEPS, Measured, Size, drained, measure
from benchmarks.peers.programs import Celery, celery, dbos, fan_out
from benchmarks.servers import IN_WORDS, Servers, servers

TITLE = "requests of six steps, from message published to completion received, beside Celery and DBOS Transact"


@dataclass(frozen=True)
class Sizes:
    """How much of each in a round: some ten seconds' worth, but for Habeas."""

    habeas: Size
    chords: int
    tasks: int
    fan_outs: int
    rounds: int


FULL = Sizes(Size(20_000), chords=1500, tasks=10_000, fan_outs=500, rounds=3)
SMALL = Sizes(Size(200), chords=20, tasks=200, fan_outs=8, rounds=1)


class Peers:
    """One round of each peer, on the servers that Habeas is measured on."""

    def __init__(self, folder: Path, on: Servers, sizes: Sizes) -> None:
        """Each round has a folder, a database and a vhost of its own."""
        self._folder, self._on, self._sizes = folder, on, sizes
        self._numbers = count()

    def chords(self) -> float:
        """Celery chords of four and a callback, a second; results in Redis."""
        name = f"chords{next(self._numbers)}"
        broker, results = self._on.rabbitmq.add_vhost(name), self._on.redis.url_of()
        with celery(self._folder / name, broker, results) as peer, peer.worker():
            peer.sender.ask("chords", 20)
            return self._sizes.chords / float(peer.sender.ask("chords", self._sizes.chords)["seconds"])

    def drained(self) -> float:
        """Celery's durable tasks a second, all published before the worker starts."""
        with self._durable() as peer:
            peer.sender.ask("tasks", self._sizes.tasks)
            with peer.worker():
                return self._sizes.tasks / float(peer.sender.ask("drain", self._sizes.tasks)["seconds"])

    def live(self) -> float:
        """The same, from the first publish until all are done."""
        with self._durable() as peer, peer.worker():
            peer.sender.ask("live", 20)
            return self._sizes.tasks / float(peer.sender.ask("live", self._sizes.tasks)["seconds"])

    def _durable(self) -> AbstractContextManager[Celery]:
        name = f"tasks{next(self._numbers)}"
        return celery(self._folder / name, self._on.rabbitmq.add_vhost(name))

    def fan_outs(self) -> float:
        """DBOS workflows a second that fan out to four through a queue."""
        name = f"dbos{next(self._numbers)}"
        with dbos(self._folder / name, self._on.postgres.create_database(name), processes=1) as peers:
            return fan_out(peers, self._sizes.fan_outs)


def run(folder: Path, *, small: bool) -> Report:
    """Measure."""
    sizes = SMALL if small else FULL
    runs: list[Measured] = []
    with servers() as on:
        peers = Peers(folder, on, sizes)

        def habeas() -> float:
            name = f"habeas{len(runs)}"
            runs.append(measure(folder / name, on, name, sizes.habeas))
            return runs[-1].rate

        def before() -> float:
            name = f"before{next(numbers)}"
            return drained(folder / name, on, name, sizes.habeas)

        numbers = count()
        values = interleaved(sizes.rounds, habeas, before, peers.chords, peers.drained, peers.live, peers.fan_outs)
    return Report(_settings(sizes), _figures(*values), _notes(runs[-1].costs))


def _figures(
    requests: list[float],
    before: list[float],
    chords: list[float],
    tasks: list[float],
    live: list[float],
    fan_outs: list[float],
) -> list[Figure]:
    what = "requests of six steps, publishing included"
    first, steps = "requests published before, their steps", [rate * STEPS for rate in before]
    chord, queue = "Celery chords of four and a callback", "DBOS workflows with a fan-out of four"
    return [
        Figure(what, "/s", requests, chord, chords, at_least=10),
        Figure(what, "/s", requests, queue, fan_outs, at_least=20),
        Figure("their steps", "/s", [r * STEPS for r in requests], "Celery's durable tasks, too", live, at_least=5),
        Figure(first, "/s", steps, "Celery's durable tasks, too", tasks, at_least=5),
    ]


def _settings(sizes: Sizes) -> dict[str, str]:
    return {
        "rounds": f"{sizes.rounds}, taking turns",
        "Habeas": f"{sizes.habeas.requests:,} requests, {sizes.habeas.in_words()}, RabbitMQ quorum queues, "
        "one publisher with confirms in windows of 500; signatures, sealing, audit and answers on",
        "PostgreSQL": IN_WORDS,
        "chords": f"{sizes.chords:,}, Celery {version('celery')}, prefork 2, results in Redis (not durable)",
        "broker of chords and tasks": "RabbitMQ, durable queue, persistent, confirmed, acknowledged late, prefetch 32",
        "tasks": f"{sizes.tasks:,}, prefork 2, no results",
        "DBOS": f"{sizes.fan_outs} workflows, version {version('dbos')}, one process with 64 under way, polling every "
        "20 ms, the same PostgreSQL",
    }


def _notes(costs: Costs) -> Sequence[str]:
    return [f"{line}." for line in costs.lines()]
