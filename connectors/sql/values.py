"""Values between Python, JSON and columns of many types."""

from __future__ import annotations

import base64
import ipaddress
import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from connectors.contract import Task

BIGINT: Final = 2**63
NUMERIC_DIGITS: Final = 28
TRUE: Final = frozenset({"true", "t", "yes", "1"})
_IDLE_ZEROS: Final = re.compile(r"(\.\d*?[1-9])0+(?!\d)")
_UNBOUNDED: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
FALSE: Final = frozenset({"false", "f", "no", "0"})


class Kind(StrEnum):
    """What a column holds, as far as we must know."""

    TEXT = "text"
    CITEXT = "citext"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    UUID = "uuid"
    INET = "inet"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    JSON = "json"
    BYTES = "bytes"
    OTHER = "other"


KINDS: Final[Mapping[str, Kind]] = {
    # information_schema's names, lower case, without what is in brackets.
    **dict.fromkeys(
        ("character varying", "varchar", "text", "character", "char", "bpchar", "string", "tinytext", "mediumtext",
         "longtext", "name"),
        Kind.TEXT,
    ),
    "citext": Kind.CITEXT,
    **dict.fromkeys(
        ("smallint", "integer", "bigint", "int", "tinyint", "mediumint", "hugeint", "ubigint", "uinteger", "usmallint",
         "utinyint"),
        Kind.INTEGER,
    ),
    **dict.fromkeys(("numeric", "decimal", "real", "double precision", "double", "float"), Kind.NUMBER),
    "boolean": Kind.BOOLEAN,
    "uuid": Kind.UUID,
    "inet": Kind.INET,
    "inet4": Kind.INET,
    "inet6": Kind.INET,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "time without time zone": Kind.TIME,
    **dict.fromkeys(("timestamp without time zone", "timestamp", "datetime", "timestamp_ns"), Kind.TIMESTAMP),
    "timestamp with time zone": Kind.TIMESTAMPTZ,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
    **dict.fromkeys(
        ("bytea", "blob", "tinyblob", "mediumblob", "longblob", "binary", "varbinary", "bit"), Kind.BYTES
    ),
}  # fmt: skip


def kind_of(data_type: str) -> Kind:
    """The kind of a column by ``information_schema``'s name of its type."""
    return KINDS.get(data_type.lower().partition("(")[0].strip(), Kind.OTHER)


def identity_value(kind: Kind, length: int | None, value: str) -> object | None:
    """An identity's value as a column of a kind would hold it; ``None``: no row of such a column can match."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    if "\0" in value:
        return None  # No PostgreSQL text holds one, and no identity rightly does.
    match kind:
        case Kind.INTEGER:
            return _integer(value)
        case Kind.NUMBER:
            return _number(value)
        case Kind.UUID:
            return _uuid(value)
        case Kind.INET:
            return _address(value)
        case Kind.TEXT | Kind.CITEXT:
            return value if length is None or len(value) <= length else None
        case _:
            return value


def identity_values(task: Task, identity: str, kind: Kind, length: int | None, *, hashed: bool) -> Iterator[object]:
    """The values of a task's identities of one type, as a column of a kind would hold them, without repeats."""
    seen: set[object] = set()
    for i in task.identities:
        if i.type != identity or (i.format == "sha256") != hashed:
            continue
        value = i.value.lower() if hashed else identity_value(kind, length, i.value)
        if value is not None and value not in seen:
            seen.add(value)
            yield value


def _integer(value: str) -> int | None:
    digits = value.removeprefix("-")
    if (
        not (digits.isascii() and digits.isdecimal())
        or len(digits) > NUMERIC_DIGITS
        or digits != (digits.lstrip("0") or "0")
    ):
        return None  # "007" is not the number 7 to whoever wrote it.
    number = int(value)
    return number if -BIGINT <= number < BIGINT else None


def _number(value: str) -> Decimal | None:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number) >= 10**NUMERIC_DIGITS:
        return None
    return number if number == round(number, 10) else None


def _uuid(value: str) -> str | None:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        return None


def _address(value: str) -> str | None:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return None


def typed(kind: Kind, length: int | None, value: str) -> object:
    """A correction's value for a column. Raises ``ValueError`` with what is wrong, never the value."""
    if "\0" in value:
        raise ValueError("holds a NUL character")
    try:
        value.encode()
        return _typed(kind, length, value)
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode") from None
    except (ValueError, InvalidOperation) as error:
        known = isinstance(error, _TooLong)
        raise ValueError(str(error) if known else f"is not a {kind.value} as its column needs") from None


class _TooLong(ValueError):
    pass


def _typed(kind: Kind, length: int | None, value: str) -> object:
    if kind in {Kind.TEXT, Kind.CITEXT}:
        if length is not None and len(value) > length:
            raise _TooLong(f"is longer than the {length} characters of its column")
        return value
    if kind not in PARSERS:
        raise ValueError
    return PARSERS[kind](value)


def _timestamp(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _timestamptz(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _boolean(value: str) -> bool:
    word = value.strip().lower()
    if word not in TRUE | FALSE:
        raise ValueError
    return word in TRUE


PARSERS: Final[Mapping[Kind, Callable[[str], object]]] = {
    Kind.INTEGER: int,
    Kind.NUMBER: Decimal,
    Kind.BOOLEAN: _boolean,
    Kind.UUID: lambda value: str(uuid.UUID(value)),
    Kind.INET: lambda value: str(ipaddress.ip_address(value)),
    Kind.DATE: date.fromisoformat,
    Kind.TIME: time.fromisoformat,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _timestamptz,
}


def jsonable(value: object) -> Any:
    """A driver's value as JSON takes it: ISO times, decimals as text, bytes in base64; spelt as PostgreSQL does."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else _UNBOUNDED[str(value)]
        case datetime() | time() | date():
            return _IDLE_ZEROS.sub(r"\1", value.isoformat())
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(value)).decode()
        case Mapping():
            return {str(k): jsonable(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(v) for v in value]
        case _:
            return format(value, "f") if isinstance(value, Decimal) and value.is_finite() else str(value)


def from_microseconds(value: int | None) -> datetime | None:
    """A time from the microseconds since 1970, in UTC."""
    return None if value is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
