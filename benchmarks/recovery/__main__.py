"""How soon work goes on after a fault: ``python -m benchmarks.recovery``.

Real processes on a PostgreSQL and a RabbitMQ of our own, and the tests' oracle as the system that is worked on. Times
are the database's own: from the fault, or from the moment the server answers again, to the first and the last step
that is settled afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from orchestrator.broker import topology
from orchestrator.embedded import EmbeddedPostgres
from tests.support.deployment import Deployment, eventually, rows
from tests.support.oracle_check import await_closed, verdict
from tests.support.oracle_world import Asked, World, oracle_world
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.reaper import Reaper, end, note_postgres

AWAY = 12.0
"""Seconds that a server is away: longer than a lease."""
CHILDREN = 2
"""Processes of a worker, as is the default."""
IN_HAND = 200
"""Steps that a killed worker has in hand: a batch of 100 for each child."""
BUSY, UNDER_WAY = 3000, 500
"""Requests sent before a server goes away, and steps settled by then."""


@dataclass(frozen=True)
class Figure:
    """One measurement."""

    what: str
    seconds: float
    target: float

    @property
    def held(self) -> bool:
        """Whether the target was met."""
        return self.seconds <= self.target


@dataclass
class Scene:
    """A deployment, and what it stands on."""

    deployment: Deployment
    world: World
    postgres: EmbeddedPostgres
    rabbitmq: RabbitMQ

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
def scene(folder: Path, reaper: Path, name: str, **settings: str) -> Iterator[Scene]:
    """A fresh database, vhost, oracle and deployment, on servers that are shared."""
    with ExitStack() as stack:
        postgres = EmbeddedPostgres(reaper / "pg")
        note_postgres(reaper, postgres.data)
        postgres.start()
        rabbitmq = RabbitMQ(reaper / "mq", reaper).start()
        world = stack.enter_context(oracle_world(folder / name / "oracle", system={"batch": 100}))
        environment = {
            **world.environment,
            "HABEAS_DATABASE_URL": postgres.create_database(name),
            "HABEAS_BROKER_URL": rabbitmq.add_vhost(name),
            **{f"HABEAS_{key.upper()}": value for key, value in settings.items()},
        }
        deployment = Deployment(folder / name / "deployment", environment)
        stack.callback(deployment.close)
        deployment.habeas("migrate")
        yield Scene(deployment, world, postgres, rabbitmq)


def _send(on: Scene, requests: int) -> list[Asked]:
    with on.world.sender(on.deployment.settings) as sender:
        return [sender.erase() for _ in range(requests)]


def _ended(on: Scene, asked: Sequence[Asked]) -> None:
    await_closed(on.deployment, asked, 120)
    faults = verdict(on.world, on.deployment, asked)
    if faults:
        raise SystemExit("\n".join(faults))


def worker_killed(on: Scene, lease: float) -> list[Figure]:
    """A worker is killed with 200 steps in hand, while another stands by."""
    on.world.target.behave("keyed", "hold_before", what="act")
    on.deployment.start("intake", "clock", "worker")
    asked = _send(on, IN_HAND)
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
    return [
        Figure(f"worker killed: first of {len(held)} steps settled elsewhere", _s(again.first - killed), lease + 2),
        Figure(f"worker killed: last of {len(held)} steps settled elsewhere", _s(again.last - killed), lease + 2),
    ]


def postgres_back(on: Scene, _lease: float) -> list[Figure]:
    """PostgreSQL dies with work in hand and queued, and comes back."""
    asked = _busy(on)

    def away() -> None:
        postmaster = on.postgres.postmaster()
        assert postmaster is not None
        os.kill(postmaster.pid, signal.SIGQUIT)

    def back() -> None:
        on.postgres.start()
        with psycopg.connect(topology.libpq(on.deployment.environment["HABEAS_DATABASE_URL"])):
            pass

    return _server_back(on, asked, "PostgreSQL", away, back)


def broker_back(on: Scene, _lease: float) -> list[Figure]:
    """RabbitMQ stops with work in hand and queued, and comes back."""
    asked = _busy(on)
    return _server_back(on, asked, "RabbitMQ", on.rabbitmq.stop, on.rabbitmq.start)


def _busy(on: Scene) -> list[Asked]:
    for system in ("keyed", "unkeyed"):
        on.world.target.behave(system, "slow", seconds=0.5)
    on.deployment.start("intake", "clock", "worker")
    asked = _send(on, BUSY)
    eventually(lambda: on.settled() > UNDER_WAY, "work is under way")
    return asked


def _server_back(
    on: Scene, asked: Sequence[Asked], name: str, away: Callable[[], object], back: Callable[[], object]
) -> list[Figure]:
    away()
    time.sleep(AWAY)
    back()
    moment = on.moment()
    figure = Figure(f"{name} back after {AWAY:g} s: first step settled", _s(on.settled_after(moment) - moment), 3)
    for system in ("keyed", "unkeyed"):
        on.world.target.behave(system)
    _ended(on, asked)
    lost = on.query("SELECT count(*) AS n FROM audit WHERE what = 'lost'")[0].n
    print(f"  {name} away for {AWAY:g} s: {lost} steps were taken back, though their worker lived")
    return [figure]


def _s(length: timedelta) -> float:
    return round(length.total_seconds(), 2)


SCENES = {"worker": worker_killed, "postgres": postgres_back, "broker": broker_back}


def main() -> None:
    """Measure, and print. Exit code 1 when a target was missed or the oracle found a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lease", type=float, default=10.0, help="HABEAS_LEASE_SECONDS")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=sorted(SCENES))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures: list[Figure] = []
    reaper = Reaper()
    try:
        with tempfile.TemporaryDirectory(prefix="habeas-recovery-") as folder:
            for round_ in range(given.rounds):
                for name in [given.only] if given.only else SCENES:
                    settings = {"lease_seconds": f"{given.lease:g}"}
                    with scene(Path(folder), reaper.folder, f"{name}{round_}", **settings) as on:
                        figures += SCENES[name](on, given.lease)
    finally:
        postmaster = EmbeddedPostgres(reaper.folder / "pg").postmaster()
        if postmaster is not None:
            end(postmaster.pid)
        reaper.close()
    print(f"lease {given.lease:g} s, sweep 1 s, 1 worker of 2 processes (2 workers where one is killed), batch 100")
    for figure in figures:
        print(f"{figure.what:<62} {figure.seconds:7.2f} s  (target {figure.target:g} s)")
    if given.json:
        print(json.dumps([asdict(f) for f in figures]))
    sys.exit(0 if all(f.held for f in figures) else 1)


if __name__ == "__main__":
    main()
