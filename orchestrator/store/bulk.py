"""Many rows in one statement: arrays go over the wire, ``unnest`` makes rows of them.

One statement for a thousand rows costs one round trip and one plan, whatever the number. In a batch that goes the same
way most columns say the same in every row: those go over the wire once, as a value and not as an array of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import psycopg
from psycopg.pq import PipelineStatus
from sqlalchemy import Connection, Table
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, dialect

Row = Mapping[str, Any]
_DIALECT = dialect()  # type: ignore[no-untyped-call]
_MANY = 16
"""Rows from which on it is looked whether a column says the same in all: with fewer, more statements to prepare than
bytes to save. One alone is looked at as well: making arrays of one costs more than all else."""
to_json = json.JSONEncoder(default=str, separators=(",", ":")).encode
"""A value as ``jsonb`` takes it; made once, for making an encoder costs more than encoding a small value."""


class _Encoded(str):
    """A JSON text."""

    __slots__ = ()


def encoded(value: Any) -> Any:
    """A value for a JSON column that many rows share: it is encoded once."""
    return _Encoded(to_json(value))


def as_json(text: bytes) -> Any:
    """A value for a JSON column, as JSON already."""
    return _Encoded(text.decode())


@contextmanager
def together(tx: Connection, *, commit: bool = False) -> Iterator[None]:
    """What is sent inside goes to the server without waiting for one answer before the next is sent.

    Answers may be read afterwards. What fails raises at the end at the latest, as ``psycopg.Error``. ``commit``: the
    transaction ends with it, in the same round trip. Inside another, it is part of that.
    """
    connection = _driver(tx)
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        yield
        return
    with connection.pipeline():
        yield
        if commit:
            connection.commit()


def send(tx: Connection, sql: str, values: Mapping[str, Any] | None = None) -> psycopg.Cursor[Any]:
    """Execute SQL with the driver's own placeholders; raises ``psycopg.Error``. The cursor has the answer."""
    return _driver(tx).execute(sql, values)


