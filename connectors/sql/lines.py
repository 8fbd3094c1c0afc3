"""Rows as JSON lines, a block at a time, made of what PostgreSQL's COPY sends.

A record made in Python costs several microseconds, one made by PostgreSQL's JSON functions one and a half; ten million
of them should take seconds. COPY writes a cell the way JSON writes a string, but for quotes and rare characters. So a
block of rows becomes lines by splitting it into cells and joining these with the names in between: a few calls for
thousands of rows. Blocks with rare characters are taken cell by cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Wait
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import ColumnElement

from connectors.sql.errors import wrapped
from connectors.sql.schema import Table
from connectors.sql.values import Kind

Select = sa.Select[*tuple[Any, ...]]
BLOCK: Final = 256 * 1024
"""Bytes of rows that are taken together."""
DELIMITER: Final = b"\x02"
NULL: Final = b"\\N"
_COPY: Final = "COPY ({}) TO STDOUT (DELIMITER E'\\x02', ENCODING 'UTF8')"
_CONTROLS: Final = bytes(c for c in range(32) if c not in b"\x02\n")
"""Of these COPY writes some as they are, which JSON does not take."""
_RARE: Final = frozenset({b"v", DELIMITER})
"""Escapes of COPY that are none of JSON's."""
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
    """It never holds a backslash: a number, true, a time."""
    quoted: bool = False
    """JSON's quotes are sent around it, and no others."""
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows: lines of JSON that each end with a newline, and the first column of each, where it was asked for."""

    lines: bytes
    count: int
    numbers: Sequence[bytes] = ()


def cell(source: Table, column: str) -> Cell | None:
    """How to send a column so that it says what ``values.jsonable`` would; ``None``: Python has to look at it."""
    found = _by_kind(source, column)
    return replace(found, nullable=source.columns[column].nullable) if found else None


def _by_kind(source: Table, column: str) -> Cell | None:
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
            return Cell(as_json, string=False, quoted=True)  # to take the quotes off costs as much as all the rest
        case Kind.JSON:
            # The type json keeps the line breaks between values; there are none within.
            breaks, spaces = sa.literal_column(r"E'\n\r\t'", sa.Text()), sa.literal_column("'   '", sa.Text())
            on_one_line: ColumnElement[str] = sa.func.translate(sa.cast(value, sa.Text()), breaks, spaces)
            return Cell(value if here.data_type == "jsonb" else on_one_line, string=False, plain=False)
        case Kind.BYTES if here.data_type == "bytea":
            encoded = sa.func.encode(value, sa.literal_column("'base64'"))
            return Cell(sa.func.translate(encoded, sa.literal_column(r"E'\n'"), sa.literal_column("''")))
        case _:
            return Cell(sa.cast(value, sa.Text())) if here.custom else None


def copied(connection: sa.Connection, query: Select, lines: Lines, where: str) -> Generator[Block, None, None]:
    """Run a query of cells and give its rows. Raises the contract's errors; ``where`` names the table in them."""
    text = str(query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))  # type: ignore[no-untyped-call]
    # No parameters go with it, so nobody turns the compiler's %% back into %.
    statement = _COPY.format(text.replace("%%", "%")).encode()
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment] # we chose it
    over = False
    try:
        with wrapped(where):
            driver.pgconn.send_query(statement)
            driver.wait(_begun(driver.pgconn))
        while not over:
            with wrapped(where):
                rows, count, over = driver.wait(_some(driver.pgconn))
            if count:
                yield lines.block(rows, count)
    finally:
        if not over:
            connection.invalidate()  # what is still to come cannot be called off


# psycopg's own iteration over a COPY goes through four functions for each row, and takes two thirds of the time.


def _begun(pgconn: PGconn) -> PQGen[None]:
    result = yield from _result(pgconn)
    if result is None or result.status != ExecStatus.COPY_OUT:
        raise psycopg.errors.DatabaseError("the server did not begin to copy")


def _some(pgconn: PGconn) -> PQGen[tuple[bytes, int, bool]]:
    """The next rows, about a block of them; how many; and whether they are the last."""
    parts: list[bytes] = []
    size, count, take = 0, 0, pgconn.get_copy_data
    while size < BLOCK:
        # Joined as soon as there are no more: the garbage collector counts each view, and looks at all that are alive.
        rows: list[memoryview] = []
        length, row = take(1)
        while length > 0:
            rows.append(row)
            length, row = take(1)
        parts.append(b"".join(rows))
        size, count = size + len(parts[-1]), count + len(rows)
        if length == 0:
            yield from _readable(pgconn)
        else:
            while (yield from _result(pgconn)) is not None:
                pass
            return b"".join(parts), count, True
    return b"".join(parts), count, False


