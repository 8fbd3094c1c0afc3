"""What is written by our own code is what RabbitMQ's protocol says, as its driver reads it."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import spec
from amqp.method_framing import frame_handler
from amqp.serialization import loads
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection

from orchestrator import wire

FRAME_MAX = 4096
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PROPERTIES = st.fixed_dictionaries(
    {"delivery_mode": st.just(2)},
    optional={
        "content_type": TEXT,
        "content_encoding": TEXT,
        "headers": st.dictionaries(TEXT, st.text(st.characters(exclude_categories=["Cs"]), max_size=400), max_size=6),
        "correlation_id": st.none() | TEXT,
        "reply_to": TEXT,
        "message_id": TEXT,
        "timestamp": st.integers(0, 2**64 - 1),
        "type": TEXT,
    },
)
MESSAGE = st.tuples(st.binary(max_size=3 * FRAME_MAX), PROPERTIES, TEXT, TEXT, st.booleans())


class Written:
    """A connection whose other end is a list."""

    frame_max = FRAME_MAX
    bytes_recv = 0

    def __init__(self) -> None:
        self.data = b""
        self.came: list[tuple[Any, ...]] = []

    def send(self, data: bytes) -> None:
        self.data += data

    def take(self, frames: deque[tuple[int, int, bytes]]) -> None:
        """As the driver's own code would read it, were it delivered."""
        handle = frame_handler(self, lambda *what: self.came.append(what), content_methods={spec.Basic.Publish})
        for frame in frames:
            handle(frame)


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=4), st.data())
def test_messages_are_read_by_the_driver_as_they_were_written_wherever_the_packets_end(messages, data):
    connection = Written()
    writer = wire.Writer(SimpleNamespace(connection=connection, channel_id=7))
    for body, properties, exchange, key, mandatory in messages:
        writer.publish(writer.content(body, properties), exchange, key, mandatory=mandatory)
    frames: deque[tuple[int, int, bytes]] = deque()
    left = b""
    rest = connection.data
    while rest:
        packet = data.draw(st.integers(1, len(rest)), label="packet")
        left, rest = wire._split(left + rest[:packet], frames), rest[packet:]
    assert left == b""
    assert max(len(payload) for _, _, payload in frames) <= FRAME_MAX - 8
    connection.take(frames)
    assert len(connection.came) == len(messages)
    for (channel, _, payload, message), (body, properties, exchange, key, mandatory) in zip(
        connection.came, messages, strict=True
    ):
        assert channel == 7
        assert loads("Bssbb", payload, 4)[0] == [0, exchange, key, mandatory, False]
        assert (bytes(message.body) if body else b"") == body
        said = {n: v for n, v in properties.items() if v is not None}
        assert message.properties == {"application_headers" if n == "headers" else n: v for n, v in said.items()}


def test_a_text_that_the_protocol_cannot_carry_is_an_error():
    writer = wire.Writer(SimpleNamespace(connection=Written(), channel_id=1))
    with pytest.raises(ValueError, match="bytes must be in range"):
        writer.content(b"{}", {"correlation_id": "é" * 128})


def test_a_frame_without_its_end_is_left_to_the_driver_which_refuses_it():
    frames: deque[tuple[int, int, bytes]] = deque()
    assert wire._split(b"\x08\0\0\0\0\0\0\x00", frames) == b"\x08\0\0\0\0\0\0\x00"
    assert not frames


@pytest.mark.parametrize("url", ["amqp://h//", "pyamqp://h//", "amqps://h//"])
def test_kombu_takes_the_transport_for_every_spelling_of_rabbitmq(url):
    connection = Connection(url, transport=wire.transport_of(url))
    assert issubclass(connection.transport.Connection, wire._Connection)
    assert bool(connection.ssl) == url.startswith("amqps")


def test_another_brokers_transport_is_kombus_own():
    assert wire.transport_of("pgmq://h/d") is None


def test_nothing_behind_an_answer_is_handled_before_whoever_waits_for_the_answer_has_it():
    connection = wire._Connection("broker.example")
    handled: list[bytes] = []
    connection.on_inbound_frame = lambda frame: handled.append(frame[2][:4])
    deliver, consume_ok = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x15"
    connection._frames.extend((1, 1, method) for method in (deliver, consume_ok, deliver, deliver))
    connection.blocking_read()
    assert handled == [deliver, consume_ok]
    connection.blocking_read()
    assert handled == [deliver, consume_ok, deliver, deliver]