def _driver(tx: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", tx.connection.driver_connection)


def insert(
    tx: Connection, table: Table, rows: Sequence[Row], *, ignore: str = "", returning: str = "", then: str = ""
) -> list[Any]:
    """Insert rows that all have the same columns.

    ``ignore``: conflict target whose repeats are left out; ``returning``: columns to give back of those inserted.
    ``then``: SQL that follows in the same statement, with those columns as ``new``; it gives nothing back.
    """
    if not rows:
        return []
    columns = tuple(rows[0])
    values, same = _columns(table, columns, rows, columns[:1])
    answer = send(tx, _insert(table, columns, same, ignore, returning, then), values)
    return answer.fetchall() if returning and not then else []


def insert_each(tx: Connection, table: Table, ones: Sequence[tuple[int, Row]], ways: Sequence[tuple[int, Row]]) -> None:
    """Insert for each of ``ones`` the rows of its way, given by its number: columns of both make a row.

    What many have in common goes over the wire once, and the server multiplies.
    """
    if ones and ways:
        mine, common = tuple(ones[0][1]), tuple(ways[0][1])
        values = _columns(table, mine, [row for _, row in ones], mine)[0]
        values |= _columns(table, common, [row for _, row in ways], common)[0]
        numbers = {"its_way": [way for way, _ in ones], "way": [way for way, _ in ways]}
        send(tx, _insert_each(table, mine, common), values | numbers)


def update(tx: Connection, table: Table, keys: tuple[str, ...], rows: Sequence[Row], *, also: str = "") -> None:
    """Update rows by key; every row has the same columns, keys among them. ``also``: further SQL assignments."""
    if rows:
        columns = tuple(rows[0])
        values, same = _columns(table, columns, rows, keys)
        send(tx, _update(table, keys, columns, same, also), values)


@cache
def _insert(
    table: Table, columns: tuple[str, ...], same: frozenset[str], ignore: str, returning: str, then: str
) -> str:
    names = ", ".join(f'"{c}"' for c in columns)
    conflict = f" ON CONFLICT ({ignore}) DO NOTHING" if ignore else ""
    values = ", ".join(_value(table, c, same) for c in columns)
    source = _source(table, columns, same)
    back = f" RETURNING {returning}" if returning else ""
    statement = f'INSERT INTO "{table.name}" ({names}) SELECT {values} FROM {source}{conflict}{back}'  # noqa: S608 - names of our own tables only
    return f"WITH new AS ({statement}){then}" if then else statement


@cache
def _insert_each(table: Table, mine: tuple[str, ...], common: tuple[str, ...]) -> str:
    names = ", ".join(f'"{c}"' for c in mine + common)
    values = ", ".join([*(f'o."{c}"' for c in mine), *(_value(table, c, frozenset()) for c in common)])
    ones, ways = (", ".join(f"CAST(%({c})s AS {_wire(table, c)}[])" for c in columns) for columns in (mine, common))
    own, theirs = (", ".join(f'"{c}"' for c in columns) for columns in (mine, common))
    return f"""INSERT INTO "{table.name}" ({names}) SELECT {values}
FROM unnest(CAST(%(its_way)s AS integer[]), {ones}) AS o(way, {own})
JOIN unnest(CAST(%(way)s AS integer[]), {ways}) AS u(way, {theirs}) ON u.way = o.way"""  # noqa: S608 - names of our own tables only


@cache
def _update(table: Table, keys: tuple[str, ...], columns: tuple[str, ...], same: frozenset[str], also: str) -> str:
    changes = ", ".join(f'"{c}" = {_value(table, c, same)}' for c in columns if c not in keys)
    where = " AND ".join(f't."{k}" = u."{k}"' for k in keys)
    source = _source(table, columns, same)
    return f'UPDATE "{table.name}" AS t SET {changes}{also} FROM {source} WHERE {where}'  # noqa: S608 - names of our own tables only


def _source(table: Table, columns: tuple[str, ...], same: frozenset[str]) -> str:
    differ = [c for c in columns if c not in same]
    arrays = ", ".join(f"CAST(%({c})s AS {_wire(table, c)}[])" for c in differ)
    return f"unnest({arrays}) AS u({', '.join(chr(34) + c + chr(34) for c in differ)})"


def _wire(table: Table, column: str) -> str:
    """The element type that goes over the wire. JSON and arrays go as text: arrays of them have no plain form."""
    kind = table.c[column].type
    return "text" if isinstance(kind, (JSONB, ARRAY)) else _sql_type(table, column)


def _value(table: Table, column: str, same: frozenset[str]) -> str:
    kind = table.c[column].type
    value = f"CAST(%({column})s AS {_wire(table, column)})" if column in same else f'u."{column}"'
    return f"{value}::{_sql_type(table, column)}" if isinstance(kind, (JSONB, ARRAY)) else value


def _sql_type(table: Table, column: str) -> str:
    return str(table.c[column].type.compile(_DIALECT)).lower()


def _columns(
    table: Table, columns: tuple[str, ...], rows: Sequence[Row], keys: tuple[str, ...]
) -> tuple[dict[str, Any], frozenset[str]]:
    """What goes over the wire for each column, and which columns say the same in all rows (never ``keys``)."""
    values: dict[str, Any] = {}
    same: set[str] = set()
    for column in columns:
        cells = [row[column] for row in rows]
        kind = table.c[column].type
        if column not in keys and (
            len(rows) == 1 or (len(rows) >= _MANY and cells[0] == cells[-1] and cells.count(cells[0]) == len(cells))
        ):
            same.add(column)
            values[column] = _cell(kind, cells[0])
        elif isinstance(kind, (JSONB, ARRAY)):
            values[column] = [_cell(kind, cell) for cell in cells]
        else:
            values[column] = cells
    return values, frozenset(same)


def _cell(kind: Any, value: Any) -> Any:
    if value is None or isinstance(value, _Encoded):
        return value
    if isinstance(kind, JSONB):
        return to_json(value)
    if isinstance(kind, ARRAY):
        return "{" + ",".join(map(str, value)) + "}"
    return value
