"""Faults that last: a server away for long, a leader that stands still until the database ends its session.

These take half a minute each, and are run with the whole matrix: ``HABEAS_TEST_FAULTS=all``.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

import psutil
import pytest

from tests.support.deployment import eventually
from tests.support.failpoints_stage import Stage, says
from tests.support.oracle_check import await_closed
from tests.support.servers.ports import free_ports

LONG = 11.0
"""Seconds: longer than the default lease, and than anything that hides a short outage."""
NewStage = Callable[..., Stage]


def test_a_leader_that_stands_still_is_replaced(new_stage: NewStage) -> None:
    stage = new_stage()
    stage.start("")
    with stage.world.sender(stage.deployment.settings) as sender:
        led = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'habeas leader' AND datname = current_database()"
        )
        eventually(lambda: stage.query(led), "a clock leads")
        stage.ask(sender, 3, 0)
        await_closed(stage.deployment, stage.asked)
        leader = psutil.Process(stage.deployment.processes["clock"].pid)
        leader.suspend()
        stage.deployment.start("clock-2")
        stage.ask(sender, 3, 1)
        stage.end(sender, patience=90)
        leader.resume()


@pytest.mark.parametrize("gone", ["postgres", "rabbitmq"])
def test_processes_wait_for_a_server_that_is_away_and_go_on_by_themselves(new_stage: NewStage, gone: str) -> None:
    stage = new_stage()
    ports = dict(zip(("intake", "worker", "clock"), free_ports(3), strict=True))
    for name, port in ports.items():
        stage.deployment.start(name, health_port=str(port))
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 3, 1)
        eventually(lambda: all(ready(p) for p in ports.values()), "all are ready")
        began = time.monotonic()
        (stage.postgres if gone == "postgres" else stage.rabbitmq).stop()
        eventually(lambda: not any(ready(p) for p in ports.values()), "all say that they are not ready")
        eventually(lambda: time.monotonic() - began > LONG, "it is away for long")
        word = "database.unavailable" if gone == "postgres" else "broker.unavailable"
        assert word in stage.deployment.logs()
        assert all(p.poll() is None for p in stage.deployment.processes.values()), "nobody gave up"
        (stage.postgres if gone == "postgres" else stage.rabbitmq).start()
        eventually(lambda: all(ready(p) for p in ports.values()), "all are ready again")
        stage.ask(sender, 3, 1)
        stage.end(sender)


def ready(port: int) -> bool:
    """Whether a process says so."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_why_names_a_paused_system_a_failing_one_and_an_open_breaker(new_stage: NewStage) -> None:
    retry = {"attempts": 50, "base_seconds": 5, "cap_seconds": 5}
    stage = new_stage(system={"breaker": {"failures": 8, "rest_seconds": 20}, "retry": retry})
    stage.start("")
    target = stage.world.target
    eventually(lambda: stage.query("SELECT 1 FROM connector_state WHERE system = 'keyed'"), "the systems are known")
    stage.deployment.habeas("pause", "--system", "keyed", "--reason", "maintenance")
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 5, 0)
        says(stage, "system keyed is paused")
        target.behave("keyed", "error")
        stage.deployment.habeas("resume", "--system", "keyed")
        says(stage, "the oracle answered 503")
        says(stage, "the circuit breaker of keyed opened")
        target.behave("keyed")
        stage.deployment.habeas("resume", "--system", "keyed")
        stage.end(sender)
