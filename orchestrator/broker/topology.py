"""Exchanges and queues, and how to connect; the same for RabbitMQ and for PostgreSQL as the broker (``pgmq``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from amqp.exceptions import AMQPError
from kombu import Connection, Exchange, Queue
from kombu.exceptions import KombuError
from sqlalchemy import make_url

from orchestrator.errors import ConfigurationError, Fault
from orchestrator.messages import names
from orchestrator.settings import Settings
from orchestrator.wire import transport_of

AWAY: tuple[type[Exception], ...] = (AMQPError, KombuError, psycopg.Error, OSError)
"""What the transports raise when the broker goes away."""
CONFIRM_TIMEOUT = 10.0
"""Seconds to wait for a broker's confirmation before the connection is thrown away."""
INTAKE_VISIBILITY, VISIBILITY = 30, 60
"""pgmq: seconds until a message that was read and not acknowledged is seen again."""

requests_exchange = Exchange(names.REQUESTS_EXCHANGE, type="topic", durable=True)
events_exchange = Exchange(names.EVENTS_EXCHANGE, type="topic", durable=True)
dead_exchange = Exchange(names.DEAD_EXCHANGE, type="topic", durable=True)
work_exchange = Exchange("habeas.work", type="direct", durable=True)

intake_queue = Queue(
    names.INTAKE_QUEUE,
    requests_exchange,
    routing_key=names.INTAKE_BINDING,
    durable=True,
    queue_arguments=dict(names.INTAKE_ARGUMENTS),
)
dead_queue = Queue(
    names.DEAD_QUEUE, dead_exchange, routing_key="#", durable=True, queue_arguments={"x-queue-type": "quorum"}
)


def work_queue_name(system: str) -> str:
    """The queue of a system's doorbells."""
    return f"habeas.work.{system}"


def work_queue(system: str) -> Queue:
    """A system's doorbells. Bounded: a doorbell too many says nothing that those before it don't."""
    name = work_queue_name(system)
    arguments = {"x-queue-type": "quorum", "x-max-length": 100, "x-overflow": "drop-head", "x-delivery-limit": 20}
    return Queue(name, work_exchange, routing_key=name, durable=True, queue_arguments=arguments)


def is_pgmq(settings: Settings) -> bool:
    """Whether PostgreSQL is the broker as well."""
    url = settings.broker_url.get_secret_value()
    return not url or url.startswith("pgmq")


def broker_url(settings: Settings) -> str:
    """The broker's URL for kombu and Celery. Raises ``ConfigurationError``."""
    url = settings.broker_url.get_secret_value()
    if is_pgmq(settings):
        return "pgmq://localhost"  # where it really is stands in the transport options
    if not url.startswith(("amqp://", "amqps://")):
        raise ConfigurationError("", [Fault("must be an amqp://, amqps:// or pgmq:// URL", field="HABEAS_BROKER_URL")])
    return url.replace("amqp://", "pyamqp://", 1)


def transport_options(settings: Settings, use: str = "work") -> dict[str, Any]:
    """Options of the transport; ``use``: what for, e.g. ``intake``."""
    if not is_pgmq(settings):
        return {
            "confirm_publish": True,
            "confirm_timeout": CONFIRM_TIMEOUT,
            "read_timeout": 30,
            "write_timeout": 30,
            "client_properties": {"connection_name": f"habeas {use}"},
            # Once more at once, and no more: whoever finds the broker away has other things to do meanwhile.
            "max_retries": 1,
            "interval_start": 0,
        }
    return {
        "conn_string": libpq(settings.database_url.get_secret_value()),
        "init_extension": False,
        "use_notify": True,
        "wait_time_seconds": 0,
        "polling_interval": 1.0,
        "notify_throttle_interval_ms": 50,
        "visibility_timeout": INTAKE_VISIBILITY if use == "intake" else VISIBILITY,
        "pool_size": 2,
        "pool_timeout": 10,
    }


def libpq(url: str) -> str:
    """A SQLAlchemy URL as a libpq connection string."""
    parsed = make_url(url)
    host = parsed.query.get("host", parsed.host or "")
    parts = {
        "host": host if isinstance(host, str) else host[0],
        "port": parsed.port or parsed.query.get("port", ""),
        "dbname": parsed.database,
        "user": parsed.username,
        "password": parsed.password,
    }
    quoted = ((k, str(v).replace("\\", "\\\\").replace("'", "\\'")) for k, v in parts.items() if v)
    return " ".join(f"{k}='{v}'" for k, v in quoted)


def connect(settings: Settings, use: str, heartbeat: int = 20) -> Connection:
    """A connection, not yet established. ``heartbeat``: seconds; 0 where nobody looks after it while it rests."""
    return Connection(
        broker_url(settings),
        transport=transport_of(broker_url(settings)),
        transport_options=transport_options(settings, use),
        heartbeat=0 if is_pgmq(settings) else heartbeat,
        connect_timeout=5,
    )


def declare(connection: Connection, systems: Iterable[str]) -> None:
    """Declare everything. Doing it again changes nothing."""
    with connection.channel() as channel:
        for exchange in (requests_exchange, events_exchange, dead_exchange, work_exchange):
            exchange(channel).declare()
        for queue in (dead_queue, intake_queue, *(work_queue(s) for s in sorted(systems))):
            queue(channel).declare()
