"""Erasure: rows masked, then deleted, children before parents, for the whole batch at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from connectors.contract import Done, Fatal, Outcome, Result, Retention, Task
from connectors.sql.config import Retain
from connectors.sql.datamap import Key
from connectors.sql.keeping import Keeping, Scope, Stay
from connectors.sql.masking import Masked, any_dirty, mask, masked_columns
from connectors.sql.match import Matched, Matching, Select, Session

Counts = Mapping[int, Mapping[str, int]]
"""Position of the task in the batch → collection → rows."""


class Erasure:
    """The erasure of one batch of people, all with the same scope."""

    def __init__(self, session: Session, tasks: Sequence[Task]) -> None:
        """Finds the rows and decides what becomes of each; changes nothing yet."""
        self._session, self._tasks = session, tasks
        self._scope = Scope(session, tasks[0].covers, everything=tasks[0].categories is None)
        self._matching = Matching(session, tasks)
        self._keeping = Keeping(session, self._matching, self._scope)
        self._keeping.decide()

    def erase(self) -> Mapping[str, Result]:
        """Do it; the caller commits."""
        deleted, masked, retained = self._count_deleted(), self._count_masked(), self._retentions()
        self._keeping.clear_pointers(self._nulled)
        for key in self._keeping.order:
            for rows, columns in self._masks(key):
                self._mask(key, rows, columns)
        for key in self._keeping.order:
            if key in self._matching.found and key in self._scope.deleted:
                self._delete(key)
        return {t.key: self._done(n, deleted, masked, retained) for n, t in enumerate(self._tasks)}

    def verify(self) -> Mapping[str, Result]:
        """Whether nothing is left to do, person by person."""
        left: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for counts in (self._count_deleted(), self._count_masked()):
            for number, tables in counts.items():
                for table, rows in tables.items():
                    left[number][table] += rows
        retained = self._retentions()
        results: dict[str, Result] = {}
        for number, task in enumerate(self._tasks):
            remaining = {t: n for t, n in left.get(number, {}).items() if n}
            if remaining:
                listed = ", ".join(f"{table} {rows}" for table, rows in sorted(remaining.items()))
                results[task.key] = Fatal(f"rows of the person remain that should be erased or masked: {listed}")
            else:
                results[task.key] = Done(Outcome.VERIFIED, retained=retained.get(number, ()))
        return results

    def _done(
        self, number: int, deleted: Counts, masked: Counts, retained: Mapping[int, tuple[Retention, ...]]
    ) -> Done:
        gone, hidden = deleted.get(number, {}), masked.get(number, {})
        counts = {t: gone.get(t, 0) + hidden.get(t, 0) for t in sorted({*gone, *hidden})}
        evidence = {k: dict(v) for k, v in (("deleted", gone), ("masked", hidden)) if v}
        if retained.get(number):
            return Done(Outcome.RETAINED, counts, retained=retained[number], evidence=evidence)
        if not counts and number not in self._people:
            return Done(Outcome.NO_MATCH)
        return Done(Outcome.EXECUTED, counts, evidence=evidence)

    @cached_property
    def _people(self) -> set[int]:
        """Positions of the tasks of which any row was found; asked for only when a task changed nothing."""
        return people(self._session, self._matching)

    # Statements. -----------------------------------------------------------------------------------------------

    def _masks(self, key: Key) -> Iterator[tuple[ColumnElement[bool], list[Masked]]]:
        """Which of a collection's rows get which columns masked."""
        matched = self._matching.found.get(key)
        if matched is None or key not in self._scope.touched:
            return
        columns = masked_columns(self._session, key, self._scope.covers, everything=self._scope.everything)
        may_stay = key in self._keeping.may_stay
        if key not in self._scope.deleted:
            yield matched.stay.in_([Stay.NO.value, Stay.POINTED_AT.value]), columns
        elif may_stay:
            yield matched.stay == Stay.POINTED_AT.value, columns
        if may_stay:
            links = self._session.graph.links(key)
            yield matched.stay == Stay.PATH.value, [c for c in columns if c.column not in links]
        if key in self._scope.retained:
            extra = [mask(self._session, key, c) for c in self._scope.retained[key].mask]
            yield matched.stay == Stay.RETAINED.value, extra

    def _nulled(self, key: Key) -> frozenset[str]:
        """The columns that masking sets to NULL in every row of a collection that is found and not kept by law."""
        if key in self._scope.deleted or key not in self._scope.touched:
            return frozenset()
        columns = masked_columns(self._session, key, self._scope.covers, everything=self._scope.everything)
        return frozenset(c.column for c in columns if isinstance(c.value, sa.Null))

    def _mask(self, key: Key, rows: ColumnElement[bool], columns: list[Masked]) -> None:
        if not columns:
            return
        matched, source = self._matching.found[key], self._session.catalogue.tables[key]
        update = (
            sa.update(source.clause)
            .values({source[c.column]: c.value for c in columns})
            .where(matched.joins(source), rows, any_dirty(columns))
        )
        self._session.run(self._session.name(key), update)

    def _delete(self, key: Key) -> None:
        matched, source = self._matching.found[key], self._session.catalogue.tables[key]
        rows = [matched.stay == Stay.NO.value] if key in self._keeping.may_stay else []
        self._session.run(self._session.name(key), sa.delete(source.clause).where(matched.joins(source), *rows))
        if self._session.dialect.duckdb and self._session.catalogue.foreign_keys:
            # DuckDB takes a deleted child for present until the transaction ends. Children first: what is left after
            # a failure in between can still be found and erased.
            self._session.connection.commit()

    # Counts. ---------------------------------------------------------------------------------------------------

    def _count_deleted(self) -> Counts:
        queries = [
            _per_person(self._session.name(key), matched).where(matched.stay == Stay.NO.value)
            for key, matched in self._matching.found.items()
            if key in self._scope.deleted
        ]
        return count(self._session, queries)

    def _count_masked(self) -> Counts:
        queries = []
        for key, matched in self._matching.found.items():
            source = self._session.catalogue.tables[key]
            queries += [
                _per_person(self._session.name(key), matched)
                .join(source.clause, matched.joins(source))
                .where(rows, any_dirty(columns))
                for rows, columns in self._masks(key)
                if columns
            ]
        return count(self._session, queries)

    def _retentions(self) -> Mapping[int, tuple[Retention, ...]]:
        kept: dict[int, list[Retention]] = defaultdict(list)
        found = [(k, r) for k, r in self._scope.retained.items() if k in self._matching.found]
        # What is kept along with another table has that table's reason and period, so that table comes first.
        for key, retain in sorted(found, key=lambda item: item[1].along is not None):
            leader = self._session.graph.named(retain.along) if retain.along else None
            for number, rows, until in self._kept(key, retain):
                owner = next((r for r in kept[number] if leader and r.what == self._session.name(leader)), None)
                kept[number].append(
                    Retention(
                        self._session.name(key),
                        retain.reason or (owner.reason if owner else ""),
                        retain.legal_basis or (owner.legal_basis if owner else ""),
                        rows,
                        owner.until if owner else until,
                    )
                )
        return {n: tuple(r) for n, r in kept.items()}

    def _kept(self, key: Key, retain: Retain) -> Iterator[tuple[int, int, date | None]]:
        """Per person: how many rows are kept, and until when the last of them."""
        matched, source = self._matching.found[key], self._session.catalogue.tables[key]
        start: ColumnElement[Any] = source[retain.since] if retain.since else sa.null()
        if retain.since and self._session.dialect.duckdb:
            start = sa.cast(start, sa.Date())
        query = (
            sa.select(matched.subject, sa.func.count(), sa.func.max(start), sa.func.count(start))
            .select_from(matched.table)
            .join(source.clause, matched.joins(source))
            .where(matched.stay == Stay.RETAINED.value)
            .group_by(matched.subject)
        )
        for number, rows, latest, dated in self._session.run(self._session.name(key), query):
            yield number, rows, retain.until(_day(latest)) if rows == dated and latest is not None else None


