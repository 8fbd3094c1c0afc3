"""Erasure: rows masked, then deleted, children before parents, for the whole batch at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from connectors.contract import Done, Fatal, Outcome, Result, Retention, Task
from connectors.sql.config import Retain
from connectors.sql.datamap import Key
from connectors.sql.keeping import Keeping, Scope, Stay
from connectors.sql.masking import Masked, any_dirty, kept_mask, masked_columns
from connectors.sql.match import Matching, Way
from connectors.sql.matched import Matched
from connectors.sql.schema import LOCATION, Table
from connectors.sql.session import Query, Select, Session

Counts = Mapping[int, Mapping[str, int]]
"""Position of the task in the batch → collection → rows."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one statement does to rows of one collection."""

    key: Key
    rows: ColumnElement[bool]
    """Which of the matched rows, by why they stay."""
    columns: Sequence[Masked] | None = None
    """To be masked; ``None``: the rows are deleted."""
    let_go: Sequence[Masked] = ()
    """Pointers to be set to NULL along with it, which does not count as masking."""


class Erasure:
    """The erasure of one batch of people, all with the same scope."""

    def __init__(self, session: Session, tasks: Sequence[Task]) -> None:
        """Finds the rows and decides what becomes of each; changes nothing yet."""
        self._session, self._tasks = session, tasks
        self._scope = Scope(session, tasks[0].covers, everything=tasks[0].categories is None)
        self._keeping = Keeping(session, self._scope)
        self._matching = Matching(session, tasks, leaves=self._keeping.leaves, inner=self._keeping.inner)
        self._keeping.decide(self._matching.found)
        found = [k for k in self._keeping.order if k in self._matching.found and k in self._scope.touched]
        self._masks = [change for key in found for change in self._masking(key)]
        self._deletions = [Change(k, self._goes(k)) for k in found if k in self._scope.deleted]

    def erase(self) -> Mapping[str, Result]:
        """Do it; the caller commits."""
        retained = self._retentions()
        if self._session.dialect.postgres:
            masked = self._counting(self._masks)
            self._keeping.clear_pointers(self._nulled)
            deleted = self._counting(self._deletions)
        else:
            masked, deleted = self._count(self._masks), self._count(self._deletions)
            self._change(self._masks)
            self._keeping.clear_pointers(self._nulled)
            self._change(self._deletions)
        said: dict[object, Done] = {}
        results: dict[str, Result] = {}
        for number, task in enumerate(self._tasks):
            of = deleted.get(number, {}), masked.get(number, {}), retained.get(number, ())
            # Of many people the same was erased: said once.
            same = (tuple(of[0].items()), tuple(of[1].items()), of[2]) if any(of) else number
            if same not in said:
                said[same] = self._done(number, *of)
            results[task.key] = said[same]
        return results

    def verify(self) -> Mapping[str, Result]:
        """Whether nothing is left to do, person by person."""
        left: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for counts in (self._count(self._deletions), self._count(self._masks)):
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
        self, number: int, gone: Mapping[str, int], hidden: Mapping[str, int], retained: tuple[Retention, ...]
    ) -> Done:
        counts = {t: gone.get(t, 0) + hidden.get(t, 0) for t in sorted({*gone, *hidden})}
        evidence = {k: dict(v) for k, v in (("deleted", gone), ("masked", hidden)) if v}
        if retained:
            return Done(Outcome.RETAINED, counts, retained=retained, evidence=evidence)
        if not counts and number not in self._people:
            return Done(Outcome.NO_MATCH)
        return Done(Outcome.EXECUTED, counts, evidence=evidence)

    @cached_property
    def _people(self) -> set[int]:
        """Positions of the tasks of which any row was found; asked for only when a task changed nothing."""
        return people(self._session, self._matching)

    # What is to change. ----------------------------------------------------------------------------------------

    def _masking(self, key: Key) -> Iterator[Change]:
        """Which of a collection's rows get which columns masked."""
        stay = self._matching.found[key].stay
        columns = masked_columns(self._session, key, self._scope.covers, everything=self._scope.everything)
        marked = {why for collection, why in self._keeping.marked if collection == key}
        if key in self._keeping.leaves:
            source, names = self._session.catalogue.tables[key], {c.column for c in columns}
            let_go = [
                Masked(column, points, sa.case((points, sa.null()), else_=source[column]))
                for column, points in self._keeping.let_go(key, source).items()
                if column not in names
            ]
            if key not in self._scope.deleted and (columns or let_go):
                yield Change(key, sa.true(), columns, let_go)
            return
        if key not in self._scope.deleted:
            yield from _some(key, stay.in_([Stay.NO.value, Stay.POINTED_AT.value]), columns)
        elif Stay.POINTED_AT in marked:
            yield from _some(key, stay == Stay.POINTED_AT.value, columns)
        if Stay.PATH in marked:
            links = self._session.graph.links(key)
            yield from _some(key, stay == Stay.PATH.value, [c for c in columns if c.column not in links])
        if Stay.RETAINED in marked:
            extra = [kept_mask(self._session, key, c) for c in self._scope.retained[key].mask]
            yield from _some(key, stay == Stay.RETAINED.value, extra)

    def _goes(self, key: Key) -> ColumnElement[bool]:
        """A row is deleted."""
        return self._matching.found[key].stay == Stay.NO.value if key in self._keeping.may_stay else sa.true()

    def _nulled(self, key: Key) -> frozenset[str]:
        """The columns that masking sets to NULL in every row of a collection that is found and not kept by law."""
        if key in self._scope.deleted or key not in self._scope.touched:
            return frozenset()
        columns = masked_columns(self._session, key, self._scope.covers, everything=self._scope.everything)
        return frozenset(c.column for c in columns if isinstance(c.value, sa.Null))

    # Statements. -----------------------------------------------------------------------------------------------

    def _change(self, changes: Iterable[Change]) -> None:
        for change in changes:
            key = change.key
            matched, source = self._matching.found[key], self._session.catalogue.tables[key]
            where = [matched.joins(source), change.rows]
            if change.columns:
                where.append(any_dirty(change.columns))
            self._session.run(self._session.name(key), _statement(source, change).where(*where))
            if self._session.dialect.duckdb and change.columns is None and self._session.catalogue.foreign_keys:
                # DuckDB takes a deleted child for present until the transaction ends. Children first: what is left
                # after a failure in between can still be found and erased.
                self._session.connection.commit()

    def _counting(self, changes: Iterable[Change]) -> Counts:
        """Change and count, in one statement for each (PostgreSQL)."""
        counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for change in changes:
            name = self._session.name(change.key)
            for rows, numbers in self._session.run(name, self._changing(change)):
                if numbers is None and rows:
                    # Somebody has just changed, and so moved, rows: once more, by what tells them apart.
                    self._change([change])
                for number in numbers or ():
                    counts[number][name] += rows
        return counts

    def _changing(self, change: Change) -> Query:
        """Changes, and gives (rows, the tasks with so many); last (rows that were not where they lay, NULL)."""
        source = self._session.catalogue.tables[change.key]
        if change.key in self._matching.direct and not change.let_go:
            return self._changing_own(change, self._matching.direct[change.key])
        due = self._due(change).cte("due")
        rows = self._matching.found[change.key].within(due)
        where = rows.joins(source)
        if source.located:
            here = source[LOCATION] == sa.any_(sa.func.array(sa.select(rows[LOCATION]).scalar_subquery()))
            # What was found by an earlier statement may be gone, and another row lie in its place.
            where = here if self._fresh(change) else sa.and_(here, where)
        changed = _statement(source, change).where(where).returning(sa.literal_column("1")).cte("changed")
        each = sa.select(due.c["s"], sa.func.count().label("n")).where(_counts(change, due)).group_by(due.c["s"])
        found = each.subquery("each")
        missed = sa.select(_missed(rows, changed) if source.located else sa.literal_column("0"), sa.null())
        return sa.union_all(
            sa.select(found.c["n"], sa.func.array_agg(found.c["s"])).group_by(found.c["n"]), missed
        ).add_cte(changed)

    def _changing_own(self, change: Change, way: Way) -> Query:
        """The same where each row belongs to one person: what is changed is what is found, wherever it moved."""
        statement = _statement(self._session.catalogue.tables[change.key], change).where(way.on)
        if change.columns is not None:
            statement = statement.where(any_dirty(change.columns))
        changed = statement.returning(way.subject.label("s")).cte("changed")
        each = sa.select(changed.c["s"], sa.func.count().label("n")).group_by(changed.c["s"]).subquery("each")
        return sa.select(each.c["n"], sa.func.array_agg(each.c["s"])).group_by(each.c["n"])

    def _fresh(self, change: Change) -> bool:
        """The statement itself looks where the rows lie."""
        return change.columns is not None or change.key in self._keeping.leaves

    def _count(self, changes: Iterable[Change]) -> Counts:
        queries = []
        for change in changes:
            due = self._due(change).subquery("due")
            label = sa.literal(self._session.name(change.key), sa.Text()).label("collection")
            query = sa.select(label, due.c["s"], sa.func.count()).where(_counts(change, due))
            queries.append(query.group_by(due.c["s"]))
        return count(self._session, queries)

    def _due(self, change: Change) -> Select:
        """The rows that a change concerns, for each person; those that are masked already it does not."""
        key, source = change.key, self._session.catalogue.tables[change.key]
        if change.let_go:
            return self._due_with_pointers(change)
        matched = self._matching.found[key]
        conditions = [any_dirty(change.columns)] if change.columns is not None else []
        leaf = key in self._keeping.leaves
        if leaf:
            matched = self._matching.narrowed(key, *conditions)
        query = sa.select(matched.subject, *_copies(matched)).select_from(matched.table)
        if leaf:
            return query
        if conditions:
            query = query.join(source.clause, matched.joins(source)).where(*conditions)
            if source.located:
                query = query.with_only_columns(
                    matched.subject, *_copies(matched, LOCATION), source[LOCATION].label(matched.of[LOCATION])
                )
        return query.where(change.rows)

    def _due_with_pointers(self, change: Change) -> Select:
        """The same for a leaf that must let go of rows."""
        matched = self._matching.narrowed(change.key, dirty=any_dirty(change.columns or ()))
        # Found first, then filtered: the planner would count what the filter costs anew for each row of a parent.
        found = sa.select(matched.table).cte().prefix_with("MATERIALIZED", dialect="postgresql")
        rows, columns = matched.within(found), {c.column for c in change.let_go}
        points = [p for column, p in self._keeping.let_go(change.key, rows).items() if column in columns]
        dirty = found.c["dirty"]
        return sa.select(rows.subject, *_copies(rows), dirty).where(sa.or_(dirty, *points))

    def _retentions(self) -> Mapping[int, tuple[Retention, ...]]:
        kept: dict[int, list[Retention]] = defaultdict(list)
        found = [(k, r) for k, r in self._scope.retained.items() if (k, Stay.RETAINED) in self._keeping.marked]
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
        matched = self._matching.found[key]
        start: ColumnElement[Any] = matched[retain.since] if retain.since else sa.null()
        if retain.since and self._session.dialect.duckdb:
            start = sa.cast(start, sa.Date())
        query = (
            sa.select(matched.subject, sa.func.count(), sa.func.max(start), sa.func.count(start))
            .select_from(matched.table)
            .where(matched.stay == Stay.RETAINED.value)
            .group_by(matched.subject)
        )
        for number, rows, latest, dated in self._session.run(self._session.name(key), query):
            yield number, rows, retain.until(_day(latest)) if rows == dated and latest is not None else None


def _some(key: Key, rows: ColumnElement[bool], columns: Sequence[Masked]) -> Iterator[Change]:
    if columns:
        yield Change(key, rows, columns)


def _statement(source: Table, change: Change) -> sa.Update | sa.Delete:
    if change.columns is None:
        return sa.delete(source.clause)
    return sa.update(source.clause).values({source[c.column]: c.value for c in (*change.columns, *change.let_go)})


def _copies(matched: Matched, *but: str) -> list[ColumnElement[Any]]:
    """The key, and where rows lie if they tell."""
    names = [*matched.primary_key, *({LOCATION} & set(matched.of))]
    return [matched[c].label(matched.of[c]) for c in names if c not in but]


def _missed(due: Matched, changed: sa.CTE) -> ColumnElement[int]:
    """How many rows were found but not changed; a row of two people is found twice."""
    pairs, done = (sa.select(sa.func.count()).select_from(t).scalar_subquery() for t in (due.table, changed))
    rows = sa.select(sa.func.count(due[LOCATION].distinct())).scalar_subquery()
    return sa.case((pairs == done, 0), else_=rows - done)


def _counts(change: Change, due: sa.FromClause) -> ColumnElement[bool]:
    return due.c["dirty"] if change.let_go else sa.true()


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
