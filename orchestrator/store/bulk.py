"""Many rows in one statement: arrays go over the wire, ``unnest`` makes rows of them.

One statement for a thousand rows costs one round trip and one plan, whatever the number. In a batch that goes the same
way most columns say the same in every row: those go over the wire once, as a value and not as an array of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from typing import Any, cast

import psycopg
import pydantic_core
from psycopg.pq import PipelineStatus
from sqlalchemy import Connection, Integer, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, dialect

from orchestrator.store import arrays

Row = Mapping[str, Any]
Columns = Mapping[str, Sequence[Any]]
"""Rows as their columns: of many that say the same, a column is made in one go."""
_DIALECT = dialect()  # type: ignore[no-untyped-call]
_MANY = 16
"""Rows from which on it is looked whether a column says the same in all: with fewer, more statements to prepare than
bytes to save. One alone is looked at as well: making arrays of one costs more than all else."""


def to_json(value: Any) -> str:
    """A value as ``jsonb`` takes it; what JSON does not know is told in words."""
    return pydantic_core.to_json(value, fallback=str).decode()


class _Encoded(str):
    """A JSON text."""

    __slots__ = ()


def encoded(value: Any) -> Any:
    """A value for a JSON column that many rows share: it is encoded once."""
    return _Encoded(to_json(value))


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
            # As a statement: ``commit()`` would wait in a pipeline for the answer to what is not all sent yet.
            connection.execute("COMMIT", prepare=False)


def send(tx: Connection, sql: str, values: Mapping[str, Any] | None = None) -> psycopg.Cursor[Any]:
    """Execute SQL with the driver's own placeholders; raises ``psycopg.Error``. The cursor has the answer."""
    return _driver(tx).execute(sql, values)


def _driver(tx: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", tx.connection.driver_connection)


def by_column(rows: Sequence[Row]) -> Columns:
    """Rows that all have the same columns, two at least, as those columns."""
    if not rows:
        return {}
    names = tuple(rows[0])
    return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))


def insert(
    tx: Connection,
    table: Table,
    rows: Sequence[Row] | Columns,
    *,
    ignore: str = "",
    returning: str = "",
    then: str = "",
) -> list[Any]:
    """Insert rows that all have the same columns, two at least.

    ``ignore``: conflict target whose repeats are left out; ``returning``: columns to give back of those inserted.
    ``then``: SQL that follows in the same statement, with those columns as ``new``; it gives nothing back.
    """
    columns = rows if isinstance(rows, Mapping) else by_column(rows)
    if not columns:
        return []
    names = tuple(columns)
    values, same = _values(table, columns, names[:1])
    answer = send(tx, _insert(table, names, same, ignore, returning, then), values)
    return answer.fetchall() if returning and not then else []


class Ways:
    """Rows that many things have in common: they go over the wire once, and the server multiplies."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._numbers: dict[Hashable, int] = {}
        self.rows: list[Row] = []
        self.way: list[int] = []
        """Of each row."""
        self.its_way: list[int] = []
        """Of each thing."""

    def add(self, key: Hashable, rows: Callable[[], Iterable[Row]]) -> bool:
        """Add a thing that goes this way; whether it has any rows. ``rows``: asked for once."""
        if key not in self._numbers:
            new = list(rows())
            self._numbers[key] = len(self._numbers) if new else -1
            self.rows += new
            self.way += [self._numbers[key]] * len(new)
        way = self._numbers[key]
        if way >= 0:
            self.its_way.append(way)
        return way >= 0


def insert_each(tx: Connection, table: Table, ones: Columns, ways: Ways) -> None:
    """Insert for each thing the rows of its way. ``ones``: the columns in which things differ, in order."""
    common = by_column(ways.rows)
    if len(ways.its_way) == 1:
        insert(tx, table, {**_repeated(ones, len(ways.rows)), **common})
    elif ways.its_way:
        send(tx, _insert_each(table, tuple(ones), tuple(common)), _each(table, ones, common, ways))


def update_each(tx: Connection, table: Table, ones: Columns, key: str, ways: Ways, *, also: str = "") -> None:
    """Update for each thing the rows of its way, found by what is its own (``ones``) and by ``key``."""
    common = by_column(ways.rows)
    if len(ways.its_way) == 1:
        update(tx, table, (*ones, key), {**_repeated(ones, len(ways.rows)), **common}, also=also)
    elif ways.its_way:
        send(tx, _update_each(table, tuple(ones), key, tuple(common), also), _each(table, ones, common, ways))


def _repeated(ones: Columns, n: int) -> Columns:
    """A single thing's columns for its ``n`` rows: there is nothing to multiply, and that is planned sooner."""
    return {name: list(cells) * n for name, cells in ones.items()}


