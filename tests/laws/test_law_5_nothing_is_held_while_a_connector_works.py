"""Law 5: no transaction is open, and no delivery unacknowledged, while a connector works. Long waits hold no worker."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from celery.worker import state
from kombu import Connection

from connectors.contract import Pending, Task
from orchestrator.broker import tasks, topology
from orchestrator.broker.bell import BrokerBell
from orchestrator.broker.celery_app import RING, make_app
from tests.support.deployment import eventually
from tests.support.scripted import Scripted, system
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.worlds import ONE_STEP, MakeWorld, delivery

OPEN = """
SELECT pid, state, query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND (xact_start IS NOT NULL OR state <> 'idle')
    AND backend_type = 'client backend'"""
LOCKED = """
SELECT locktype, mode FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND l.pid <> pg_backend_pid()"""


def test_while_a_connector_works_no_transaction_is_open_and_nothing_is_locked(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(5)))
    world.admit(*(delivery("access", f"q{n}@example.org") for n in range(5)))
    seen: list[object] = []
    other = world.another()

    def look(_: Sequence[Task]) -> None:
        with other.database.transaction() as tx:
            seen.append((tx.exec_driver_sql(OPEN).all(), tx.exec_driver_sql(LOCKED).all()))

    world.connector("crm").during = look
    world.work()
    other.close()
    assert len(seen) >= 3
    assert all(what == ([], []) for what in seen)


def test_a_parked_step_holds_no_worker_no_lease_and_no_connection(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", Pending({"job": 1}, timedelta(days=13), "the vendor"))
    world.ask("erasure", "ada@example.org")
    assert world.runtime.execute.work("crm").claimed == 1
    assert world.runtime.execute.work("crm").claimed == 0
    [row] = world.rows("SELECT * FROM step")
    assert (row.state, row.token, row.lease_until) == ("parked", None, None)
    assert not world.runtime.heartbeat._held


def test_the_doorbell_is_acknowledged_before_the_work_begins(
    make_world: MakeWorld, rabbitmq_vhost: str, rabbitmq_server: RabbitMQ, tmp_path: Path
) -> None:
    """With a real Celery worker: its queue has nothing unacknowledged while the connector is at work."""
    world = make_world(system("crm"), workflows=[ONE_STEP], broker_url=rabbitmq_vhost)
    runtime = world.runtime
    app = make_app(runtime.settings, runtime.definitions.systems)
    bell = BrokerBell(runtime.settings)
    tasks.register(app, runtime, bell)
    with topology.connect(runtime.settings, "test") as connection:
        topology.declare(connection, runtime.definitions.systems)
    working, go_on = threading.Event(), threading.Event()
    connector = world.connector("crm")
    assert isinstance(connector, Scripted)

    def hold(_: Sequence[Task]) -> None:
        working.set()
        assert go_on.wait(60)

    connector.during = hold
    world.ask("erasure", "ada@example.org")
    worker = app.Worker(pool="threads", concurrency=1, queues=[topology.work_queue_name("crm")], loglevel="ERROR")
    thread = threading.Thread(target=worker.start, daemon=True)
    thread.start()
    try:
        bell.ring({"crm": 1})
        assert working.wait(60)
        assert app.conf.task_acks_late is False
        with Connection(rabbitmq_vhost) as connection, contextlib.closing(connection.channel()) as channel:
            # With the worker's own consumer gone nothing may come back to the queue.
            queue = topology.work_queue("crm")(channel)
            assert queue.queue_declare(passive=True).message_count == 0
        vhost = rabbitmq_vhost.rsplit("/", 1)[1]
        eventually(lambda: unacknowledged(rabbitmq_server, vhost) == 0, "the doorbell is acknowledged", 20)
        assert not go_on.is_set()
    finally:
        go_on.set()
        eventually(lambda: world.rows("SELECT 1 FROM step WHERE state = 'done'"), "the step ends", 20)
        state.should_stop = 0  # stopped by its own thread: the driver's connections are for one thread each
        thread.join(20)
        state.should_stop = None
    assert RING in app.tasks


def unacknowledged(server: RabbitMQ, vhost: str) -> int:
    name = topology.work_queue_name("crm")
    words = server.ctl("list_queues", "-p", vhost, "name", "messages_unacknowledged", "--quiet").split()
    return int(words[words.index(name) + 1])
