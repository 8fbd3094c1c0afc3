"""Reading: a person's records, streamed, and the identities found in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from connectors.contract import Call, Done, Identity, Outcome, Result, Sink, Task
from connectors.sql.datamap import Key
from connectors.sql.erase import people
from connectors.sql.errors import wrapped
from connectors.sql.match import Matching, Session
from connectors.sql.values import Kind, from_microseconds, jsonable


def access(session: Session, tasks: Sequence[Task], call: Call) -> Mapping[str, Result]:
    """Write every record of every person into the sink of their task, with the columns in its scope."""
    matching = Matching(session, tasks)
    sinks = [call.sink(task) for task in tasks]
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for group in session.graph.order:
        for key in group:
            if key in matching.found:
                _stream(session, matching, key, tasks, sinks, counts)
    known = people(session, matching)
    return {
        task.key: Done(Outcome.EXECUTED, dict(counts[number])) if number in known else Done(Outcome.NO_MATCH)
        for number, task in enumerate(tasks)
    }


def _stream(
    session: Session,
    matching: Matching,
    key: Key,
    tasks: Sequence[Task],
    sinks: Sequence[Sink],
    counts: dict[int, dict[str, int]],
) -> None:
    fields = [f for f in session.graph.collections[key].fields.values() if f.categories]
    allowed = [frozenset(f.name for f in fields if any(t.covers(c) for c in f.categories)) for t in tasks]
    names = sorted(frozenset().union(*allowed))
    if not names:
        return
    label = session.name(key)
    for number, *values in rows(session, matching, key, names):
        record = {n: jsonable(v) for n, v in zip(names, values, strict=True) if n in allowed[number]}
        if record:
            sinks[number].write(label, record)
            counts[number][label] += 1


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
    matching = Matching(session, tasks)
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
    known = people(session, matching)
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
