"""Servers that the tests in this folder may stop, kill and cut off, and a stage on them for each test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from orchestrator.embedded import EmbeddedPostgres
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from tests.support.deployment import Deployment
from tests.support.failpoints_stage import Stage
from tests.support.oracle_world import oracle_world
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.reaper import end, note_postgres
from tests.support.tcp_proxy import proxy

FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "200"}
"""The server is killed here, the machine is not."""
collect_ignore = [] if os.environ.get("HABEAS_TEST_FAULTS") == "all" else ["test_fault_long.py"]
QUICK = {"HABEAS_LEASE_SECONDS": "2", "HABEAS_SWEEP_SECONDS": "0.3"}
"""So that a case takes seconds."""


@pytest.fixture(scope="module")
def frail_postgres(servers: Path) -> Iterator[EmbeddedPostgres]:
    """One for the tests of a file, each in a database of its own."""
    server = EmbeddedPostgres(servers / f"pg-{secrets.token_hex(3)}", settings=FAST)
    note_postgres(servers, server.data)
    server.start()
    yield server
    postmaster = server.postmaster()
    if postmaster is not None:
        end(postmaster.pid)


@pytest.fixture(scope="module")
def frail_rabbitmq(servers: Path) -> Iterator[RabbitMQ]:
    """One for the tests of a file, each in a vhost of its own."""
    server = RabbitMQ(servers / f"mq-{secrets.token_hex(3)}", servers)
    yield server.start()
    server.remove()


def _copied(server: EmbeddedPostgres) -> str:
    """A fresh, migrated database: a copy of one that is migrated once."""
    name = f"t{secrets.token_hex(6)}"
    url = server.url_of("postgres").replace("+psycopg", "", 1)
    with psycopg.connect(url, autocommit=True) as session:
        if not session.execute("SELECT 1 FROM pg_database WHERE datname = 'migrated'").fetchone():
            database = Database(server.create_database("migrated"))
            upgrade(database)
            database.close()
        session.execute(sql.SQL("CREATE DATABASE {} TEMPLATE migrated").format(sql.Identifier(name)))
    return name


@pytest.fixture
def new_stage(
    tmp_path: Path, frail_postgres: EmbeddedPostgres, frail_rabbitmq: RabbitMQ, reaped: Callable[[int], None]
) -> Iterator[Callable[..., Stage]]:
    """``new_stage(system, oracle, **settings)``: a migrated deployment behind a proxy, not yet started.

    ``system``: over the systems' entries; ``oracle``: over their connector's settings.
    """
    frail_postgres.start()
    frail_rabbitmq.start()
    with ExitStack() as stack:

        def create(
            system: Mapping[str, Any] | None = None, oracle: Mapping[str, Any] | None = None, **settings: str
        ) -> Stage:
            url = frail_postgres.url_of(_copied(frail_postgres))
            vhost = f"f{secrets.token_hex(6)}"
            broker = frail_rabbitmq.add_vhost(vhost)
            stack.callback(lambda: frail_rabbitmq.start().delete_vhost(vhost))
            between = stack.enter_context(proxy(make_url(url).port or 5432))
            through = make_url(url).set(port=between.port).render_as_string(hide_password=False)
            world = stack.enter_context(
                oracle_world(
                    tmp_path / "oracle", reaped=reaped, system={"batch": 5, **(system or {})}, **(oracle or {})
                )
            )
            environment = {
                **world.environment,
                **QUICK,
                "HABEAS_DATABASE_URL": through,
                "HABEAS_BROKER_URL": broker,
                **{f"HABEAS_{name.upper()}": value for name, value in settings.items()},
            }
            deployment = Deployment(tmp_path / "deployment", environment)
            stack.callback(deployment.close)
            return Stage(deployment, world, frail_rabbitmq, vhost, frail_postgres, between, url)

        yield create


@pytest.fixture
def stage(new_stage: Callable[..., Stage]) -> Stage:
    """A stage with quick settings."""
    return new_stage()
