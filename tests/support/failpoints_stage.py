"""A stage for one fault: the oracle, a deployment that stops at a point, and what may be done to it there."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg
from sqlalchemy import text

from orchestrator.broker import topology
from orchestrator.cli.why import explain
from orchestrator.embedded import EmbeddedPostgres
from orchestrator.runtime import Runtime
from orchestrator.settings import read
from tests.support.deployment import Deployment, eventually, rows
from tests.support.failpoints import Failpoint
from tests.support.oracle_check import await_closed, heard, verdict
from tests.support.oracle_world import Asked, Sender, World
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.tcp_proxy import Proxy

MODULE = "tests.support.failpoints"
_WENT_ON = """
SELECT 1 FROM step AS taken JOIN step AS settled USING (request_id)
WHERE taken.state = 'running' AND settled.state = 'done' AND taken.changed_at = settled.changed_at
UNION ALL SELECT 1 FROM step WHERE :settled AND state = 'done' AND action = 'verify' LIMIT 1"""
HELD = {"mid_call": "hold_before", "after_effect": "hold_after"}
"""Points inside a call: before the oracle carries it out, and after, with the answer outstanding."""


@dataclass
class Stage:
    """Everything that a fault may touch."""

    deployment: Deployment
    world: World
    rabbitmq: RabbitMQ
    vhost: str
    postgres: EmbeddedPostgres
    proxy: Proxy
    direct_url: str
    """The database, past the proxy."""
    point: str = ""
    asked: list[Asked] = field(default_factory=list)
    broker_lost: bool = False
    """Whether answers may have been lost with the broker's queues."""

    # Starting. -----------------------------------------------------------------------------------------------------

    @property
    def failpoint(self) -> Failpoint:
        """The point at which a process stops."""
        return Failpoint(self.deployment.directory / "points", self.point)

    def start(self, point: str, action: str = "wait", nth: int = 1) -> None:
        """Start everything; whoever reaches ``point`` first stops there."""
        self.point = point
        if point in HELD:
            for system in ("keyed", "unkeyed"):
                self.world.target.behave(system, HELD[point], times=1, what="act")  # type: ignore[arg-type]
        stopping = "" if point in HELD or not point else self.failpoint.process
        for name in ("intake", "worker", "clock"):
            if name == stopping:
                self.deployment.start(name, module=MODULE, arguments=self.failpoint.arguments(action, nth))
            else:
                self.deployment.start(name)

    def ask(self, sender: Sender, erasures: int = 9, accesses: int = 4) -> None:
        """Send requests."""
        self.asked += [sender.erase() for _ in range(erasures)] + [sender.access() for _ in range(accesses)]

    def await_point(self) -> int | None:
        """Until somebody is there; its process id, or ``None`` in a call."""
        if self.point in HELD:
            target = self.world.target
            eventually(lambda: target.held("keyed") or target.held("unkeyed"), "a call is held")
            return None
        return eventually(self.failpoint.reached_by, f"somebody is at {self.point}")

    def let_go(self) -> None:
        """Whoever is at the point goes on."""
        if self.point in HELD:
            for system in ("keyed", "unkeyed"):
                self.world.target.behave(system)
        else:
            self.failpoint.let_go()

    def went_on(self) -> bool:
        """Whether a settle took what it had made ready: the row of the one says the same moment as the other's."""
        return bool(self.query(_WENT_ON, settled=self.point == "onward_after_settle"))

    # What is looked at. --------------------------------------------------------------------------------------------

    def query(self, statement: str, **values: Any) -> list[Any]:
        """From the database, past the proxy."""
        runtime = self.runtime()
        try:
            return rows(runtime, statement, **values)
        finally:
            runtime.close()

    def runtime(self) -> Runtime:
        """Our own, past the proxy."""
        return Runtime(read({**self.deployment.environment, "HABEAS_DATABASE_URL": self.direct_url}), "habeas test")

    def children(self, name: str = "worker") -> list[psutil.Process]:
        """A worker's child processes."""
        return psutil.Process(self.deployment.processes[name].pid).children()

    def end(self, sender: Sender, patience: float = 60.0) -> None:
        """Everything closes, and nothing was lost or done twice."""
        await_closed(self.deployment, self.asked, patience)
        faults = verdict(self.world, self.deployment, self.asked)
        if not self.broker_lost:
            faults += heard(sender, self.asked)
        assert faults == []


def says(stage: Stage, words: str) -> None:
    """Some open request is said to wait for this; and `habeas why` says the same."""
    runtime = stage.runtime()
    systems = dict(runtime.definitions.systems)

    def found() -> str:
        with runtime.database.transaction() as tx:
            open_ = tx.execute(text("SELECT id FROM request WHERE resolution IS NULL LIMIT 3")).scalars().all()
            why = {str(id_): explain(tx, id_, systems) for id_ in open_}
        return next((id_ for id_, answer in why.items() if any(words in r.text for r in answer.reasons)), "")

    request = eventually(found, f"why says: {words}")
    runtime.close()
    eventually(lambda: words in stage.deployment.habeas("why", request).stdout, f"habeas why says: {words}")


Fault = Callable[[Stage, int | None], "contextlib.AbstractContextManager[None]"]
"""Done while somebody is held at the point (its process id, where it is known); undone when the block ends."""


# Processes. ---------------------------------------------------------------------------------------------------------


