"""What stands around a message's body in RabbitMQ's protocol: the properties, and the word that delivers it."""

# kombu has annotations in places only.
# mypy: allow-untyped-calls

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from amqp.serialization import decode_properties_basic, loads
from amqp.spec import Basic

__all__ = [
    "CACHED",
    "DELIVER",
    "HEADER",
    "METHOD",
    "PROPERTIES",
    "read_delivery",
    "read_properties",
    "readable",
    "short",
]

METHOD, HEADER = 1, 2
"""Kinds of frames."""
DELIVER = struct.pack(">HH", *Basic.Deliver)
"""How a method begins that delivers."""
CACHED = 1024
_LONG, _LONGLONG = struct.Struct(">I"), struct.Struct(">Q")

# Writing. ------------------------------------------------------------------------------------------------------------


def short(text: str) -> bytes:
    """A text as properties and names are written. Raises ``ValueError`` for one that is longer than 255 bytes."""
    data = text.encode()
    return bytes((len(data),)) + data


def _octet(number: int) -> bytes:
    return bytes((number,))


@lru_cache(CACHED)
def _name(text: str) -> bytes:
    """The name of a header whose value is a text."""
    return short(text) + b"S"


def _table(headers: Mapping[str, str]) -> bytes:
    items: list[bytes] = []
    for name, text in headers.items():
        data = text.encode()
        items += (_name(name), _LONG.pack(len(data)), data)
    table = b"".join(items)
    return _LONG.pack(len(table)) + table


PROPERTIES: Mapping[str, tuple[int, Callable[[Any], bytes]]] = {
    "content_type": (15, short),
    "content_encoding": (14, short),
    "headers": (13, _table),
    "delivery_mode": (12, _octet),
    "correlation_id": (10, short),
    "reply_to": (9, short),
    "message_id": (7, short),
    "timestamp": (6, _LONGLONG.pack),
    "type": (5, short),
}
"""Name → its bit among the flags, and how it is written; in the order in which they travel."""
_KNOWN = sum(1 << bit for bit, _ in PROPERTIES.values())
_A_TEXT = ord("S")


@lru_cache(CACHED)
def _named(flags: int) -> Sequence[tuple[str, Callable[[Any], bytes]]]:
    """The properties that flags tell of."""
    return [(name, write) for name, (bit, write) in PROPERTIES.items() if flags & 1 << bit]


# Reading. ------------------------------------------------------------------------------------------------------------

_TAG = struct.Struct(">QB")
_CONTENT = struct.Struct(">HHQH")
_PROPERTIES_AT = 12
"""Behind what kind of message it is, and how long."""


def read_delivery(method: bytes) -> dict[str, Any]:
    """What the method ``basic.deliver`` says."""
    at = 5 + method[4]
    tag, redelivered = _TAG.unpack_from(method, at)
    consumer, exchange, routing_key = _names(method[4:at], method[at + _TAG.size :])
    return {
        "consumer_tag": consumer,
        "delivery_tag": tag,
        "redelivered": redelivered & 1 == 1,
        "exchange": exchange,
        "routing_key": routing_key,
    }


@lru_cache(CACHED)
def _names(consumer: bytes, where: bytes) -> tuple[str, str, str]:
    """Consumer, exchange and routing key, which most messages of a queue share."""
    exchange, at = _text(where, 0, "replace")
    return _text(consumer, 0)[0], exchange, _text(where, at, "replace")[0]


def readable(frame: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """A frame for the driver, which would end with an error at a text that is no UTF-8, whoever sent it.

    A message that has one among its properties counts as one without properties: it is told apart, and not obeyed.
    """
    kind, channel, data = frame
    try:
        if kind == HEADER:
            decode_properties_basic(data, _PROPERTIES_AT)
        elif kind == METHOD and data[:4] == DELIVER:
            loads("sLbss", data, 4)
    except UnicodeDecodeError:
        until = _PROPERTIES_AT if kind == HEADER else 5 + data[4] + _TAG.size
        return kind, channel, data[:until] + bytes(2)  # no properties; neither exchange nor routing key
    except struct.error:
        return frame  # it is cut off, which the driver finds out
    return frame


def read_properties(head: bytes, size: int) -> dict[str, Any] | None:
    """The properties of a plain message whose body has ``size`` bytes; ``None`` for another one.

    Plain: all of its body is there, in UTF-8 or bytes as they are; properties and headers are those that we write.
    """
    properties: dict[str, Any] = {}
    at = _CONTENT.size
    try:
        _, _, whole, flags = _CONTENT.unpack_from(head)
        if whole != size or flags & ~_KNOWN:
            return None
        for name, kind in _named(flags):
            if kind is short:
                properties[name], at = _text(head, at)
            elif kind is _octet:
                properties[name], at = head[at], at + 1
            elif kind is _table:
                properties["application_headers"], at = _texts(head, at)
            else:
                properties[name], at = _LONGLONG.unpack_from(head, at)[0], at + 8
    except (ValueError, IndexError, struct.error):
        return None  # for the driver to judge
    plain = at == len(head) and properties.get("content_encoding", "utf-8") == "utf-8"
    return properties if plain and "compression" not in properties.get("application_headers", ()) else None


def _text(data: bytes, at: int, errors: str = "strict") -> tuple[str, int]:
    until = at + 1 + data[at]
    return data[at + 1 : until].decode(errors=errors), until


def _texts(data: bytes, at: int) -> tuple[dict[str, str], int]:
    """A table of texts. Raises ``ValueError`` for one that holds something else."""
    found: dict[str, str] = {}
    until = at + 4 + _LONG.unpack_from(data, at)[0]
    at += 4
    while at < until:
        name, at = _text(data, at)
        if data[at] != _A_TEXT:
            raise ValueError("not a text")
        end = at + 5 + _LONG.unpack_from(data, at + 1)[0]
        found[name], at = data[at + 5 : end].decode(), end
    return found, until
