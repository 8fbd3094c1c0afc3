"""Reading: a person's records, streamed, and the identities found in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa

from connectors.contract import Call, Done, Identity, Outcome, Result, Sink, Task
from connectors.sql.datamap import Key
from connectors.sql.erase import people
from connectors.sql.errors import wrapped
from connectors.sql.lines import Cell, Lines, cell, copied
from connectors.sql.match import Matching
from connectors.sql.session import Session
from connectors.sql.values import Kind, from_microseconds, jsonable


def access(session: Session, tasks: Sequence[Task], call: Call) -> Mapping[str, Result]:
    """Write every record of every person into the sink of their task, with the columns in its scope."""
    matching = Matching(session, tasks, reading=True)
    sinks = [call.sink(task) for task in tasks]
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    if session.dialect.postgres:
        # A statement that sends ten million rows takes as long as that; it is the search that must not last.
        session.run("reading", sa.text("SET LOCAL statement_timeout = 0"))
    for group in session.graph.order:
        for key in group:
            if key in matching.found:
                for names, numbers in _scopes(session, key, tasks):
                    _stream(session, matching, key, names, numbers, sinks, counts)
    known = set(counts)
    if len(known) < len(tasks):
        known |= people(session, matching)
    return {
        task.key: Done(Outcome.EXECUTED, dict(counts[number])) if number in known else Done(Outcome.NO_MATCH)
        for number, task in enumerate(tasks)
    }


def _scopes(session: Session, key: Key, tasks: Sequence[Task]) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """The columns of a collection in scope, with the tasks in whose scope they are; mostly the same for all."""
    fields = [f for f in session.graph.collections[key].fields.values() if f.categories]
    scopes: dict[tuple[str, ...], list[int]] = defaultdict(list)
    seen: dict[frozenset[str] | None, tuple[str, ...]] = {}
    for number, task in enumerate(tasks):
        if task.categories not in seen:
            covered = (f.name for f in fields if any(task.covers(c) for c in f.categories))
            seen[task.categories] = tuple(sorted(covered))
        scopes[seen[task.categories]].append(number)
    yield from ((names, numbers) for names, numbers in scopes.items() if names)


def _stream(
    session: Session,
    matching: Matching,
    key: Key,
    names: Sequence[str],
    numbers: Sequence[int],
    sinks: Sequence[Sink],
    counts: dict[int, dict[str, int]],
) -> None:
    """Write the records of one collection for some tasks, all with the same columns."""
    label, source = session.name(key), session.catalogue.tables[key]
    cells = [cell(source, n) for n in names] if _may_copy(session) else [None]
    if None in cells:
        wanted = frozenset(numbers)
        for number, *values in rows(session, matching, key, names):
            if number in wanted:
                sinks[number].write(label, {n: jsonable(v) for n, v in zip(names, values, strict=True)})
                counts[number][label] += 1
        return
    own = _lines(session, matching, key, names, [c for c in cells if c], numbers, len(sinks))
    with closing(own):  # at once, also where a sink fails: the connection is in the middle of a COPY
        for number, lines, count in own:
            sinks[number].lines(label, lines, count)
            counts[number][label] += count


def _may_copy(session: Session) -> bool:
    """A database that knows no encoding may send bytes that are none."""
    if not session.dialect.postgres:
        return False
    encoding = session.connection.connection.driver_connection.info.parameter_status("server_encoding")  # type: ignore[union-attr] # psycopg's
    return bool(encoding != "SQL_ASCII")


def _lines(
    session: Session,
    matching: Matching,
    key: Key,
    names: Sequence[str],
    cells: Sequence[Cell],
    numbers: Sequence[int],
    tasks: int,
) -> Generator[tuple[int, bytes, int], None, None]:
    """(position of the task, lines, how many) of a collection's rows for some of the ``tasks`` of the batch."""
    matched, source = matching.found[key], session.catalogue.tables[key]
    numbered = tasks > 1
    first = [matched.subject] if numbered else []
    query = sa.select(*first, *(c.read for c in cells)).join_from(matched.table, source.clause, matched.joins(source))
    if len(numbers) < tasks:
        query = query.where(matched.subject.in_([sa.literal_column(str(n)) for n in numbers]))
    with closing(
        copied(session.connection, query, Lines(names, cells, numbered=numbered), session.name(key))
    ) as blocks:
        for block in blocks:
            if not numbered:
                yield 0, block.lines, block.count
                continue
            own: dict[bytes, list[bytes]] = defaultdict(list)
            for number, line in zip(block.numbers, block.lines.splitlines(keepends=True), strict=True):
                own[number].append(line)
            for number, lines in own.items():
                yield int(number), b"".join(lines), len(lines)


def rows(
    session: Session, matching: Matching, key: Key, names: Sequence[str], *, distinct: bool = False
) -> Iterator[Any]:
    """Stream (position of the task, value, …) of a collection's rows, a few at a time from the server."""
    matched, source = matching.found[key], session.catalogue.tables[key]
    reads = [_readable(session, source[n], source.columns[n].kind) for n in names]
    query = sa.select(matched.subject, *(read for read, _ in reads)).join_from(
        matched.table, source.clause, matched.joins(source)
    )
    if distinct:
        query = query.distinct()
    convert = [c for _, c in reads]
    name = session.name(key)
    streaming = session.connection.execution_options(stream_results=True, yield_per=session.config.fetch_rows)
    with wrapped(name):
        result = streaming.execute(query)
    with result:
        partitions = result.partitions()
        while True:
            with wrapped(name):
                part = next(partitions, None)
            if part is None:
                return
            for number, *values in part:
                yield (number, *(c(v) if c else v for c, v in zip(convert, values, strict=True)))


def _readable(session: Session, column: Any, kind: Kind) -> tuple[Any, Callable[[Any], Any] | None]:
    """What to select for a column, and how to turn it into its value."""
    if session.dialect.duckdb and kind is Kind.TIMESTAMPTZ:
        # The driver needs a further package for times with a zone.
        return sa.func.epoch_us(column), from_microseconds
    return column, None


def discover(session: Session, tasks: Sequence[Task], _: Call) -> Mapping[str, Result]:
    """Every identity in the rows of each person."""
    matching = Matching(session, tasks, reading=True)
    found: dict[int, dict[Identity, None]] = defaultdict(dict)
    for key in matching.found:
        fields = [f for f in session.graph.collections[key].fields.values() if f.identity]
        if not fields:
            continue
        for number, *values in rows(session, matching, key, [f.name for f in fields], distinct=True):
            for field, value in zip(fields, values, strict=True):
                identity = _identity(field.identity or "", value)
                if identity is not None:
                    found[number][identity] = None
    known = set(found)
    if len(known) < len(tasks):
        known |= people(session, matching)
    return {
        task.key: Done(Outcome.EXECUTED, {"identities": len(found[number])}, found=tuple(found[number]))
        if number in known
        else Done(Outcome.NO_MATCH)
        for number, task in enumerate(tasks)
    }


def _identity(kind: str, value: object) -> Identity | None:
    """A stored value as an identity, normalised; masked and empty values are none."""
    text = str(value).strip() if value is not None else ""
    if kind == "email":
        text = text.lower()
    if not text or text == "masked" or text.startswith(("sha256:", "random:")):
        return None
    return Identity(kind, text)