def _pids(stage: Stage, pid: int | None) -> Sequence[int]:
    return [pid] if pid is not None else [c.pid for c in stage.children()]


@contextlib.contextmanager
def child_killed(stage: Stage, pid: int | None) -> Iterator[None]:
    """SIGKILL to a worker's child; its parent makes another."""
    for one in _pids(stage, pid):
        os.kill(one, signal.SIGKILL)
    yield


@contextlib.contextmanager
def worker_killed(stage: Stage, pid: int | None) -> Iterator[None]:
    """SIGKILL to a whole worker; another is started."""
    stage.deployment.kill("worker")
    stage.deployment.start("worker")
    yield


@contextlib.contextmanager
def worker_stopped(stage: Stage, pid: int | None) -> Iterator[None]:
    """SIGSTOP past the lease, while another worker goes on; then SIGCONT: a zombie with a stale token."""
    stopped = [psutil.Process(p) for p in _pids(stage, pid)]
    for one in stopped:
        one.suspend()
    stage.deployment.start("worker-2")
    runtime = stage.runtime()
    past = "SELECT clock_timestamp() + interval '3 seconds' AS at"
    until = rows(runtime, past)[0].at
    eventually(lambda: rows(runtime, "SELECT clock_timestamp() > :until AS over", until=until)[0].over, "time passes")
    if stage.point.removeprefix("onward_") in {"after_claim", "after_call", *HELD}:
        eventually(lambda: rows(runtime, "SELECT 1 FROM audit WHERE what = 'lost' LIMIT 1"), "work is taken back")
    runtime.close()
    for one in stopped:
        one.resume()
    yield


@contextlib.contextmanager
def intake_killed(stage: Stage, pid: int | None) -> Iterator[None]:
    """SIGKILL to intake."""
    stage.deployment.kill("intake")
    stage.deployment.start("intake")
    yield


@contextlib.contextmanager
def clock_killed(stage: Stage, pid: int | None) -> Iterator[None]:
    """SIGKILL to the leading clock; a stand-by takes over."""
    stage.deployment.start("clock-2")
    stage.deployment.kill("clock")
    yield


# The broker. --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def rabbitmq_restarted(stage: Stage, pid: int | None) -> Iterator[None]:
    """The broker goes away while somebody is at the point, and comes back after it went on."""
    stage.rabbitmq.stop()
    yield
    eventually(lambda: _started(stage.rabbitmq), "RabbitMQ is back")


def _started(rabbitmq: RabbitMQ) -> bool:
    """Somebody's outgoing connection may have its port for a moment; then it can't start."""
    with contextlib.suppress(RuntimeError):
        rabbitmq.start()
        return True
    return False


@contextlib.contextmanager
def queues_deleted(stage: Stage, pid: int | None) -> Iterator[None]:
    """Every queue is purged and deleted with what was in it, once every request was taken in."""
    eventually(lambda: _admitted(stage), "every message is taken in")
    stage.rabbitmq.delete_queues(stage.vhost)
    stage.broker_lost = True
    yield


def _admitted(stage: Stage) -> bool:
    ids = [a.message_id for a in stage.asked]
    found = stage.query("SELECT count(*) AS n FROM request WHERE message_id = ANY(:ids)", ids=ids)
    return bool(found[0].n == len(ids))


# The database. ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def postgres_fast(stage: Stage, pid: int | None) -> Iterator[None]:
    """PostgreSQL restarts as an administrator would have it."""
    stage.postgres.stop()
    stage.postgres.start()
    yield


@contextlib.contextmanager
def postgres_immediate(stage: Stage, pid: int | None) -> Iterator[None]:
    """PostgreSQL dies, and recovers from its log."""
    postmaster = stage.postgres.postmaster()
    assert postmaster is not None
    os.kill(postmaster.pid, signal.SIGQUIT)
    eventually(lambda: not psutil.pid_exists(postmaster.pid), "PostgreSQL is gone")
    stage.postgres.start()
    yield


@contextlib.contextmanager
def backends_terminated(stage: Stage, pid: int | None) -> Iterator[None]:
    """Everybody's session is ended."""
    with psycopg.connect(topology.libpq(stage.direct_url), autocommit=True) as session:
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    yield


@contextlib.contextmanager
def commit_cut_before(stage: Stage, pid: int | None) -> Iterator[None]:
    """The connection is cut before the server hears the next COMMIT."""
    stage.proxy.cut_commits("before_commit")
    yield
    eventually(lambda: stage.proxy.cuts, "a COMMIT was cut")


@contextlib.contextmanager
def commit_cut_after(stage: Stage, pid: int | None) -> Iterator[None]:
    """The connection is cut after the server committed and before it could say so."""
    stage.proxy.cut_commits("after_commit")
    yield
    eventually(lambda: stage.proxy.cuts, "a COMMIT was cut")


@contextlib.contextmanager
def network_stalled(stage: Stage, pid: int | None) -> Iterator[None]:
    """Nothing gets through to the database until past the lease; a worker with a way of its own goes on."""
    stage.proxy.stall()
    stage.deployment.start("clock-2", "worker-2", database_url=stage.direct_url)
    stage.let_go()
    past = stage.query("SELECT clock_timestamp() + interval '4 seconds' AS at")[0].at
    eventually(lambda: stage.query("SELECT clock_timestamp() > :at AS over", at=past)[0].over, "time passes")
    stage.proxy.flow()
    yield
