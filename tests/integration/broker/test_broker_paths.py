"""Messages in, events out and doorbells, on both brokers with the same code."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import amqp
import pytest
from kombu import Connection, Consumer, Queue

from orchestrator.broker import relay as relay_module
from orchestrator.broker import tasks, topology
from orchestrator.broker.bell import BrokerBell
from orchestrator.broker.consumer import IntakeConsumer
from orchestrator.broker.relay import Relay
from orchestrator.confirms import NotConfirmed
from orchestrator.embedded import install_pgmq
from orchestrator.errors import Unavailable
from orchestrator.messages import names
from orchestrator.stages.intake import Intake
from orchestrator.store import outbox
from tests.support.deployment import eventually
from tests.support.scripted import system
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.worlds import ONE_STEP, MakeWorld, World, counts, delivery


@dataclass
class Broker:
    """A world with one of the brokers."""

    world: World
    kind: str

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        with topology.connect(self.world.settings, "intake") as connection:
            yield connection

    def publish(self, *messages: tuple[bytes, str], reply_to: str = "") -> None:
        """Bodies with their routing keys, as an upstream service sends them."""
        with self.connected() as connection:
            topology.declare(connection, ())  # pgmq's transport knows an exchange once it is declared on the connection
            producer = connection.Producer()
            for body, key in messages:
                producer.publish(
                    body.decode("utf-8", "replace"),
                    exchange=names.REQUESTS_EXCHANGE,
                    routing_key=key,
                    content_type="application/cloudevents+json",
                    content_encoding="utf-8",
                    reply_to=reply_to or None,
                )

    def listener(self, name: str, binding: str = "#", **arguments: Any) -> None:
        """A queue bound to the events."""
        with self.connected() as connection:
            queue = Queue(name, topology.events_exchange, routing_key=binding, queue_arguments=arguments or None)
            queue(connection.default_channel).declare()

    def waiting(self, queue: str) -> int:
        """How many messages lie in a queue."""
        with self.connected() as connection:
            declared = connection.default_channel.queue_declare(queue, passive=True)
            return int(declared.message_count)

    def take(self, name: str) -> list[Any]:
        """Everything that lies in a queue, taken out."""
        found = []
        with self.connected() as connection:
            queue = Queue(name, no_declare=True)(connection.default_channel)
            while (message := queue.get()) is not None:
                message.ack()
                found.append(message)
        return found

    @property
    def bell(self) -> BrokerBell:
        return BrokerBell(self.world.settings)


@pytest.fixture(params=["rabbitmq", "pgmq"])
def broker(request: pytest.FixtureRequest, make_world: MakeWorld) -> Broker:
    url = request.getfixturevalue("rabbitmq_vhost") if request.param == "rabbitmq" else ""
    world = make_world(system("crm", batch=2), workflows=[ONE_STEP], broker_url=url)
    if request.param == "pgmq":
        install_pgmq(world.settings.database_url.get_secret_value())
    made = Broker(world, request.param)
    with made.connected() as connection:
        topology.declare(connection, world.runtime.definitions.systems)
    return made


@contextmanager
def consuming(broker: Broker) -> Iterator[None]:
    """An intake process at work."""
    stop = threading.Event()
    consumer = IntakeConsumer(broker.world.runtime, broker.bell, stop, lambda: None)
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_processes_may_declare_at_the_same_moment(broker: Broker) -> None:
    """Each does when it connects, and several connect at once when a server comes back."""
    together = threading.Barrier(6)

    def declare(_: int) -> None:
        with broker.connected() as connection:
            connection.connect()
            together.wait(20)
            for _round in range(5):
                topology.declare(connection, broker.world.runtime.definitions.systems)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(declare, range(6)))  # raises what any of them raised
    broker.publish((delivery("erasure", "a@example.org").body, "erasure"))
    with consuming(broker):
        eventually(lambda: broker.world.one("SELECT count(*) FROM request") == 1, "the request", 20)


# In. -----------------------------------------------------------------------------------------------------------------


def test_messages_are_admitted_and_acknowledged_and_the_doorbell_rings(broker: Broker) -> None:
    broker.publish(*((delivery("erasure", f"p{n}@example.org").body, "erasure") for n in range(5)))
    broker.publish((b"{nonsense", "erasure"))
    with consuming(broker):
        eventually(lambda: broker.world.one("SELECT count(*) FROM request") == 5, "five requests", 20)
        eventually(lambda: broker.world.one("SELECT count(*) FROM quarantine") == 1, "one refusal", 20)
        eventually(lambda: broker.waiting(topology.work_queue_name("crm")) >= 1, "the doorbell", 20)
    assert broker.waiting(names.INTAKE_QUEUE) == 0


@pytest.mark.parametrize("others", [0, 50])
def test_properties_that_are_no_text_are_refused_and_stop_neither_intake_nor_anybody_else(
    rabbitmq_vhost: str, make_world: MakeWorld, others: int
) -> None:
    broker = Broker(make_world(system("crm"), workflows=[ONE_STEP], broker_url=rabbitmq_vhost), "rabbitmq")
    good = delivery("erasure", "ada@example.org").body, delivery("erasure", "bob@example.org").body
    kind = "application/cloudevents+json"
    with broker.connected() as connection:
        topology.declare(connection, ())
        channel = connection.channel()
        messages = [
            (amqp.Message(good[0], content_type=kind), b"\xff"),  # its way there says nothing about it
            (amqp.Message(good[1], content_type=kind, reply_to=b"\xff"), "erasure"),
            (amqp.Message(b"", content_type=kind, correlation_id=b"\xc3("), "erasure"),
        ]
        for message, key in messages:
            channel.basic_publish_confirm(message, names.REQUESTS_EXCHANGE, key)
    if others:
        broker.publish(*((delivery("erasure", f"p{n}@example.org").body, "erasure") for n in range(others)))
    with consuming(broker):
        eventually(lambda: broker.world.one("SELECT count(*) FROM quarantine") == 2, "two refusals", 20)
        eventually(lambda: broker.world.one("SELECT count(*) FROM request") == 1 + others, "the others", 20)
    assert broker.waiting(names.INTAKE_QUEUE) == 0


def test_a_message_is_acknowledged_only_after_the_commit(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    admit = Intake.admit
    tries: list[int] = []

    def at_first_away(self: Intake, deliveries: Any) -> Any:
        tries.append(len(deliveries))
        if len(tries) == 1:
            raise Unavailable
        return admit(self, deliveries)

    if broker.kind == "pgmq":
        monkeypatch.setattr(topology, "INTAKE_VISIBILITY", 1)
    monkeypatch.setattr(Intake, "admit", at_first_away)
    broker.publish((delivery("erasure", "ada@example.org").body, "erasure"))
    with consuming(broker):
        eventually(lambda: broker.world.one("SELECT count(*) FROM request") == 1, "the request", 40)
    assert len(tries) >= 2
    assert broker.waiting(names.INTAKE_QUEUE) == 0


def test_messages_that_wait_are_taken_at_the_first_attempt(rabbitmq_vhost: str, make_world: MakeWorld) -> None:
    broker = Broker(make_world(system("crm"), workflows=[ONE_STEP], broker_url=rabbitmq_vhost), "rabbitmq")
    with broker.connected() as connection:
        topology.declare(connection, ())
    broker.publish(*((b"{}", "erasure") for _ in range(100)))
    for _ in range(5):
        came: list[Any] = []
        with broker.connected() as connection:
            channel = connection.channel()
            consumer = Consumer(channel, [topology.intake_queue], on_message=came.append, accept=None)
            consumer.qos(prefetch_count=200)
            with consumer:
                while len(came) < 100:
                    connection.drain_events(timeout=10)
                # The broker puts what it gives again last, or tells that it was given before.
                assert not any(m.delivery_info["redelivered"] for m in came)
                for message in came:
                    message.ack()
        broker.publish(*((b"{}", "erasure") for _ in range(100)))


def test_where_the_answers_go_comes_in_with_the_message(broker: Broker) -> None:
    broker.publish((delivery("erasure", "ada@example.org", message_id="m1").body, "erasure"), reply_to="answers")
    with consuming(broker):
        eventually(lambda: broker.world.one("SELECT count(*) FROM request") == 1, "the request", 20)
    assert broker.world.one("SELECT reply_to FROM request") == "answers"


def event(message: Any) -> dict[str, Any]:
    """The CloudEvent in a message."""
    found: dict[str, Any] = json.loads(message.body)
    return found


# Out. ----------------------------------------------------------------------------------------------------------------


def relay(broker: Broker) -> Relay:
    return Relay(broker.world.settings, broker.world.runtime.database)


def test_events_are_published_with_a_copy_for_the_sender_and_noted_as_published(broker: Broker) -> None:
    world = broker.world
    broker.listener("audience")
    broker.listener("erasures", "erasure.*")
    with broker.connected() as connection:
        Queue("answers", queue_arguments={"x-queue-type": "quorum"})(connection.default_channel).declare()
    world.ask("access", "bob@example.org")
    request = world.ask("erasure", "ada@example.org", reply_to="answers", correlation_id="c-1")
    world.work()
    sender = relay(broker)
    written = world.rows("SELECT id, CAST(xmin AS text) FROM outbox ORDER BY id")
    told = len(written)
    assert sender.publish() == told
    assert sender.publish() == 0
    sender.close()
    assert world.one("SELECT count(*) FROM unpublished") == 0
    assert world.rows("SELECT id, CAST(xmin AS text) FROM outbox ORDER BY id") == written, "no event is written twice"
    stored = {str(r.event_id) for r in world.rows("SELECT event_id FROM outbox WHERE request_id = :r", r=request)}
    for queue, wanted in (("audience", told), ("erasures", 2), ("answers", 2)):
        messages = broker.take(queue)
        assert len(messages) == wanted, queue
        if queue == "answers":
            assert {m.properties["correlation_id"] for m in messages} == {"c-1"}
            assert {event(m)["id"] for m in messages} == stored
            assert {event(m)["data"]["request_id"] for m in messages} == {str(request)}


def test_a_reply_queue_that_is_gone_holds_nobody_up(broker: Broker) -> None:
    world = broker.world
    broker.listener("audience")
    world.ask("erasure", "ada@example.org", reply_to="gone")
    world.ask("erasure", "bob@example.org")
    sender = relay(broker)
    assert sender.publish() == 2
    assert len(broker.take("audience")) == 2
    world.ask("erasure", "eve@example.org", reply_to="gone")
    assert sender.publish() == 1
    sender.close()


def test_a_long_id_in_letters_of_two_bytes_holds_nobody_up(broker: Broker) -> None:
    """It has the 255 characters that an id may have, and more bytes than a property of AMQP."""
    world = broker.world
    broker.listener("audience")
    world.ask("erasure", "ada@example.org", message_id="é" * 255)
    world.ask("erasure", "bob@example.org")
    sender = relay(broker)
    assert sender.publish() == 2
    sender.close()
    assert [event(m)["correlationid"][:1] for m in broker.take("audience")][:1] == ["é"]


def test_an_event_whose_publication_was_not_noted_goes_out_again_under_its_own_id(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = broker.world
    broker.listener("audience")
    world.ask("erasure", "ada@example.org")
    sender = relay(broker)
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_PUBLISHED", "SELECT 1 / 0, %(ids)s")
        with pytest.raises(Exception, match="division by zero"):
            sender.publish()
    assert sender.publish() == 1
    sender.close()
    ids = Counter(event(m)["id"] for m in broker.take("audience"))
    assert list(ids.values()) == [2]


def test_an_event_that_the_broker_refuses_stays_in_the_outbox_until_it_is_taken(
    make_world: MakeWorld, rabbitmq_vhost: str
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP], broker_url=rabbitmq_vhost)
    broker = Broker(world, "rabbitmq")
    with broker.connected() as connection:
        topology.declare(connection, ())
    broker.listener("full", **{"x-queue-type": "classic", "x-max-length": 0, "x-overflow": "reject-publish"})
    broker.listener("audience", **{"x-queue-type": "quorum"})
    world.ask("erasure", "ada@example.org")
    sender = relay(broker)
    with pytest.raises(NotConfirmed):
        sender.publish()
    assert world.rows("SELECT id FROM unpublished") == world.rows("SELECT id FROM outbox")
    with broker.connected() as connection:
        connection.default_channel.queue_delete("full")
    assert sender.publish() == 1
    sender.close()
    assert len({event(m)["id"] for m in broker.take("audience")}) == 1


def test_more_events_than_a_window_holds_all_go_out_once(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "WINDOW", 4)
    broker.listener("audience")
    broker.world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(11)))
    sender = relay(broker)
    assert sender.publish() == 11
    sender.close()
    assert len({event(m)["id"] for m in broker.take("audience")}) == 11


# Doorbells. ----------------------------------------------------------------------------------------------------------


def test_lost_doorbells_are_rung_again_by_the_sweep(broker: Broker) -> None:
    world, queue = broker.world, topology.work_queue_name("crm")
    broker.bell.ring(world.admit(delivery("erasure", "ada@example.org")).advanced.rings)
    eventually(lambda: broker.waiting(queue) == 1, "the doorbell", 20)
    broker.take(queue)
    assert broker.waiting(queue) == 0
    broker.bell.ring(world.tick().rings)
    eventually(lambda: broker.waiting(queue) == 1, "the doorbell again", 20)


def test_what_a_batch_makes_ready_is_begun_by_the_process_that_serves_it_and_rung_for_elsewhere(
    rabbitmq_vhost: str, make_world: MakeWorld
) -> None:
    world = make_world(system("crm", discovers=["user_id"]), broker_url=rabbitmq_vhost)
    broker = Broker(world, "rabbitmq")
    with broker.connected() as connection:
        topology.declare(connection, world.runtime.definitions.systems)
    request = world.ask("erasure", "ada@example.org")
    tasks.answer(world.runtime, broker.bell, "crm", served=())
    assert world.states(request)["discover@crm"] == "done"
    assert world.resolution(request) is None
    assert broker.waiting("habeas.work.crm") == 1
    tasks.answer(world.runtime, broker.bell, "crm", served={"crm"})
    assert world.resolution(request) == "completed", "erased, and looked for, without another doorbell"
    assert broker.waiting("habeas.work.crm") == 1


def test_a_doorbell_is_answered_until_nothing_is_left(broker: Broker) -> None:
    world = broker.world
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(7)))
    tasks.answer(world.runtime, broker.bell, "crm")
    assert counts(world.rows("SELECT state FROM step")) == {"done": 7}
    assert broker.waiting(topology.work_queue_name("crm")) >= 1  # full batches rang for colleagues


def test_one_doorbell_brings_all_back_that_lost_their_worker(broker: Broker) -> None:
    world = broker.world
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(5)))
    world.rows("UPDATE step SET crashes = 1")
    tasks.answer(world.runtime, broker.bell, "crm")
    assert counts(world.rows("SELECT state FROM step")) == {"done": 5}


def test_a_doorbell_of_a_system_that_is_not_configured_is_passed_over(broker: Broker) -> None:
    request = broker.world.ask("erasure", "ada@example.org")
    tasks.answer(broker.world.runtime, broker.bell, "nowhere")
    assert set(broker.world.states(request).values()) == {"ready"}


def test_a_bell_without_a_broker_is_no_error(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP], broker_url="amqp://127.0.0.1:1//")
    world.ask("erasure", "ada@example.org")
    BrokerBell(world.settings).ring(Counter({"crm": 1}))
    assert world.tick().rings == {"crm": 1}, "the sweep rings again"


def test_a_bell_whose_connection_was_cut_while_nobody_rang_rings_all_the_same(
    make_world: MakeWorld, rabbitmq_vhost: str, rabbitmq_server: RabbitMQ
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP], broker_url=rabbitmq_vhost)
    bell, broker = BrokerBell(world.settings), Broker(world, "rabbitmq")
    bell.ring({"crm": 1})
    for one in connections(rabbitmq_server, rabbitmq_vhost, "habeas bell"):
        rabbitmq_server.management.call("DELETE", f"connections/{quote(one['name'])}")
    bell.ring({"crm": 1})
    bell.close()
    assert len(broker.take("habeas.work.crm")) == 2


def test_the_broker_does_not_end_connections_that_rest_between_two_events(
    make_world: MakeWorld, rabbitmq_vhost: str, rabbitmq_server: RabbitMQ
) -> None:
    """Nobody sends heartbeats there: with any agreed on, the first event after a quiet minute came a second late."""
    world = make_world(system("crm"), workflows=[ONE_STEP], broker_url=rabbitmq_vhost)
    broker = Broker(world, "rabbitmq")
    bell, sender = broker.bell, relay(broker)
    bell.ring(world.admit(delivery("erasure", "ada@example.org")).advanced.rings)
    assert sender.publish() == 1
    resting = [
        one["timeout"]
        for use in ("relay", "bell")
        for one in connections(rabbitmq_server, rabbitmq_vhost, f"habeas {use}")
    ]
    assert len(resting) >= 2
    assert set(resting) == {0}
    sender.close()
    bell.close()


def connections(server: RabbitMQ, vhost_url: str, name: str) -> list[Any]:
    """Those of a name to a vhost, as the broker tells of them; it takes a few seconds to."""
    path = f"vhosts/{vhost_url.rsplit('/', 1)[1]}/connections"

    def found() -> list[Any]:
        ours = [one for one in server.management.call("GET", path) if "timeout" in one]
        return [one for one in ours if one["client_properties"].get("connection_name") == name]

    return eventually(found, f"a connection {name!r}")


# Queues. -------------------------------------------------------------------------------------------------------------


def test_every_queue_on_rabbitmq_is_a_quorum_queue_with_a_limit(
    make_world: MakeWorld, rabbitmq_vhost: str, rabbitmq_server: RabbitMQ
) -> None:
    world = make_world(system("crm"), broker_url=rabbitmq_vhost)
    for _ in range(2):  # declaring again changes nothing
        with topology.connect(world.settings, "test") as connection:
            topology.declare(connection, world.runtime.definitions.systems)
    vhost = rabbitmq_vhost.rsplit("/", 1)[1]
    queues = {q["name"]: q for q in rabbitmq_server.management.call("GET", f"queues/{vhost}")}
    work = {topology.work_queue_name(s) for s in world.runtime.definitions.systems}
    assert queues.keys() == {names.INTAKE_QUEUE, names.DEAD_QUEUE, *work}
    for name, queue in queues.items():
        assert (queue["arguments"]["x-queue-type"], queue["durable"]) == ("quorum", True), name
    assert (
        queues[names.INTAKE_QUEUE]["arguments"].items()
        >= {
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": names.DEAD_EXCHANGE,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }.items()
    )
    for name in work:
        assert queues[name]["arguments"]["x-overflow"] == "drop-head"
        assert queues[name]["arguments"]["x-max-length"] == 100