def _result(pgconn: PGconn) -> PQGen[PGresult | None]:
    """The next result. Raises the server's error, if it is one."""
    while pgconn.is_busy():
        yield from _readable(pgconn)
    result = pgconn.get_result()
    if result is not None and result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    return result


def _readable(pgconn: PGconn) -> PQGen[None]:
    while not (yield Wait.R):
        pass
    pgconn.consume_input()


class Lines:
    """Makes lines of the rows of one query."""

    def __init__(self, names: Sequence[str], cells: Sequence[Cell], *, numbered: bool) -> None:
        """``numbered``: a cell stands before those of the record, for ``Block.numbers``."""
        self._names = [json.dumps(name, ensure_ascii=False).encode() for name in names]
        self._cells, self._numbered = cells, numbered

    def block(self, data: bytes, count: int) -> Block:
        """The lines of ``count`` rows, as COPY sent them."""
        # What follows the backslashes; splitting at one byte is many times faster than searching for two.
        escaped = {piece[:1] for piece in data.split(b"\\")[1:]}
        if escaped & _RARE or len(data.translate(None, _CONTROLS)) != len(data):
            return self._cell_by_cell(data, count)
        cells = data.replace(b"\n", DELIMITER).split(DELIMITER)
        cells.pop()
        numbers: Sequence[bytes] = ()
        if self._numbered:
            numbers = cells[:: len(self._cells) + 1]
            del cells[:: len(self._cells) + 1]
        nulls = NULL[1:] in escaped
        if data.count(b'"') != self._own_quotes(cells, count, nulls=nulls):
            self._escape_quotes(cells)
        if escaped - {NULL[1:]}:
            self._restore_json(cells)
        quoted = [c.string for c in self._cells]
        if nulls:
            for number in self._with_nulls(cells):
                quoted[number] = False
        return Block(self._joined(cells, quoted), count, numbers)

    def _joined(self, cells: Sequence[bytes], quoted: Sequence[bool]) -> bytes:
        """Cells with the names, and quotes where they are wanted, in between: faster than any formatting."""
        quotes = [b'"' if q else b"" for q in quoted]
        ends = [b"{", *(quote + b"," for quote in quotes)]
        between = [end + name + b":" + quote for end, name, quote in zip(ends, self._names, quotes, strict=False)]
        parts = [b""] * (2 * len(cells) + 1)
        parts[1::2] = cells
        last = quotes[-1] + b"}\n"
        parts[:-1:2] = [last + between[0], *between[1:]] * (len(cells) // len(between))
        parts[0], parts[-1] = between[0], last
        return b"".join(parts)

    def _with_nulls(self, cells: list[bytes]) -> Iterator[int]:
        """The columns that hold NULLs; their cells become JSON. No other cell is the same: its backslash is double."""
        width = len(self._cells)
        for number, kind in enumerate(self._cells):
            column = cells[number::width] if kind.nullable else []
            if NULL in column:
                mark = b'"' if kind.string else b""
                cells[number::width] = [b"null" if c == NULL else mark + c + mark for c in column]
                yield number

    def _own_quotes(self, cells: Sequence[bytes], count: int, *, nulls: bool) -> int:
        """How many quotes there are if no text holds one."""
        width, own = len(self._cells), 0
        for number, kind in enumerate(self._cells):
            if kind.quoted:
                own += count - (cells[number::width].count(NULL) if nulls and kind.nullable else 0)
        return 2 * own

    def _escape_quotes(self, cells: list[bytes]) -> None:
        """Quotes that texts hold become JSON's; COPY sent them as they are."""
        for number, kind in enumerate(self._cells):
            if kind.string:
                self._replace(cells, number, b'"', b'\\"')

    def _restore_json(self, cells: list[bytes]) -> None:
        """Backslashes in cells that are JSON were doubled by COPY."""
        for number, kind in enumerate(self._cells):
            if not kind.plain:
                self._replace(cells, number, b"\\\\", b"\\")

    def _replace(self, cells: list[bytes], number: int, old: bytes, new: bytes) -> None:
        """In all cells of a column."""
        width = len(self._cells)
        whole = DELIMITER.join(cells[number::width])
        if old in whole:
            cells[number::width] = whole.replace(old, new).split(DELIMITER)

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
