"""``habeas intake``, ``habeas worker``, ``habeas clock``: the processes of a deployment."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import click

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.broker.bell import BrokerBell
from orchestrator.broker.celery_app import make_app
from orchestrator.broker.clock import Clock
from orchestrator.broker.consumer import IntakeConsumer
from orchestrator.broker.relay import Relay
from orchestrator.broker.tasks import register
from orchestrator.broker.worker import PAUSE
from orchestrator.cli.engine import runtime_for
from orchestrator.cli.probe import Probe
from orchestrator.runtime import Runtime
from orchestrator.web.health import Health, serve
from orchestrator.web.metrics import Metrics

_log = logs.get("process")


def _start(runtime: Runtime, name: str) -> tuple[Health, threading.Event]:
    """Log set-up, health endpoint, and an event that SIGTERM and SIGINT set."""
    settings = runtime.settings
    logs.configure(settings.log_format, settings.log_level)
    health = Health()
    metrics = Metrics(runtime.database, settings)
    serve(health, metrics.render, settings.health_host, settings.health_port)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        _log.info("process.stopping", process=name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    Probe(runtime, health).start()
    _log.info("process.started", process=name)
    return health, stop


@click.command()
def intake() -> None:
    """Take rights requests off the queue: validate, plan, store."""
    run_intake(runtime_for("habeas intake"))


def run_intake(runtime: Runtime) -> None:
    """The intake process, until a signal ends it."""
    runtime.definitions, runtime.sources  # noqa: B018 - faults are told before anything begins
    health, stop = _start(runtime, "intake")
    bell = BrokerBell(runtime.settings)
    runtime.collect_less()
    IntakeConsumer(runtime, bell, stop, health.turn).run()
    runtime.close()
    _log.info("process.stopped", process="intake")


@click.command()
def clock() -> None:
    """Sweep (timers, lost work, deadlines, purges) and publish events; one of them leads."""
    runtime = runtime_for("habeas clock")
    run_clock(runtime, Relay(runtime.settings, runtime.database))


def run_clock(runtime: Runtime, relay: Relay) -> None:
    """The clock process, until a signal ends it."""
    runtime.definitions  # noqa: B018 - faults are told before anything begins
    health, stop = _start(runtime, "clock")
    bell = BrokerBell(runtime.settings)
    runtime.collect_less()
    Clock(runtime, relay, bell, stop, health.turn).run()
    runtime.close()
    _log.info("process.stopped", process="clock")


@click.command()
@click.option("-Q", "--queues", "systems", default="", help="Only these systems, separated by commas; default: all.")
@click.option("-c", "--processes", type=int, default=None, help="Child processes; default: HABEAS_WORKER_PROCESSES.")
def worker(systems: str, processes: int | None) -> None:
    """Work on systems: claim, call the connector, settle."""
    runtime = runtime_for("habeas worker")
    run_worker(runtime, [s.strip() for s in systems.split(",") if s.strip()], processes)


def run_worker(runtime: Runtime, systems: Sequence[str], processes: int | None) -> None:
    """The worker process, until a signal ends it. ``systems``: only these; none: all."""
    known = runtime.definitions.systems
    chosen = list(systems) or sorted(known)
    unknown = sorted(set(chosen) - known.keys())
    if unknown:
        raise click.BadParameter(f"there is no system {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    settings = runtime.settings
    logs.configure(settings.log_format, settings.log_level)
    app = make_app(settings, chosen)
    register(app, runtime, BrokerBell(settings))
    health = Health()
    serve(health, Metrics(runtime.database, settings).render, settings.health_host, settings.health_port)
    _declare(runtime, health)
    _run_worker(app, runtime, health, processes or settings.worker_processes)


def _declare(runtime: Runtime, health: Health) -> None:
    """Declare the queues, when the broker answers."""
    while True:
        try:
            with topology.connect(runtime.settings, "worker") as connection:
                topology.declare(connection, runtime.definitions.systems)
        except topology.AWAY as error:
            health.report("broker", well=False)
            _log.warning("broker.unavailable", error=type(error).__name__)
            time.sleep(PAUSE)
        else:
            return


def _run_worker(app: Any, runtime: Runtime, health: Health, processes: int) -> None:
    from celery import signals  # noqa: PLC0415 - only this process needs it

    @signals.worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def forked(**_: Any) -> None:
        runtime.after_fork()

    probe = Probe(runtime, health, health.turn)

    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def ready(**_: Any) -> None:
        probe.start()
        _log.info("process.started", process="worker")

    running = app.Worker(
        hostname="habeas@%h",
        pool="prefork",
        concurrency=processes,
        loglevel="WARNING",
        without_heartbeat=True,
        without_gossip=True,
        without_mingle=True,
        optimization="fair",
        quiet=True,
    )

    @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def stopping(**_: Any) -> None:
        _log.info("process.stopping", process="worker")
        _cut_short_after(runtime.settings.grace_seconds, running)

    running.start()
    _log.info("process.stopped", process="worker")
    raise SystemExit(running.exitcode or 0)


def _cut_short_after(seconds: float, running: Any) -> None:
    """End the worker the hard way if its batches take longer than the grace time.

    What is unfinished is taken back when its lease runs out; a result that comes too late is fenced.
    """

    def cut_short() -> None:
        _log.warning("process.cut_short", process="worker", seconds=seconds)
        for child in running.pool._pool._pool:  # noqa: SLF001 - Celery has no public list of its children
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        os._exit(1)

    timer = threading.Timer(seconds, cut_short)
    timer.daemon = True
    timer.start()
