"""How soon work goes on after a fault.

Real processes on a PostgreSQL and a RabbitMQ of our own, and the tests' oracle as the system that is worked on. Times
are the database's own: from the fault, or from the moment the server answers again, to the first and the last step
that is settled afterwards.
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.figures import Figure, Report, WrongResult
from benchmarks.servers import IN_WORDS, Servers, servers
from orchestrator.broker import topology
from tests.support.deployment import Deployment, eventually, rows
from tests.support.oracle_check import await_closed, verdict
from tests.support.oracle_world import Asked, World, oracle_world

TITLE = "how soon work goes on after a worker was killed, and when PostgreSQL or RabbitMQ is back"
CHILDREN = 2
"""Processes of a worker, as is the default."""
BACK = 3.0
"""Seconds after which work is to go on once a server is back."""
GRACE = 2.0
"""Seconds after a lease within which a killed worker's steps are to be settled elsewhere."""


@dataclass(frozen=True)
class Scale:
    """How long, and how much."""

    lease: float
    """Seconds; as it comes: 10."""
    away: float
    """Seconds that a server is away: longer than a lease, in full."""
    batch: int
    """Steps that each child of a killed worker has in hand."""
    busy: int
    under_way: int
    """Requests sent before a server goes away, and steps settled by then."""
    rounds: int


FULL = Scale(lease=10, away=12, batch=100, busy=3000, under_way=500, rounds=3)
SMALL = Scale(lease=2, away=1, batch=5, busy=8, under_way=3, rounds=1)
Measured = dict[str, list[tuple[float, float]]]
"""What was measured → seconds, and the target, for each round."""


@dataclass
class Scene:
    """A deployment, and what it stands on."""

    deployment: Deployment
    world: World
    servers: Servers
    scale: Scale
    measured: Measured
    notes: list[str]

    def query(self, statement: str, **values: Any) -> list[Any]:
        """From the database."""
        runtime = self.deployment.runtime()
        try:
            return rows(runtime, statement, **values)
        finally:
            runtime.close()

    def moment(self) -> datetime:
        """The database's time."""
        at: datetime = self.query("SELECT clock_timestamp() AS at")[0].at
        return at

    def settled_after(self, moment: datetime) -> datetime:
        """When the first step was settled after a moment."""
        query = "SELECT min(at) AS at FROM audit WHERE what = 'settled' AND at > :moment"
        at: datetime = eventually(lambda: self.query(query, moment=moment)[0].at, "a step is settled")
        return at

    def settled(self) -> int:
        """Steps settled so far."""
        return int(self.query("SELECT count(*) AS n FROM audit WHERE what = 'settled'")[0].n)


@contextmanager
def scene(folder: Path, on: Servers, name: str, scale: Scale, measured: Measured, notes: list[str]) -> Iterator[Scene]:
    """A fresh database, vhost, oracle and deployment, on servers that are shared."""
    with oracle_world(folder / name / "oracle", system={"batch": scale.batch}) as world:
        environment = {
            **world.environment,
            "HABEAS_DATABASE_URL": on.postgres.create_database(name),
            "HABEAS_BROKER_URL": on.rabbitmq.add_vhost(name),
            "HABEAS_LEASE_SECONDS": f"{scale.lease:g}",
        }
        deployment = Deployment(folder / name / "deployment", environment)
        try:
            deployment.habeas("migrate")
            yield Scene(deployment, world, on, scale, measured, notes)
        finally:
            deployment.close()


def _send(on: Scene, requests: int) -> list[Asked]:
    with on.world.sender(on.deployment.settings) as sender:
        return [sender.erase() for _ in range(requests)]


def _ended(on: Scene, asked: Sequence[Asked]) -> None:
    await_closed(on.deployment, asked, 120)
    faults = verdict(on.world, on.deployment, asked)
    if faults:
        raise WrongResult("\n".join(faults))