def _each(table: Table, ones: Columns, common: Columns, ways: Ways) -> dict[str, Any]:
    numbers = {"its_way": arrays.packed(Integer, ways.its_way), "way": arrays.packed(Integer, ways.way)}
    return {**numbers, **{name: _array(table, name, cells) for name, cells in (*ones.items(), *common.items())}}


def update(
    tx: Connection, table: Table, keys: tuple[str, ...], rows: Sequence[Row] | Columns, *, also: str = ""
) -> None:
    """Update rows by key; every row has the same columns, keys among them. ``also``: further SQL assignments."""
    columns = rows if isinstance(rows, Mapping) else by_column(rows)
    if columns:
        values, same = _values(table, columns, keys)
        send(tx, _update(table, keys, tuple(columns), same, also), values)


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
    values = ", ".join([*(f'o."{c}"' for c in mine), *(f'u."{c}"' for c in common)])
    ways, ones = _ways(table, common), _ones(table, mine)
    return f'{ways} INSERT INTO "{table.name}" ({names}) SELECT {values} FROM {ones} JOIN u ON u.way = o.way'  # noqa: S608 - names of our own tables only


@cache
def _update_each(table: Table, mine: tuple[str, ...], key: str, common: tuple[str, ...], also: str) -> str:
    changes = ", ".join(f'"{c}" = u."{c}"' for c in common if c != key)
    where = " AND ".join(f't."{c}" = o."{c}"' for c in mine)
    where += f' AND t."{key}" = u."{key}"'
    ways, ones = _ways(table, common), _ones(table, mine)
    return f'{ways} UPDATE "{table.name}" AS t SET {changes}{also} FROM {ones} JOIN u ON u.way = o.way WHERE {where}'  # noqa: S608 - names of our own tables only


def _ways(table: Table, common: tuple[str, ...]) -> str:
    """Read once, whatever is joined to it: JSON is parsed there."""
    names = ", ".join(f'"{c}"' for c in common)
    values = ", ".join(f'{_value(table, c, frozenset())} AS "{c}"' for c in common)
    arrays = ", ".join(f"CAST(%({c})s AS {_wire(table, c)}[])" for c in common)
    return f"""WITH u AS MATERIALIZED (
    SELECT way, {values} FROM unnest(CAST(%(way)s AS integer[]), {arrays}) AS u(way, {names})
)"""  # noqa: S608 - names of our own tables only


def _ones(table: Table, mine: tuple[str, ...]) -> str:
    names = ", ".join(f'"{c}"' for c in mine)
    arrays = ", ".join(f"CAST(%({c})s AS {_wire(table, c)}[])" for c in mine)
    return f"unnest(CAST(%(its_way)s AS integer[]), {arrays}) AS o(way, {names})"


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


def _values(table: Table, columns: Columns, keys: tuple[str, ...]) -> tuple[dict[str, Any], frozenset[str]]:
    """What goes over the wire for each column, and which columns say the same in all rows (never ``keys``)."""
    values: dict[str, Any] = {}
    same: set[str] = set()
    for column, cells in columns.items():
        kind, n = table.c[column].type, len(cells)
        if column not in keys and (n == 1 or (n >= _MANY and cells[0] == cells[-1] and cells.count(cells[0]) == n)):
            same.add(column)
            values[column] = _cell(kind, cells[0])
        else:
            values[column] = _array(table, column, cells)
    return values, frozenset(same)


def _array(table: Table, column: str, cells: Sequence[Any]) -> Any:
    kind = table.c[column].type
    if isinstance(kind, (JSONB, ARRAY)):
        return arrays.packed(Text, [_cell(kind, cell) for cell in cells])
    return arrays.packed(type(kind), cells)


def _cell(kind: Any, value: Any) -> Any:
    if value is None or isinstance(value, _Encoded):
        return value
    if isinstance(kind, JSONB):
        return to_json(value)
    if isinstance(kind, ARRAY):
        return "{" + ",".join(map(str, value)) + "}"
    return value
