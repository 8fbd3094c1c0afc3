"""Rows as JSON lines, a block at a time, made of what PostgreSQL's COPY sends.

A record made in Python costs several microseconds, one made by PostgreSQL's JSON functions one and a half; ten million
of them should take seconds. COPY writes a cell the way JSON writes a string, but for quotes and rare characters. So a
block of rows becomes lines by splitting it into cells and joining these with the names in between: a few calls for
thousands of rows. Blocks with rare characters are taken cell by cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import ColumnElement

from connectors.sql.errors import wrapped
from connectors.sql.schema import Table
from connectors.sql.values import Kind

BLOCK: Final = 256 * 1024
"""Bytes of rows that are taken together."""
DELIMITER: Final = b"\x02"
NULL: Final = b"\\N"
_COPY: Final = "COPY ({}) TO STDOUT (DELIMITER E'\\x02', ENCODING 'UTF8')"
_CONTROLS: Final = bytes(c for c in range(32) if c not in b"\x02\n")
"""Of these COPY writes some as they are, which JSON does not take."""
_CELL: Final = re.compile(rb"((?:[^\\\x02\n]|\\.)*)[\x02\n]", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class Cell:
    """How a column is sent, and what it is in JSON."""

    read: ColumnElement[Any]
    string: bool = True
    """It becomes a string; otherwise what is sent is JSON already."""
    plain: bool = True
    """JSON that never holds a quote or a backslash: a number, true, false."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows: lines of JSON that each end with a newline, and the first column of each, where it was asked for."""

    lines: bytes
    count: int
    numbers: Sequence[bytes] = ()


def cell(source: Table, column: str) -> Cell | None:
    """How to send a column so that it says what ``values.jsonable`` would; ``None``: Python has to look at it."""
    value, here = source[column], source.columns[column]
    as_json = sa.func.to_json(value)
    match here.kind:
        case Kind.TEXT | Kind.CITEXT | Kind.UUID | Kind.INET | Kind.TIME:
            return Cell(value)
        case Kind.INTEGER:
            return Cell(value, string=False)
        case Kind.BOOLEAN:
            return Cell(sa.cast(value, sa.Text()), string=False)
        case Kind.NUMBER:
            return Cell(value) if here.data_type == "numeric" else Cell(as_json, string=False, plain=False)
        case Kind.DATE | Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return Cell(sa.func.btrim(sa.cast(as_json, sa.Text()), sa.literal_column("'\"'")))
        case Kind.JSON if here.data_type == "jsonb":
            return Cell(value, string=False, plain=False)
        case Kind.JSON:
            spaces = (sa.literal_column(r"E'\n\r\t'"), sa.literal_column("'   '"))
            return Cell(sa.func.translate(sa.cast(value, sa.Text()), *spaces), string=False, plain=False)
        case Kind.BYTES if here.data_type == "bytea":
            encoded = sa.func.encode(value, sa.literal_column("'base64'"))
            return Cell(sa.func.translate(encoded, sa.literal_column(r"E'\n'"), sa.literal_column("''")))
        case _:
            return Cell(sa.cast(value, sa.Text())) if here.custom else None


def copied(connection: sa.Connection, query: sa.Select[Any], lines: Lines, where: str) -> Iterator[Block]:
    """Run a query of cells and give its rows. Raises the contract's errors; ``where`` names the table in them."""
    text = str(query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))  # type: ignore[no-untyped-call]
    # No parameters go with it, so nobody turns the compiler's %% back into %.
    statement = _COPY.format(text.replace("%%", "%"))
    cursor = connection.connection.cursor()
    rows: list[Any] = []
    size = 0
    with wrapped(where), cursor, cursor.copy(statement) as copy:  # type: ignore[attr-defined] # psycopg's
        for row in copy:
            rows.append(row)
            size += len(row)
            if size >= BLOCK:
                yield lines.block(rows)
                rows.clear()
                size = 0
    if rows:
        yield lines.block(rows)


class Lines:
    """Makes lines of the rows of one query."""

    def __init__(self, names: Sequence[str], cells: Sequence[Cell], *, numbered: bool) -> None:
        """``numbered``: a cell stands before those of the record, for ``Block.numbers``."""
        self._names = [json.dumps(name, ensure_ascii=False).encode() for name in names]
        self._cells, self._numbered = cells, numbered
        quotes = [b'"' if c.string else b"" for c in cells]
        ends = [b"{", *(quote + b"," for quote in quotes)]
        before = [end + name + b":" + quote for end, name, quote in zip(ends, self._names, quotes, strict=False)]
        self._first, self._end = before[0], quotes[-1] + b"}\n"
        self._between = [self._end + before[0], *before[1:]]

    def block(self, rows: Sequence[bytes]) -> Block:
        """The lines of some rows, each as COPY sent it."""
        data = b"".join(rows)
        escapes = b"\\" in data
        if len(data.translate(None, _CONTROLS)) != len(data) or (
            escapes and (b"\\v" in data or b"\\" + DELIMITER in data)
        ):
            return self._cell_by_cell(data, len(rows))
        nulls = escapes and NULL in data
        quotes = b'"' in data
        if quotes:
            data = data.replace(b'"', b'\\"')
        cells = data.replace(b"\n", DELIMITER).split(DELIMITER)
        cells.pop()
        numbers: Sequence[bytes] = ()
        if self._numbered:
            numbers = cells[:: len(self._cells) + 1]
            del cells[:: len(self._cells) + 1]
        if quotes or escapes:
            self._restore_json(cells)
        lines = self._joined(cells)
        if nulls:
            # No cell holds these: its own backslashes are double.
            lines = lines.replace(b'"\\N"', b"null").replace(b":\\N,", b":null,").replace(b":\\N}", b":null}")
        return Block(lines, len(rows), numbers)

    def _joined(self, cells: Sequence[bytes]) -> bytes:
        """Cells with the names in between: faster than any formatting."""
        parts = [b""] * (2 * len(cells) + 1)
        parts[1::2] = cells
        parts[:-1:2] = self._between * (len(cells) // len(self._between))
        parts[0], parts[-1] = self._first, self._end
        return b"".join(parts)

    def _restore_json(self, cells: list[bytes]) -> None:
        """Cells that are JSON have quotes of their own, and COPY doubled their backslashes."""
        width = len(self._cells)
        for number, kind in enumerate(self._cells):
            if not kind.plain:
                whole = DELIMITER.join(cells[number::width])
                whole = whole.replace(b'\\"', b'"').replace(b"\\\\", b"\\")
                cells[number::width] = whole.split(DELIMITER)

    def _cell_by_cell(self, data: bytes, count: int) -> Block:
        cells = [m[1] for m in _CELL.finditer(data)]
        width = len(self._cells) + self._numbered
        numbers = cells[::width] if self._numbered else ()
        lines = bytearray()
        for start in range(int(self._numbered), len(cells), width):
            row = cells[start : start + len(self._cells)]
            values = (n + b":" + _json(c, k) for n, c, k in zip(self._names, row, self._cells, strict=True))
            lines += b"{" + b",".join(values) + b"}\n"
        return Block(bytes(lines), count, numbers)


def _json(cell: bytes, kind: Cell) -> bytes:
    if cell == NULL:
        return b"null"
    plain = _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[1]), cell)
    return json.dumps(plain.decode(), ensure_ascii=False).encode() if kind.string else plain