def worker_killed(on: Scene) -> None:
    """A worker is killed with its children's batches in hand, while another stands by."""
    on.world.target.behave("keyed", "hold_before", what="act")
    on.deployment.start("intake", "clock", "worker")
    asked = _send(on, CHILDREN * on.scale.batch)
    eventually(lambda: on.world.target.held("keyed") == CHILDREN, "both children are in a call")
    on.deployment.start("worker-2")
    log = on.deployment.directory / "worker-2.1.log"
    eventually(lambda: "process.started" in log.read_text(), "the other worker is up")
    held = on.query("SELECT request_id, ordinal FROM step WHERE state = 'running'")
    killed = on.moment()
    on.deployment.kill("worker")
    on.world.target.behave("keyed")
    _ended(on, asked)
    again = on.query(
        "SELECT min(at) AS first, max(at) AS last FROM audit JOIN unnest(CAST(:ids AS uuid[]), CAST(:n AS int[])) "
        "AS held(id, n) ON request_id = held.id AND ordinal = held.n WHERE what = 'settled'",
        ids=[r.request_id for r in held],
        n=[r.ordinal for r in held],
    )[0]
    what, target = f"worker killed with {len(held)} steps in hand", on.scale.lease + GRACE
    on.measured[f"{what}: the first settled elsewhere"].append((_s(again.first - killed), target))
    on.measured[f"{what}: the last settled elsewhere"].append((_s(again.last - killed), target))


def postgres_back(on: Scene) -> None:
    """PostgreSQL dies with work in hand and queued, and comes back."""
    asked = _busy(on)

    def away() -> None:
        postmaster = on.servers.postgres.postmaster()
        assert postmaster is not None
        os.kill(postmaster.pid, signal.SIGQUIT)

    def back() -> None:
        on.servers.postgres.start()
        with psycopg.connect(topology.libpq(on.deployment.environment["HABEAS_DATABASE_URL"])):
            pass

    _server_back(on, asked, "PostgreSQL", away, back)


def broker_back(on: Scene) -> None:
    """RabbitMQ stops with work in hand and queued, and comes back."""
    asked = _busy(on)
    _server_back(on, asked, "RabbitMQ", on.servers.rabbitmq.stop, on.servers.rabbitmq.start)


def _busy(on: Scene) -> list[Asked]:
    for system in ("keyed", "unkeyed"):
        on.world.target.behave(system, "slow", seconds=0.5)
    on.deployment.start("intake", "clock", "worker")
    asked = _send(on, on.scale.busy)
    eventually(lambda: on.settled() > on.scale.under_way, "work is under way")
    return asked


def _server_back(
    on: Scene, asked: Sequence[Asked], name: str, away: Callable[[], object], back: Callable[[], object]
) -> None:
    away()
    time.sleep(on.scale.away)
    back()
    moment = on.moment()
    seconds = _s(on.settled_after(moment) - moment)
    on.measured[f"{name} back after {on.scale.away:g} s: the first step settled"].append((seconds, BACK))
    for system in ("keyed", "unkeyed"):
        on.world.target.behave(system)
    _ended(on, asked)
    lost = on.query("SELECT count(*) AS n FROM audit WHERE what = 'lost'")[0].n
    on.notes.append(f"{name} away for {on.scale.away:g} s: {lost} steps were taken back, though their worker lived.")


def _s(length: timedelta) -> float:
    return round(length.total_seconds(), 2)


SCENES = {"worker": worker_killed, "postgres": postgres_back, "broker": broker_back}


def run(folder: Path, *, small: bool) -> Report:
    """Measure; raises ``WrongResult`` when the oracle finds a fault."""
    scale = SMALL if small else FULL
    measured: Measured = defaultdict(list)
    notes: list[str] = []
    with servers() as on:
        for number in range(scale.rounds):
            for name, play in SCENES.items():
                with scene(folder, on, f"{name}{number}", scale, measured, notes) as it:
                    play(it)
    return Report(
        {
            "rounds": str(scale.rounds),
            "lease": f"{scale.lease:g} s, sweep 1 s",
            "workers": f"1 of {CHILDREN} processes (2 where one is killed), batch {scale.batch}",
            "PostgreSQL": IN_WORDS,
        },
        [
            Figure(what, "s", [ours for ours, _ in found], "target", [found[0][1]], at_most=1)
            for what, found in measured.items()
        ],
        list(dict.fromkeys(notes)),
    )
