"""What is written by our own code is what RabbitMQ's protocol says, as its driver reads it."""

from __future__ import annotations

import struct
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_handler
from amqp.serialization import dumps, loads
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection
from kombu.transport import pyamqp

from orchestrator import contents, wire

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


def delivered(number: int, body: bytes, properties: dict[str, Any], exchange: str, key: str) -> bytes:
    """A message as the broker hands it to the consumer ``c`` of channel 7."""
    connection = Written()
    writer = wire.Writer(SimpleNamespace(connection=connection, channel_id=7))
    method = b"\x00\x3c\x00\x3c" + dumps("sLbss", ["c", number, number % 2 == 0, exchange, key])
    frame = struct.pack(">BHI", 1, 7, len(method)) + method + b"\xce"
    return frame + writer.content(body, properties)


def read_by(channel_class: type, packets: list[bytes]) -> list[tuple[Any, ...]]:
    """What a consumer gets."""
    connection = wire._Connection("broker.example")
    connection.channels = {}
    connection.on_inbound_frame = frame_handler(connection, connection.on_inbound_method)
    channel = channel_class(connection, 7)
    came: list[tuple[Any, ...]] = []

    def take(raw: Any) -> None:
        m = channel.message_to_python(raw)
        body = m.body.encode() if isinstance(m.body, str) else m.body
        said = (m.delivery_tag, m.delivery_info, m.content_type, m.content_encoding, m.headers, m.properties)
        came.append((*said, body, m.acknowledged, m.channel is channel, len(m.errors)))

    channel.callbacks["c"] = take
    left = b""
    for packet in packets:
        left = wire._split(left + packet, connection._frames)
        if connection._frames:
            connection.blocking_read()
    assert connection.bytes_recv >= len(came) * 2
    return came


class DriversOwn(pyamqp.Channel):
    """Whose every frame the driver reads."""

    is_closing = False

    @property
    def callbacks(self) -> Any:
        return self._known

    @callbacks.setter
    def callbacks(self, known: Any) -> None:
        self._known = Hidden(known)


class Hidden(dict):
    """Found by those who look as the driver does."""

    def get(self, _key: Any, default: Any = None) -> Any:
        return default


ODD = st.sampled_from([
    {},
    {},
    {"content_encoding": "utf-8"},
    {"content_encoding": "latin-1"},
    {"headers": {"compression": "application/x-gzip"}},
])  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(MESSAGE, ODD), min_size=1, max_size=5), st.data())
def test_a_consumer_gets_what_it_would_get_from_the_driver_wherever_the_packets_end(messages, data):
    rest = b"".join(
        delivered(number, body, {**properties, **odd}, exchange, key)
        for number, ((body, properties, exchange, key, _), odd) in enumerate(messages, 1)
    )
    packets = []
    while rest:
        size = data.draw(st.integers(1, len(rest)), label="packet")
        packets.append(rest[:size])
        rest = rest[size:]
    ours = read_by(wire._Channel, packets)
    assert len(ours) == len(messages)
    assert ours == read_by(DriversOwn, packets)


@pytest.mark.parametrize("packet", [1, 100_000])
@pytest.mark.parametrize("body", [b"{}", b""])
def test_a_message_with_a_property_that_is_no_text_comes_without_properties_between_the_others(packet, body):
    good = {"reply_to": "q", "delivery_mode": 2}
    wrong = delivered(2, body, {"reply_to": "é", "message_id": "m"}, "x", "k").replace("é".encode(), b"\xff\xff")
    lost = delivered(3, body, good, "x", "é").replace("é".encode(), b"\xff\xff")
    data = delivered(1, b"1", good, "x", "k") + wrong + lost + delivered(4, b"4", good, "x", "k")
    came = read_by(wire._Channel, [data[at : at + packet] for at in range(0, len(data), packet)])
    assert [(tag, properties) for tag, _, _, _, _, properties, *_ in came] == [(1, good), (2, {}), (3, good), (4, good)]
    assert [said[6] for said in came] == [b"1", body, body, b"4"]


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"\0\x3c" + bytes(10) + rest))
def test_of_bytes_that_are_no_properties_nothing_is_made_that_the_driver_would_not_make(head):
    ours = contents.read_properties(head, 0)
    if ours is not None:
        theirs = Message()
        theirs.inbound_header(head)
        assert ours == theirs.properties


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
