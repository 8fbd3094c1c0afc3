"""RabbitMQ's protocol, many messages at a time: kombu's driver, but for how bytes come and go.

py-amqp asks the kernel nine times for each message that it reads, and sends each message that it writes in a packet of
its own, built by way of a general serialiser. Under a load that is most of what a message costs, on the broker's side
too. Here all that has arrived is read at once, what belongs together is sent together, and messages are written by code
that knows what a message is. Everything else (handshake, TLS, channels, errors) is the driver's.
"""

# kombu has annotations in places only.
# mypy: allow-untyped-calls

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from amqp.exceptions import RecoverableConnectionError
from amqp.spec import Basic
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp

from orchestrator.contents import (
    CACHED,
    DELIVER,
    HEADER,
    METHOD,
    PROPERTIES,
    read_delivery,
    read_properties,
    readable,
    short,
)

__all__ = ["Writer", "tls_of", "transport_of"]

CHUNK = 64 * 1024
"""Bytes to ask the kernel for."""
PACKET = 64 * 1024
"""Bytes to collect before they are sent."""
_HEAD = struct.Struct(">BHI")
_FRAME_END = 0xCE
_END = bytes((_FRAME_END,))
_BODY = 3
_UNASKED = {struct.pack(">HH", *method) for method in (Basic.Deliver, Basic.Return, Basic.Ack, Basic.Nack)}
"""Methods that answer nothing."""
_OVERHEAD = 8
"""Bytes of a frame beside what it carries."""


class _Packets:
    """Mixed into the driver's transports."""

    held: bytearray | None = None
    """What is to be sent together; ``None``: everything is sent at once."""

    def _setup_transport(self: Any) -> None:
        super()._setup_transport()  # type: ignore[misc]
        receive = self._quick_recv
        # The driver keeps what is more than it wanted.
        self._quick_recv = lambda _wanted: receive(CHUNK)

    def write(self: Any, data: Any) -> None:
        if self.held is None:
            super().write(data)  # type: ignore[misc]
            return
        self.held += data
        if len(self.held) >= PACKET:
            self.flush()

    def flush(self: Any) -> None:
        """Send what is held."""
        if self.held:
            held, self.held = self.held, bytearray()
            super().write(held)  # type: ignore[misc]


class _Tcp(_Packets, TCPTransport):  # type: ignore[misc]
    pass


class _Tls(_Packets, SSLTransport):  # type: ignore[misc]
    pass


class _Message(pyamqp.Message):  # type: ignore[misc]
    """A message as kombu has it, read by our own code; its body is bytes."""

    def __init__(self, channel: Any, where: Mapping[str, Any], properties: Mapping[str, Any], body: bytes) -> None:
        # What kombu does besides is to unpack and to convert bodies: such messages are read by the driver.
        self.errors: list[Any] = []
        self.accept, self._decoded_cache, self._state = None, None, "RECEIVED"
        self.channel, self.delivery_info, self.delivery_tag = channel, where, where["delivery_tag"]
        self.properties, self.body = properties, body
        self.headers = properties.get("application_headers") or {}
        self.content_type, self.content_encoding = properties.get("content_type"), properties.get("content_encoding")


class _Channel(pyamqp.Channel):  # type: ignore[misc]
    def message_to_python(self, raw_message: Any) -> Any:
        return raw_message if isinstance(raw_message, _Message) else super().message_to_python(raw_message)


class _Connection(pyamqp.Connection):  # type: ignore[misc]
    Channel = _Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._frames: deque[tuple[int, int, bytes]] = deque()

    def Transport(  # noqa: N802 - the driver's name
        self, host: str, connect_timeout: float, ssl: Any, read: float | None, write: float | None, **options: Any
    ) -> Any:
        kind = _Tcp
        if ssl:
            kind, ssl = _Tls, {**tls_of(f"amqps://{host}"), **(ssl if isinstance(ssl, dict) else {})}
        return kind(host, connect_timeout, ssl=ssl, read_timeout=read, write_timeout=write, **options)

    def blocking_read(self, timeout: float | None = None) -> bool:
        """Handle what has come, up to an answer; whether anything of it was a whole message or another method.

        Whoever waits for the answer does something with it before the next is handled: a consumer, say, whose messages
        come right behind the word that it is one.
        """
        if not self._frames:
            transport = self.transport
            with transport.having_timeout(timeout):
                self._frames.append(transport.read_frame())
            transport._read_buffer = _split(transport._read_buffer, self._frames)  # noqa: SLF001 - the driver has no public way
        handled = False
        # Handling one may ask for more, or end the connection: each is taken out first.
        while self._frames:
            frame = self._frames.popleft()
            if frame[0] == METHOD and frame[2][:4] == DELIVER and self._delivered(frame):
                handled = True
                continue
            handled |= bool(self.on_inbound_frame(readable(frame)))
            if frame[0] == METHOD and frame[2][:4] not in _UNASKED:
                break
        return handled

    def _delivered(self, frame: tuple[int, int, bytes]) -> bool:
        """Hand a message to its consumer, if it is a plain one and all of it is there; else it is the driver's."""
        if len(self._frames) < 2 or self.channels is None:  # noqa: PLR2004 - what it is about, and its body
            return False
        number, head, content = frame[1], self._frames[0], self._frames[1]
        channel = self.channels.get(number)
        if head[:2] != (HEADER, number) or content[:2] != (_BODY, number) or channel is None or channel.is_closing:
            return False
        properties = read_properties(head[2], len(content[2]))
        where = read_delivery(frame[2])
        consumer = channel.callbacks.get(where["consumer_tag"])
        if properties is None or consumer is None:
            return False
        self._frames.popleft()
        self._frames.popleft()
        self.bytes_recv += 3  # frames, to the driver
        consumer(_Message(channel, where, properties, content[2]))
        return True

    def send(self, data: bytes) -> None:
        """Write whole frames. Raises what the driver raises when the connection is gone."""
        self._living().write(data)
        self.bytes_sent += 1  # frames, to the driver: it sends a heartbeat where there were none

    def hold(self) -> None:
        """Collect what is written from now on, for as few packets as possible."""
        transport = self._living()
        if transport.held is None:
            transport.held = bytearray()

    def release(self) -> None:
        """Send what was collected; from now on everything is sent at once."""
        transport = self._living()
        transport.flush()
        transport.held = None

    def _living(self) -> Any:
        if self._transport is None:
            raise RecoverableConnectionError("the connection was closed")
        return self._transport


