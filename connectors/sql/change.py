"""Changing a person's rows: rectification, restriction and suppression, and looking whether they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from connectors.contract import Action, Call, Done, Fatal, Identity, Outcome, Result, Task
from connectors.sql.config import NOW, Change
from connectors.sql.datamap import Field, Key
from connectors.sql.dialect import AsIs
from connectors.sql.erase import count, counted
from connectors.sql.graph import Graph
from connectors.sql.match import Matching
from connectors.sql.session import Select, Session
from connectors.sql.values import typed

# Rectification. --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Correction:
    """New values of one column: position of the task in the batch → value."""

    key: Key
    column: str
    values: Mapping[int, object]


def rectify(session: Session, tasks: Sequence[Task], _: Call) -> Mapping[str, Result]:
    """Write each task's corrections over every column with exactly their category."""
    results, good = _refused(session, tasks)
    if not good:
        return results
    matching = Matching(session, good)
    counts = counted(session, matching)
    for correction in _corrections(session, good):
        if correction.key in matching.found:
            _write(session, matching, correction)
    for number, task in enumerate(good):
        tables = {session.name(k) for k, f in _corrected(session.graph, task)}
        rows = {t: n for t, n in sorted(counts.get(number, {}).items()) if t in tables}
        results[task.key] = Done(Outcome.EXECUTED, rows) if rows else Done(Outcome.NO_MATCH)
    return results


def verify_rectified(session: Session, tasks: Sequence[Task], _: Call) -> Mapping[str, Result]:
    """Whether every corrected column holds the new value."""
    results, good = _refused(session, tasks)
    # After the correction of an identity, a row is found by the new one.
    known = [replace(t, identities=(*t.identities, *_new_identities(session.graph, t))) for t in good]
    matching = Matching(session, known)
    queries = [
        _differing(session, matching, correction)
        for correction in _corrections(session, known)
        if correction.key in matching.found
    ]
    wrong = count(session, queries)
    found = counted(session, matching)
    for number, task in enumerate(good):
        results[task.key] = _holds(wrong.get(number, {}), found=number in found)
    return results


def _refused(session: Session, tasks: Sequence[Task]) -> tuple[dict[str, Result], list[Task]]:
    """Answers to the tasks whose corrections cannot be made, and the other tasks."""
    results: dict[str, Result] = {}
    good: list[Task] = []
    for task in tasks:
        fault = next(_faults(session, task), None)
        if fault is not None:
            results[task.key] = Fatal(fault)
        elif not any(True for _ in _corrected(session.graph, task)):
            note = "the system holds none of the categories to correct"
            results[task.key] = Done(Outcome.NO_MATCH, note=note)
        else:
            good.append(task)
    return results, good


def _faults(session: Session, task: Task) -> Iterator[str]:
    for key, field in _corrected(session.graph, task):
        where = f"{session.name(key)}.{field.name}"
        if field.primary_key or field.read_only:
            yield f"{_category(task, field)} cannot be corrected: {where} is a key or read-only"
        column = session.catalogue.tables[key].columns[field.name]
        limits = [n for n in (column.length, field.length) if n]
        try:
            typed(column.kind, min(limits, default=None), task.corrections[_category(task, field)])
        except ValueError as error:
            yield f"the new value of {_category(task, field)} {error}"


def _corrected(graph: Graph, task: Task) -> Iterator[tuple[Key, Field]]:
    for key, collection in graph.collections.items():
        for field in collection.fields.values():
            if field.categories & set(task.corrections):
                yield key, field


def _category(task: Task, field: Field) -> str:
    return min(field.categories & set(task.corrections))


def _corrections(session: Session, tasks: Sequence[Task]) -> Iterable[Correction]:
    values: dict[tuple[Key, str], dict[int, object]] = defaultdict(dict)
    for number, task in enumerate(tasks):
        for key, field in _corrected(session.graph, task):
            kind = session.catalogue.tables[key].columns[field.name].kind
            values[key, field.name][number] = typed(kind, None, task.corrections[_category(task, field)])
    return [Correction(key, column, new) for (key, column), new in values.items()]


def _new_values(session: Session, correction: Correction) -> sa.TableClause:
    source = session.catalogue.tables[correction.key]
    subject: ColumnElement[int] = sa.literal_column("0").label("s")
    empty = sa.select(subject, source[correction.column].label("v")).select_from(source.clause).where(sa.false())
    table, _ = session.create(empty, ("s", "v"), session.name(correction.key))
    session.insert(table, [{"s": s, "v": v} for s, v in correction.values.items()])
    return table


def _write(session: Session, matching: Matching, correction: Correction) -> None:
    matched, source = matching.found[correction.key], session.catalogue.tables[correction.key]
    new = _new_values(session, correction)
    update = (
        sa.update(source.clause)
        .values({source[correction.column]: new.c["v"]})
        .where(matched.joins(source), matched.subject == new.c["s"])
    )
    session.run(session.name(correction.key), update)


