"""Arrays as PostgreSQL reads them in binary, written a whole column at a time.

The driver asks each element how it wants to be written. In a column all are of one kind, known beforehand: a thousand
ids are then one ``join``, and cost a tenth. The layout is that of PostgreSQL's ``array_recv``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import psycopg
from psycopg import pq
from psycopg.adapt import Dumper
from sqlalchemy import BigInteger, Boolean, DateTime, Integer, LargeBinary, SmallInteger, Text, Uuid

_REMEMBERED = 10_000
"""Written values that are remembered: moments and small numbers come again and again."""
_NULL = struct.pack(">i", -1)
_TRUTHS = {value: struct.pack(">i?", 1, value) for value in (False, True)}
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_length = lru_cache(_REMEMBERED)(struct.Struct(">i").pack)


class Packed(bytes):
    """An array, ready to be sent. Each kind has a class of its own, for the driver goes by that."""

    __slots__ = ()


def _ids(values: Iterable[UUID]) -> bytes:
    length = _length(16)
    return b"".join([length + value.int.to_bytes(16, "big") for value in values])


def _bytes(values: Iterable[bytes]) -> bytes:
    return b"".join([_length(len(value)) + value for value in values])


def _texts(values: Iterable[str]) -> bytes:
    return _bytes(map(str.encode, values))


def _moments(values: Iterable[datetime]) -> bytes:
    return b"".join(map(_moment, values))


@lru_cache(_REMEMBERED)
def _moment(value: datetime) -> bytes:
    since = value - _EPOCH
    return struct.pack(">iq", 8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _truths(values: Iterable[bool]) -> bytes:
    return b"".join(map(_TRUTHS.__getitem__, values))


def _numbers(form: str) -> Callable[[Iterable[Any]], bytes]:
    packer = struct.Struct(f">i{form}")
    size = packer.size - 4
    one = lru_cache(_REMEMBERED)(lambda value: packer.pack(size, value))
    return lambda values: b"".join(map(one, values))


def _kind(oid: int, element: int, write: Callable[[Iterable[Any]], bytes]) -> tuple[type[Packed], int, Any]:
    class Its(Packed):
        __slots__ = ()

    class Sent(Dumper):
        format = pq.Format.BINARY

        def dump(self, obj: Packed) -> bytes:
            return obj

    Sent.oid = oid
    psycopg.adapters.register_dumper(Its, Sent)
    return Its, element, write


# The numbers of types are PostgreSQL's own, the same everywhere (``pg_type.dat``): of the array, of its element.
_KINDS = {
    Uuid: _kind(2951, 2950, _ids),
    LargeBinary: _kind(1001, 17, _bytes),
    Text: _kind(1009, 25, _texts),
    DateTime: _kind(1185, 1184, _moments),
    SmallInteger: _kind(1005, 21, _numbers("h")),
    Integer: _kind(1007, 23, _numbers("i")),
    BigInteger: _kind(1016, 20, _numbers("q")),
    Boolean: _kind(1000, 16, _truths),
}


def packed(kind: type[Any], values: Sequence[Any]) -> Any:
    """The values as an array of that SQLAlchemy type, nulls among them or not; as they are, if it is not known here.

    Moments have a time zone. Raises ``struct.error`` for a number that is too large.
    """
    if kind not in _KINDS:
        return values
    its, element, write = _KINDS[kind]
    if not values:
        return its(struct.pack(">iiI", 0, 0, element))
    nulls = 0
    try:
        written = write(values)
    except (AttributeError, KeyError, TypeError, struct.error):
        nulls = 1
        known = {id(None): _NULL}  # most that are equal are the same value, and that is told without looking into it
        for value in values:
            if id(value) not in known:
                known[id(value)] = write((value,))
        written = b"".join([known[id(value)] for value in values])
    return its(struct.pack(">iiIii", 1, nulls, element, len(values), 1) + written)


def ids(values: Sequence[UUID]) -> Any:
    """Ids for ``= ANY``."""
    return packed(Uuid, values)