class Transport(pyamqp.Transport):  # type: ignore[misc]
    """``amqp://`` for kombu."""

    Connection = _Connection


class TlsTransport(pyamqp.SSLTransport):  # type: ignore[misc]
    """``amqps://`` for kombu."""

    Connection = _Connection


def transport_of(url: str) -> type | None:
    """What kombu is to speak RabbitMQ's protocol with; ``None`` for another broker's: kombu knows it by the URL."""
    return {"amqp": Transport, "pyamqp": Transport, "amqps": TlsTransport}.get(url.partition("://")[0])


def tls_of(url: str) -> dict[str, Any]:
    """What the driver has to know of TLS, for those who use it as it is; nothing for a URL without.

    Without a name to look for, it takes any server with a certificate from anybody that it trusts.
    """
    parsed = urlsplit(url)
    return {"server_hostname": parsed.hostname} if parsed.scheme == "amqps" else {}


def _split(data: bytes, frames: deque[tuple[int, int, bytes]]) -> bytes:
    """Take the whole frames off the front; gives the rest."""
    at, end = 0, len(data)
    while end - at >= _OVERHEAD:
        kind, channel, size = _HEAD.unpack_from(data, at)
        until = at + _OVERHEAD + size
        if until > end or data[until - 1] != _FRAME_END:
            break  # not whole yet; or wrong, which the driver finds out when it reads it
        frames.append((kind, channel, data[at + 7 : until - 1]))
        at = until
    return data[at:]


# Writing messages. ---------------------------------------------------------------------------------------------------

SHORT = 255
"""Bytes of a property, of a queue's name and of a routing key, at most."""
_BASIC, _PUBLISH = 60, 40
_CONTENT_HEAD = struct.Struct(">BHIHHQH")


class Writer:
    """Publishes on one channel of a connection of this transport."""

    def __init__(self, channel: Any) -> None:
        """Confirmations are for the caller to count."""
        self._connection, self._channel = channel.connection, channel.channel_id
        self._most = channel.connection.frame_max - _OVERHEAD
        self._method = lru_cache(CACHED)(self._of_method)

    def content(self, body: bytes, properties: Mapping[str, Any]) -> bytes:
        """A message as it travels, but for where to: it may be published more than once.

        ``properties``: as AMQP names them, and ``headers``, all of them texts. Raises ``ValueError`` for a text that is
        longer than 255 bytes (headers: than 4 GiB), ``KeyError`` for a property that there is no need for here.
        """
        if not properties.keys() <= PROPERTIES.keys():
            raise KeyError(*(properties.keys() - PROPERTIES.keys()))
        flags, parts = 0, []
        for name, (bit, write) in PROPERTIES.items():
            value = properties.get(name)
            if value is not None:
                flags |= 1 << bit
                parts.append(write(value))
        text = b"".join(parts)
        head = _CONTENT_HEAD.pack(HEADER, self._channel, 14 + len(text), _BASIC, 0, len(body), flags)
        if 0 < len(body) <= self._most:
            return b"".join((head, text, _END, _HEAD.pack(_BODY, self._channel, len(body)), body, _END))
        pieces = [head, text, _END]
        for start in range(0, len(body), self._most):
            piece = body[start : start + self._most]
            pieces += (_HEAD.pack(_BODY, self._channel, len(piece)), piece, _END)
        return b"".join(pieces)

    def publish(self, content: bytes, exchange: str, routing_key: str, *, mandatory: bool = False) -> None:
        """Publish a message that ``content`` made. ``mandatory``: it comes back if no queue takes it."""
        self._connection.send(self._method(exchange, routing_key, mandatory) + content)

    def _of_method(self, exchange: str, routing_key: str, mandatory: bool) -> bytes:  # noqa: FBT001 - cached
        where = short(exchange) + short(routing_key)
        head = _HEAD.pack(METHOD, self._channel, 7 + len(where)) + struct.pack(">HHH", _BASIC, _PUBLISH, 0)
        return head + where + bytes((mandatory,)) + _END
