"""A service publishes requests and reads the answers, on both brokers, with no engine in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from kombu import Connection, Exchange, Queue
from sqlalchemy.engine import make_url

from orchestrator.core.vocabulary import Resolution, Right
from orchestrator.errors import Fault, Refusal, RefusedMessage, Unavailable
from orchestrator.messages.inbound import Delivery, RightsRequest, receive
from orchestrator.messages.names import EVENTS_EXCHANGE, INTAKE_QUEUE
from orchestrator.messages.outbound import Accepted, Completed, Origin, Outgoing, compose, refusal
from orchestrator.messages.signing import Secret
from orchestrator.messages.sources import Source, Sources
from orchestrator.publish import PGMQ_OPTIONS, Publisher

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SOURCES = Sources([Source(source="urn:shop", secrets=[SECRET])])


@pytest.fixture(params=["rabbitmq", "pgmq"])
def broker(request) -> str:
    if request.param == "rabbitmq":
        return request.getfixturevalue("rabbitmq_vhost")
    return (
        make_url(request.getfixturevalue("pgmq_database")).set(drivername="pgmq").render_as_string(hide_password=False)
    )


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    options = dict(PGMQ_OPTIONS) if url.startswith("pgmq") else {"confirm_publish": True}
    with Connection(url, transport_options=options) as connection:
        yield connection


def taken(url: str, count: int) -> list[RightsRequest]:
    """What lies in the intake queue, read the way intake reads it."""
    found = []
    with connected(url) as connection:
        channel = connection.default_channel
        queue = Queue(INTAKE_QUEUE, no_declare=True)(channel)
        for _ in range(count):
            message = queue.get()
            assert message is not None
            found.append(receive(Delivery.of(message, datetime.now(UTC)), SOURCES))
            message.ack()
        assert queue.get() is None
    return found


def answer(url: str, reply_to: str, outgoing: Outgoing) -> None:
    with connected(url) as connection:
        producer = connection.Producer()
        producer.publish(
            outgoing.body, exchange="", routing_key=reply_to, headers=dict(outgoing.headers), **outgoing.properties()
        )


def accepted(message: RightsRequest, **more) -> Outgoing:
    now = datetime.now(UTC)
    data = Accepted(request_id=uuid4(), right=message.right, regulation="gdpr", received_at=now, deadline=now,
                    workflow="w", workflow_version=1)  # fmt: skip
    return compose(
        data,
        event_id=str(uuid4()),
        source="urn:habeas",
        time=now,
        origin=Origin("urn:shop", message.message_id),
        **more,
    )


def completed(message: RightsRequest, **more) -> Outgoing:
    now = datetime.now(UTC)
    data = Completed(request_id=uuid4(), right=message.right, regulation="gdpr", resolution=Resolution.COMPLETED,
                     received_at=now, deadline=now, closed_at=now)  # fmt: skip
    return compose(
        data,
        event_id=str(uuid4()),
        source="urn:habeas",
        time=now,
        origin=Origin("urn:shop", message.message_id),
        **more,
    )


def test_a_published_request_arrives_signed_and_whole_though_no_intake_ever_ran(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET) as habeas:
        first = habeas.erase(email="Ada@Example.org", regulation="gdpr", systems=["crm"])
        second = habeas.rectify(user_id="7", corrections={"user.name": "Ada"}, message_id="m-2", correlation_id="c-2")
        one, two = taken(broker, 2)
    assert (one.message_id, one.right, one.reply_to) == (first, Right.ERASURE, habeas.reply_queue)
    assert one.identities[0].value == "ada@example.org"
    assert one.systems == frozenset({"crm"})
    assert (second, two.message_id, two.correlation_id) == ("m-2", "m-2", "c-2")
    assert two.corrections == {"user.name": "Ada"}


def test_all_six_rights_can_be_asked_for(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET) as habeas:
        for ask in (habeas.access, habeas.erase, habeas.restrict, habeas.port):
            ask(email="ada@example.org")
        habeas.rectify(email="ada@example.org", corrections={"user.name": "Ada"})
        habeas.object(email="ada@example.org", purposes=["marketing"])
        assert {request.right for request in taken(broker, 6)} == set(Right)


def test_many_requests_published_at_once_arrive_in_order_under_their_own_ids(broker):
    people = [{"email": f"p{n}@people.example"} for n in range(1200)]  # three windows
    with Publisher(broker, source="urn:shop", secret=SECRET) as habeas:
        ids = habeas.request_many(Right.ERASURE, people)
        alone = habeas.erase(email="last@people.example")
    found = taken(broker, 1201)
    assert [r.message_id for r in found] == [*ids, alone]
    assert [r.identities[0].value for r in found[:-1]] == [p["email"] for p in people]


def test_a_window_survives_a_connection_that_was_cut_while_idle(rabbitmq_vhost):
    with Publisher(rabbitmq_vhost, source="urn:shop", secret=SECRET) as habeas:
        first = habeas.request_many(Right.ERASURE, [{"email": "a@people.example"}])
        habeas._connection.connection.sock.close()
        second = habeas.request_many(Right.ERASURE, [{"email": "b@people.example"}])
    assert [r.message_id for r in taken(rabbitmq_vhost, 2)] == [*first, *second]


def test_the_final_answer_is_waited_for_and_the_others_are_kept(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET) as habeas:
        first = habeas.erase(email="ada@example.org")
        second = habeas.access(email="bob@example.org")
        one, two = taken(broker, 2)
        for outgoing in (accepted(one), accepted(two), completed(two), completed(one)):
            answer(broker, one.reply_to, outgoing)
        final = habeas.wait(first, timeout=30)
        assert (final.message_id, final.resolution) == (first, Resolution.COMPLETED)
        assert habeas.wait(second, timeout=30).message_id == second


def test_a_refusal_is_a_final_answer_with_its_reason(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET) as habeas:
        message = habeas.erase(email="ada@example.org")
        (request,) = taken(broker, 1)
        error = RefusedMessage(Refusal.NOT_ALLOWED, faults=[Fault("ask for access only", "right")])
        data = refusal(error, request.message_id, request.right)
        outgoing = compose(
            data, event_id="e", source="urn:habeas", time=datetime.now(UTC), origin=Origin("urn:shop", message)
        )
        answer(broker, request.reply_to, outgoing)
        final = habeas.wait(message, timeout=30)
    assert final.data["reason"] == "not_allowed"
    assert final.resolution is None


def test_answers_that_are_not_signed_as_they_must_be_are_dropped(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET, answer_secrets=[OTHER]) as habeas:
        message = habeas.erase(email="ada@example.org")
        (request,) = taken(broker, 1)
        answer(broker, request.reply_to, accepted(request))
        answer(broker, request.reply_to, accepted(request, secrets=[Secret(SECRET)]))
        answer(broker, request.reply_to, completed(request, secrets=[Secret(OTHER)]))
        assert habeas.wait(message, timeout=30).kind == "completed"
        assert list(habeas.answers(timeout=0)) == []


def test_a_named_reply_queue_keeps_answers_while_nobody_listens(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET, replies="shop_replies") as habeas:
        message = habeas.erase(email="ada@example.org")
        (request,) = taken(broker, 1)
    answer(broker, "shop_replies", completed(request))
    with Publisher(broker, source="urn:shop", replies="shop_replies") as later:
        assert later.wait(message, timeout=30).message_id == message
    with Publisher(broker, source="urn:shop", replies="shop_replies") as last:
        assert list(last.answers(timeout=0.5)) == []


def test_an_answer_not_waited_for_comes_again_to_the_next_reader_of_a_named_queue(rabbitmq_vhost):
    with Publisher(rabbitmq_vhost, source="urn:shop", secret=SECRET, replies="shop_replies") as habeas:
        message = habeas.erase(email="ada@example.org")
        (request,) = taken(rabbitmq_vhost, 1)
        answer(rabbitmq_vhost, "shop_replies", completed(request))
        for _ in habeas.answers(timeout=30):
            break  # read, and never asked for the next: not acknowledged
    with Publisher(rabbitmq_vhost, source="urn:shop", replies="shop_replies") as later:
        assert later.wait(message, timeout=30).message_id == message


def test_an_answer_that_is_still_worked_on_comes_again_though_later_ones_were_taken(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET, replies="shop_answers") as habeas:
        sent = [habeas.erase(email=f"p{n}@example.org") for n in range(3)]
        for message in taken(broker, 3):
            answer(broker, message.reply_to, completed(message))
        coming = habeas.answers(timeout=30)
        assert next(coming).message_id == sent[0]
        assert next(coming).message_id == sent[1]
        assert habeas.wait(sent[2], timeout=30).final
        del coming  # the second was never done with
    if habeas._pgmq:
        return  # seen again only after its visibility timeout
    with Publisher(broker, source="urn:shop", secret=SECRET, replies="shop_answers") as again:
        assert [a.message_id for a in again.answers(timeout=2)] == [sent[1]]


def test_a_faulty_request_is_refused_before_anything_is_sent(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET) as habeas:
        with pytest.raises(RefusedMessage) as caught:
            habeas.erase(regulation="gdpr")
        assert caught.value.reason is Refusal.MISSING_IDENTITY
        habeas.erase(email="ada@example.org")
        assert len(taken(broker, 1)) == 1


def test_waiting_ends_when_no_answer_comes(broker):
    with Publisher(broker, source="urn:shop", secret=SECRET) as habeas, pytest.raises(TimeoutError):
        habeas.wait(habeas.erase(email="ada@example.org"), timeout=0.5)


@pytest.mark.parametrize("url", ["amqp://guest:hunter2@127.0.0.1:1/x", "pgmq://guest:hunter2@127.0.0.1:1/x"])
def test_a_broker_that_is_away_is_unavailable_and_its_password_stays_unsaid(url):
    before = set(threading.enumerate())
    habeas = Publisher(
        url, source="urn:shop", timeout=1, transport_options={"pool_timeout": 1} if "pgmq" in url else None
    )
    with pytest.raises(Unavailable) as caught:
        habeas.erase(email="ada@example.org")
    assert "hunter2" not in str(caught.value) + repr(habeas)
    assert not [t.name for t in set(threading.enumerate()) - before if t.name.startswith("pool-")]


def test_a_request_survives_a_connection_that_was_cut_while_idle(rabbitmq_vhost):
    with Publisher(rabbitmq_vhost, source="urn:shop", secret=SECRET) as habeas:
        habeas.erase(email="ada@example.org")
        habeas._connection.connection.sock.close()
        habeas.erase(email="bob@example.org")
        assert len(taken(rabbitmq_vhost, 2)) == 2


def test_a_message_that_no_queue_takes_is_an_error_and_not_silence(rabbitmq_vhost):
    with Publisher(rabbitmq_vhost, source="urn:shop", secret=SECRET) as habeas:
        habeas.erase(email="ada@example.org")
        with connected(rabbitmq_vhost) as connection:
            channel = connection.default_channel
            exchange = Exchange("rights.requests", type="topic", durable=True)
            Queue(INTAKE_QUEUE, exchange, routing_key="#", no_declare=True)(channel).unbind_from(
                exchange, routing_key="#"
            )
        # The second attempt declares queue and binding anew, so the request arrives all the same.
        habeas.erase(email="bob@example.org")
        assert len(taken(rabbitmq_vhost, 2)) == 2


def test_events_reach_a_queue_bound_to_their_routing_key(broker):
    with connected(broker) as connection:
        channel = connection.default_channel
        exchange = Exchange(EVENTS_EXCHANGE, type="topic", durable=True)
        queue = Queue("erasures", exchange, routing_key="erasure.*", queue_arguments={"x-queue-type": "quorum"})(
            channel
        )
        queue.declare()
        with Publisher(broker, source="urn:shop", secret=SECRET) as habeas:
            habeas.erase(email="ada@example.org")
            habeas.access(email="ada@example.org")
            for request in taken(broker, 2):
                outgoing = completed(request)
                connection.Producer().publish(
                    outgoing.body,
                    exchange=exchange,
                    declare=[exchange],
                    routing_key=outgoing.routing_key,
                    **outgoing.properties(),
                )
        message = queue.get()
        assert json.loads(message.body)["data"]["right"] == "erasure"
        message.ack()
        assert queue.get() is None
