"""The database is restored from a backup taken in the middle of a run: what can be known is told, and all ends well."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from orchestrator.embedded.account import binaries
from tests.support.deployment import Deployment, deployed, eventually, rows
from tests.support.oracle_check import await_closed, verdict
from tests.support.oracle_world import World, oracle_world

PROCESSES = ("intake", "worker", "clock")


def test_a_deployment_goes_on_from_a_backup_and_tells_what_is_done_again(
    tmp_path: Path, new_postgres_database: Callable[[], str], rabbitmq_vhost: str, reaped: Callable[[int], None]
) -> None:
    url, backup, ledger = new_postgres_database(), tmp_path / "backup", tmp_path / "ledger.jsonl"
    with (
        oracle_world(tmp_path / "oracle", reaped=reaped) as world,
        deployed(tmp_path / "deployment", settings(world, url, rabbitmq_vhost), *PROCESSES) as deployment,
        world.sender(deployment.settings) as sender,
    ):
        before = [sender.erase() for _ in range(10)] + [sender.access() for _ in range(2)]
        await_closed(deployment, before)
        world.target.behave("unkeyed", "hold_before")
        midway = [sender.erase() for _ in range(20)]
        eventually(lambda: world.target.held("unkeyed"), "a call is under way")
        eventually(lambda: known(deployment) == len(before + midway), "all are admitted")
        program("pg_dump", url, "--format=custom", f"--file={backup}")
        world.target.behave("unkeyed", "ok")
        lost = [sender.erase() for _ in range(8)]
        await_closed(deployment, before + midway + lost)
        deployment.habeas("ledger", "export", "--out", str(ledger))
        deployment.close()

        restore(url, backup)
        told = recover(deployment, "--dry-run", "--ledger", str(ledger))
        assert told["found"]["leases"] > 0
        assert told == {**recover(deployment, "--ledger", str(ledger)), "dry_run": True}
        assert {f["message_id"] for f in told["ledger"]["forgotten"]} == {a.message_id for a in lost}
        assert len(told["ledger"]["open_again"]) == len(midway)
        assert {m["system"] for m in told["found"]["maybe_done"]} >= {"unkeyed"}
        assert leases(deployment) == 0

        deployment.start(*PROCESSES)
        for one in lost:
            sender.ask(one.right, one.person, one.message_id)
        await_closed(deployment, before + midway + lost)
        assert verdict(world, deployment, before + midway + lost) == []
        assert done_twice(world) == set(), "the keys come from the messages, and those are the same"
        assert count(deployment, "SELECT count(DISTINCT request_id) AS n FROM ledger") == 10 + 20 + 2 * 8


def settings(world: World, database: str, broker: str) -> dict[str, str]:
    return {
        **world.environment,
        "HABEAS_DATABASE_URL": database,
        "HABEAS_BROKER_URL": broker,
        "HABEAS_LEASE_SECONDS": "3",
        "HABEAS_SWEEP_SECONDS": "0.3",
        "HABEAS_CLAIM_BATCH": "5",
    }


def recover(deployment: Deployment, *options: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(deployment.habeas("recover", *options, "--as", "ops", "--json").stdout)
    return told


def known(deployment: Deployment) -> int:
    return count(deployment, "SELECT count(*) AS n FROM request")


def leases(deployment: Deployment) -> int:
    return count(deployment, "SELECT count(*) AS n FROM step WHERE state = 'running' OR token IS NOT NULL")


def count(deployment: Deployment, query: str) -> int:
    runtime = deployment.runtime()
    n: int = rows(runtime, query)[0].n
    runtime.close()
    return n


def done_twice(world: World) -> set[str]:
    return {person for action, person, n in world.target.ledger()["keyed"]["effects"] if action == "erase" and n > 1}


def restore(url: str, backup: Path) -> None:
    """As an administrator does: the database is dropped, made anew, and filled from the backup."""
    where = make_url(url)
    name = sql.Identifier(str(where.database))
    admin = where.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    program("pg_restore", url, "--exit-on-error", str(backup))


def program(name: str, url: str, *arguments: str) -> None:
    target = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [str(binaries() / name), f"--dbname={target}", "--no-owner", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
