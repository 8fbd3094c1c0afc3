"""Many rows in one statement: arrays go over the wire, ``unnest`` makes rows of them.

One statement for a thousand rows costs one round trip and one plan, whatever the number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, TextClause, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, dialect

Row = Mapping[str, Any]
_DIALECT = dialect()  # type: ignore[no-untyped-call]
to_json = json.JSONEncoder(default=str, separators=(",", ":")).encode
"""A value as ``jsonb`` takes it; made once, for making an encoder costs more than encoding a small value."""


def insert(tx: Connection, table: Table, rows: Sequence[Row], *, ignore: str = "", returning: str = "") -> list[Any]:
    """Insert rows that all have the same columns.

    ``ignore``: conflict target whose repeats are left out; ``returning``: columns to give back of those inserted.
    """
    if not rows:
        return []
    statement = _insert(table, tuple(rows[0]), ignore, returning)
    result = tx.execute(statement, _columns(table, rows))
    return list(result.all()) if returning else []


def update(tx: Connection, table: Table, keys: tuple[str, ...], rows: Sequence[Row], *, also: str = "") -> None:
    """Update rows by key; every row has the same columns, keys among them. ``also``: further SQL assignments."""
    if rows:
        tx.execute(_update(table, keys, tuple(rows[0]), also), _columns(table, rows))


@cache
def _insert(table: Table, columns: tuple[str, ...], ignore: str, returning: str) -> TextClause:
    names = ", ".join(f'"{c}"' for c in columns)
    conflict = f" ON CONFLICT ({ignore}) DO NOTHING" if ignore else ""
    back = f" RETURNING {returning}" if returning else ""
    values = ", ".join(_value(table, c) for c in columns)
    return text(f'INSERT INTO "{table.name}" ({names}) SELECT {values} FROM {_source(table, columns)}{conflict}{back}')  # noqa: S608 - names of our own tables only


@cache
def _update(table: Table, keys: tuple[str, ...], columns: tuple[str, ...], also: str) -> TextClause:
    changes = ", ".join(f'"{c}" = {_value(table, c)}' for c in columns if c not in keys)
    where = " AND ".join(f't."{k}" = u."{k}"' for k in keys)
    return text(f'UPDATE "{table.name}" AS t SET {changes}{also} FROM {_source(table, columns)} WHERE {where}')  # noqa: S608 - names of our own tables only


def _source(table: Table, columns: tuple[str, ...]) -> str:
    arrays = ", ".join(f"CAST(:{c} AS {_wire(table, c)}[])" for c in columns)
    return f"unnest({arrays}) AS u({', '.join(chr(34) + c + chr(34) for c in columns)})"


def _wire(table: Table, column: str) -> str:
    """The element type that goes over the wire. JSON and arrays go as text: arrays of them have no plain form."""
    kind = table.c[column].type
    return "text" if isinstance(kind, (JSONB, ARRAY)) else _sql_type(table, column)


def _value(table: Table, column: str) -> str:
    kind = table.c[column].type
    cast = f"::{_sql_type(table, column)}" if isinstance(kind, (JSONB, ARRAY)) else ""
    return f'u."{column}"{cast}'


def _sql_type(table: Table, column: str) -> str:
    return str(table.c[column].type.compile(_DIALECT)).lower()


def _columns(table: Table, rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {c: _column(table.c[c].type, [row[c] for row in rows]) for c in rows[0]}


def _column(kind: Any, values: list[Any]) -> list[Any]:
    if isinstance(kind, JSONB):
        return [None if v is None else to_json(v) for v in values]
    if isinstance(kind, ARRAY):
        return [None if v is None else "{" + ",".join(map(str, v)) + "}" for v in values]
    return values