def _differing(session: Session, matching: Matching, correction: Correction) -> Select:
    matched, source = matching.found[correction.key], session.catalogue.tables[correction.key]
    new = _new_values(session, correction)
    stored: ColumnElement[Any] = session.dialect.text(source[correction.column])
    return (
        sa.select(sa.literal(session.name(correction.key), sa.Text()), matched.subject, sa.func.count())
        .select_from(matched.table)
        .join(source.clause, matched.joins(source))
        .join(new, matched.subject == new.c["s"])
        .where(stored.is_distinct_from(session.dialect.text(new.c["v"])))
        .group_by(matched.subject)
    )


def _new_identities(graph: Graph, task: Task) -> Iterator[Identity]:
    for _, field in _corrected(graph, task):
        if field.identity:
            value = task.corrections[_category(task, field)].strip()
            yield Identity(field.identity, value.lower() if field.identity == "email" else value)


def _holds(wrong: Mapping[str, int], *, found: bool) -> Result:
    if wrong:
        listed = ", ".join(f"{table} {rows}" for table, rows in sorted(wrong.items()))
        return Fatal(f"rows of the person are not as they should be: {listed}")
    return Done(Outcome.VERIFIED if found else Outcome.NO_MATCH)


# Restriction and suppression. -----------------------------------------------------------------------------------


def changes_for(session: Session, task: Task, action: Action) -> tuple[Change, ...]:
    """What the settings say to set for a task's purposes."""
    config = session.config
    if action is Action.RESTRICT:
        return config.restrict
    wanted = task.purposes or set(config.suppress)
    return tuple(change for purpose in sorted(wanted) for change in config.suppress.get(purpose, ()))


def apply(session: Session, tasks: Sequence[Task], action: Action) -> Mapping[str, Result]:
    """Set what the settings say in the rows of each person."""
    results: dict[str, Result] = {}
    for changes, group in _grouped(session, tasks, action, results):
        matching = Matching(session, group)
        counts = counted(session, matching)
        affected = count(
            session, [_matching_rows(session, matching, c) for c in changes if _key(session, c) in matching.found]
        )
        for change in changes:
            if _key(session, change) in matching.found:
                _set(session, matching, change)
        for number, task in enumerate(group):
            known = number in counts
            results[task.key] = Done(Outcome.EXECUTED, affected.get(number, {})) if known else Done(Outcome.NO_MATCH)
    return results


def verify_applied(session: Session, tasks: Sequence[Task], action: Action) -> Mapping[str, Result]:
    """Whether everything is set that the settings say."""
    results: dict[str, Result] = {}
    for changes, group in _grouped(session, tasks, action, results):
        matching = Matching(session, group)
        here = [c for c in changes if _key(session, c) in matching.found]
        wrong = count(session, [_matching_rows(session, matching, c).where(_unset(session, c)) for c in here])
        found = counted(session, matching)
        for number, task in enumerate(group):
            results[task.key] = _holds(wrong.get(number, {}), found=number in found)
    return results


def _grouped(
    session: Session, tasks: Sequence[Task], action: Action, results: dict[str, Result]
) -> Iterator[tuple[tuple[Change, ...], list[Task]]]:
    """Tasks by what is to be set; those for which nothing is are answered."""
    groups: dict[frozenset[str], list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.purposes if action is Action.SUPPRESS else frozenset()].append(task)
    for group in groups.values():
        changes = changes_for(session, group[0], action)
        if changes:
            yield changes, group
            continue
        for task in group:
            results[task.key] = Done(Outcome.UNSUPPORTED, note="the settings say nothing to set for these purposes")


def _key(session: Session, change: Change) -> Key:
    key = session.graph.named(change.table)
    if key is None:
        raise Fatal(f"{change.table} is not a collection of the data map")
    return key


def _where(session: Session, change: Change) -> list[ColumnElement[bool]]:
    source = session.catalogue.tables[_key(session, change)]
    return [source[c].is_(None) if v is None else source[c] == sa.literal(v, AsIs()) for c, v in change.where.items()]


def _matching_rows(session: Session, matching: Matching, change: Change) -> Select:
    key = _key(session, change)
    matched, source = matching.found[key], session.catalogue.tables[key]
    return (
        sa.select(sa.literal(session.name(key), sa.Text()), matched.subject, sa.func.count())
        .select_from(matched.table)
        .join(source.clause, matched.joins(source))
        .where(*_where(session, change))
        .group_by(matched.subject)
    )


def _unset(session: Session, change: Change) -> ColumnElement[bool]:
    source = session.catalogue.tables[_key(session, change)]
    return sa.or_(
        *(
            source[c].is_(None) if v == NOW else source[c].is_distinct_from(sa.literal(v, AsIs()))
            for c, v in change.values.items()
        )
    )


def _set(session: Session, matching: Matching, change: Change) -> None:
    key = _key(session, change)
    matched, source = matching.found[key], session.catalogue.tables[key]
    values = {source[c]: session.now if v == NOW else v for c, v in change.values.items()}
    update = (
        sa.update(source.clause)
        .values({c: sa.literal(v, AsIs()) for c, v in values.items()})
        .where(matched.joins(source), *_where(session, change))
    )
    session.run(session.name(key), update)