def _day(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


def _per_person(name: str, matched: Matched) -> Select:
    label = sa.literal(name, sa.Text()).label("collection")
    return sa.select(label, matched.subject, sa.func.count()).select_from(matched.table).group_by(matched.subject)


def count(session: Session, queries: Sequence[Select]) -> Counts:
    """Run queries for (collection, task, rows) in one statement."""
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    if queries:
        for table, number, rows in session.run("counting", sa.union_all(*queries)).all():
            counts[number][table] += rows
    return {n: dict(tables) for n, tables in counts.items()}


def counted(session: Session, matching: Matching) -> Counts:
    """How many rows of each collection belong to each person."""
    return count(session, [_per_person(session.name(k), m) for k, m in matching.found.items()])


def people(session: Session, matching: Matching) -> set[int]:
    """Positions of the tasks of which any row was found."""
    queries: list[Select] = []
    for key, matched in matching.found.items():
        query = sa.select(matched.subject).select_from(matched.table)
        if matched.on is not None:
            rows: Select = sa.select(sa.literal_column("1")).select_from(session.catalogue.tables[key].clause)
            query = query.where(rows.where(matched.on).correlate(matched.table).exists())
        queries.append(query)
    return {row[0] for row in session.run("counting", sa.union(*queries))} if queries else set()
