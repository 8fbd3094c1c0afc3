"""Fixtures that every test may ask for: databases and brokers, real, private and empty.

Servers start when first asked for, are shared by all workers of a run (``pytest -n 2``), and are ended by a reaper
process when the run is over, however it ended. ``HABEAS_TEST_POSTGRES_URL``, ``HABEAS_TEST_RABBITMQ_URL`` and
``HABEAS_TEST_MARIADB_URL`` name servers to use instead (RabbitMQ's needs its management API, on port 15672 of the same
host or at ``HABEAS_TEST_RABBITMQ_MANAGEMENT_URL``).
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
import pymysql
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from orchestrator.embedded import EmbeddedPostgres, install_pgmq
from tests.support.servers.mariadb import MariaDB
from tests.support.servers.rabbitmq import RabbitMQ, given_management
from tests.support.servers.reaper import Reaper, end, note, note_postgres
from tests.support.servers.shared import once

REAPER = pytest.StashKey[Reaper]()
LONGEST = (
    "tests/acceptance/soak/",
    "tests/acceptance/test_many_and_faults.py",
    "tests/acceptance/faults/",
    "tests/acceptance/",
    "tests/docs/",
    "tests/benchmarks/",
)
"""Where tests take longest, most of all first: they start first, so that a run does not end with one alone at work."""
FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
"""Test servers survive ``kill -9``, not a power cut."""


# The run as a whole. ---------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        note(Path(worker["servers"]), os.getpid())
        return
    config.stash[REAPER] = Reaper()
    # Every process that a test starts inherits it: so the reaper knows them all as this run's.
    os.environ["TEST_RUN_SERVERS"] = str(config.stash[REAPER].folder)

    def terminate(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"signal {number}")

    signal.signal(signal.SIGTERM, terminate)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where the run's servers live."""
    node.workerinput["servers"] = str(node.config.stash[REAPER].folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: next((n for n, place in enumerate(LONGEST) if item.nodeid.startswith(place)), len(LONGEST))
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    reaper = config.stash.get(REAPER, None)
    if reaper is not None:
        reaper.close()


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Path:
    """The folder of this run's servers; what is noted in it ends with the run."""
    given = getattr(pytestconfig, "workerinput", {}).get("servers")
    return Path(given) if given else pytestconfig.stash[REAPER].folder


@pytest.fixture(scope="session")
def reaped(servers: Path) -> Callable[[int], None]:
    """``reaped(pid)``: have a process that a test started ended with the run, should the test not do so itself."""
    return lambda pid: note(servers, pid)


@pytest.fixture(scope="session")
def reaped_postgres(servers: Path) -> Callable[[Path], None]:
    """``reaped_postgres(directory)``: the same for an embedded PostgreSQL that a tested process may start there."""
    return lambda directory: note_postgres(servers, directory / "data")


# PostgreSQL. -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server(servers: Path) -> str:
    """URL of the run's PostgreSQL, of a database that nobody writes to; its user may create databases."""
    given = os.environ.get("HABEAS_TEST_POSTGRES_URL")
    if given:
        return make_url(given).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

    def start(folder: Path) -> dict[str, str]:
        note_postgres(servers, folder / "data")
        server = EmbeddedPostgres(folder, settings=FAST)
        server.start()
        return {"url": server.url}

    return once(servers, "pg", start)["url"]


@pytest.fixture
def new_postgres_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    """``new_postgres_database()``: URL of one more fresh, empty database; for tests that need several."""
    made: list[str] = []

    def create() -> str:
        name = f"t{secrets.token_hex(6)}"
        with _postgres(postgres_server) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made.append(name)
        return make_url(postgres_server).set(database=name).render_as_string(hide_password=False)

    yield create
    with _postgres(postgres_server) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_database(new_postgres_database: Callable[[], str]) -> str:
    """``postgresql+psycopg://`` URL of a fresh, empty PostgreSQL database, dropped afterwards."""
    return new_postgres_database()


@pytest.fixture
def pgmq_database(postgres_database: str) -> str:
    """The same, with PGMQ's SQL installed: fit to be the embedded broker."""
    install_pgmq(postgres_database)
    return postgres_database


@pytest.fixture
def own_postgres(servers: Path) -> Iterator[Callable[[], EmbeddedPostgres]]:
    """``own_postgres()``: a PostgreSQL for this test alone, started; it may be stopped, killed and started again."""
    made: list[EmbeddedPostgres] = []

    def create() -> EmbeddedPostgres:
        server = EmbeddedPostgres(servers / f"pg-{secrets.token_hex(3)}", settings=FAST)
        note_postgres(servers, server.data)
        made.append(server)
        server.start()
        return server

    yield create
    for server in made:
        postmaster = server.postmaster()
        if postmaster is not None:
            end(postmaster.pid)


def _postgres(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True, connect_timeout=10)


# RabbitMQ. -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rabbitmq_server(servers: Path) -> RabbitMQ:
    """The run's own RabbitMQ, shared: do not stop it, ask for ``own_rabbitmq`` instead."""
    folder = Path(
        once(servers, "mq", lambda folder: {"folder": str(RabbitMQ(folder, servers).start().folder)})["folder"]
    )
    return RabbitMQ(folder, servers)


@pytest.fixture
def rabbitmq_vhost(request: pytest.FixtureRequest) -> Iterator[str]:
    """``amqp://`` URL of a fresh vhost, with every right in it; deleted afterwards."""
    given = os.environ.get("HABEAS_TEST_RABBITMQ_URL")
    name = f"t{secrets.token_hex(6)}"
    if given:
        management, url = given_management(given), make_url(given).set(database=name)
        management.add_vhost(name)
        yield url.render_as_string(hide_password=False)
    else:
        server: RabbitMQ = request.getfixturevalue("rabbitmq_server")
        management = server.management
        yield server.add_vhost(name)
    management.delete_vhost(name)


@pytest.fixture
def own_rabbitmq(servers: Path) -> Iterator[Callable[[], RabbitMQ]]:
    """``own_rabbitmq()``: a RabbitMQ for this test alone, started; ``.stop()``, ``.kill()`` and ``.restart()`` it."""
    made: list[RabbitMQ] = []

    def create() -> RabbitMQ:
        server = RabbitMQ(servers / f"mq-{secrets.token_hex(3)}", servers)
        made.append(server)
        return server.start()

    yield create
    for server in made:
        server.remove()


# MariaDB. --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mariadb_server(servers: Path) -> str:
    """URL of the run's MariaDB; its user may create databases."""
    given = os.environ.get("HABEAS_TEST_MARIADB_URL")
    if given:
        return make_url(given).set(drivername="mysql+pymysql").render_as_string(hide_password=False)
    return once(servers, "my", lambda folder: {"url": MariaDB(folder, servers).start().url_of()})["url"]


@pytest.fixture
def mariadb_database(mariadb_server: str) -> Iterator[str]:
    """``mysql+pymysql://`` URL of a fresh, empty MariaDB database, dropped afterwards."""
    name = f"t{secrets.token_hex(6)}"
    _mariadb(mariadb_server, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield make_url(mariadb_server).set(database=name).render_as_string(hide_password=False)
    _mariadb(mariadb_server, f"DROP DATABASE {name}")


def _mariadb(url: str, statement: str) -> None:
    where = make_url(url)
    connection = pymysql.connect(
        host=where.host, port=where.port or 3306, user=where.username, password=where.password or ""
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
