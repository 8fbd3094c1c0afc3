"""Which matched rows stay at an erasure, and why.

A row stays when the law keeps it, when such a row can only be found through it, or when another row that stays points
to it and cannot let go. What stays without a law of its own is masked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from connectors.sql.config import Retain
from connectors.sql.datamap import Collection, Key
from connectors.sql.dialect import AsIs
from connectors.sql.graph import Edge, order_by
from connectors.sql.matched import Matched
from connectors.sql.schema import ForeignKey, Table
from connectors.sql.session import Session
from connectors.sql.values import Kind

FEW = 2
"""Uses of a collection's rows that cost less than a temporary table of them."""


class Stay(IntEnum):
    """Why a row is not deleted. A higher reason wins."""

    NO = 0
    POINTED_AT = 1
    """A row that stays points to it, and may not be set to NULL. It is masked."""
    PATH = 2
    """A row that the law keeps is found through it. It is masked, but for what the path needs."""
    RETAINED = 3
    """The law keeps it."""


@dataclass(frozen=True, slots=True)
class Step:
    """Rows of ``parent`` stay, because of rows of ``child``."""

    child: Key
    parent: Key
    stay: Stay
    staying: ColumnElement[bool]


class Scope:
    """What an erasure is about: all data, or some categories of it."""

    def __init__(self, session: Session, covers: Callable[[str], bool], *, everything: bool) -> None:
        """``covers``: whether a data category is in scope."""
        graph = session.graph
        self.covers, self.everything = covers, everything
        self.touched = frozenset(k for k, c in graph.collections.items() if everything or self._any(c))
        self.deleted = frozenset(k for k in self.touched if graph.collections[k].delete and self._all(session, k))
        """Collections whose rows are deleted; the rows of others are masked."""
        named = {graph.named(t): r for t, r in session.config.retain.items()}
        self.retained: dict[Key, Retain] = {k: r for k, r in named.items() if k is not None and k in self.touched}

    def _any(self, collection: Collection) -> bool:
        return any(self.covers(c) for c in collection.categories)

    def _all(self, session: Session, key: Key) -> bool:
        """Rows may go when everything personal in them is in scope; keys and system data go along."""
        if self.everything:
            return True
        collection, links = session.graph.collections[key], session.graph.links(key)
        return all(
            any(self.covers(c) or c.startswith("system") for c in f.categories)
            for f in collection.fields.values()
            if f.categories and not f.primary_key and f.name not in links
        )


class Keeping:
    """Decides what stays, and marks it in the temporary tables."""

    def __init__(self, session: Session, scope: Scope) -> None:
        self._session, self._scope = session, scope
        self._found: Mapping[Key, Matched] = {}
        self._edges = {
            (e.parent, e.child, frozenset(zip(e.parent_fields, e.child_fields, strict=True)))
            for e in session.graph.edges
        }
        self.may_stay, self._path = self._possible(session.graph.collections)
        """Collections of which rows may be marked."""
        self.order, broken = self._erase_order()
        """Collections, children first."""
        self._broken = set(broken)
        self.marked: set[tuple[Key, Stay]] = set()
        """Why rows stay in which collections: no other reasons are found there."""
        self.leaves = self._leaves()
        """Collections that nothing is found through, points to or stays in: to be found by the statement that changes
        them."""
        self.inner = self._inner()
        """Collections that go as a whole, and that few others are found through: they may be, as well."""

    def decide(self, found: Mapping[Key, Matched]) -> None:
        """Mark the rows that stay."""
        self._found = found
        self.may_stay, self._path = self._possible(found)
        for key, retain in self._scope.retained.items():
            if key in self._found and not retain.along:
                self._retain(key, retain)
        for group in self._session.graph.order:
            for key in group:
                if key in self._found and key in self._scope.retained:
                    self._retain_along(key, self._scope.retained[key])
        steps = [*self._paths(), *self._pointers()]
        _, broken = order_by(self.order, [(step.child, step.parent) for step in steps])
        rank = {k: n for n, k in enumerate(self.order)}
        steps.sort(key=lambda step: rank[step.child])
        while True:
            changed = sum(self._mark(step.parent, step.stay, step.staying) for step in steps)
            # One pass, children first, is enough unless collections point to each other in a circle.
            if not changed or not broken:
                break
        # The marks were updates: the tables are larger now, but hold no more rows.
        self._session.analyze([m.name for k, m in found.items() if k in self.may_stay])

    def clear_pointers(self, nulled: Callable[[Key], frozenset[str]]) -> None:
        """Set to NULL what points from a row that stays, whoever's, to a row that goes.

        ``nulled``: the columns that masking sets to NULL anyway.
        """
        for key in self._session.catalogue.foreign_keys:
            parent = self._found.get(key.parent)
            if parent is None or key.parent not in self._scope.deleted or not key.clearable:
                continue
            if key.child in self.leaves:
                continue  # Its only statement deletes the rows, or clears their pointers along with masking them.
            settled = self._by_edge(key) and self._all_go(key.child) and key.child != key.parent
            if settled and (key.child, key.parent) not in self._broken:
                continue
            if self._by_edge(key) and set(key.clearable) <= nulled(key.child):
                continue
            child = self._session.catalogue.tables[key.child]
            update = (
                sa.update(child.clause)
                .values({child[c]: sa.null() for c in key.clearable})
                .where(*_points(key, child, parent), parent.stay == Stay.NO.value)
            )
            if key.child == key.parent and self._session.dialect.postgres:
                # Checked when the statement ends: rows that go together may point to each other until then.
                mine = self._aliased(key.child)
                update = update.where(~_exists(mine.table, mine.joins(child), mine.stay == Stay.NO.value))
            self._session.run(self._session.name(key.child), update)

    def let_go(self, key: Key, rows: Table | Matched) -> Mapping[str, ColumnElement[bool]]:
        """The columns of a leaf's rows that point to what goes, and when they do."""
        gone: dict[str, list[ColumnElement[bool]]] = defaultdict(list)
        for f in self._session.catalogue.foreign_keys:
            if f.child == key and f.parent in self._found and f.parent in self._scope.deleted:
                parent = self._found[f.parent]
                going = sa.select(*(parent[c] for c in f.parent_columns)).where(parent.stay == Stay.NO.value)
                for column in f.clearable:
                    gone[column].append(sa.tuple_(*(rows[c] for c in f.child_columns)).in_(going))
        return {column: sa.or_(*points) for column, points in gone.items()}

    # What could stay, from the settings and the schema alone. ----------------------------------------------------

    def _possible(self, among: Container[Key]) -> tuple[frozenset[Key], frozenset[Key]]:
        """Collections of which rows may stay, and those of which they may stay by law or for a path."""
        may = {k for k in self._scope.retained if k in among}
        path = set(may)
        while True:
            before = len(may) + len(path)
            path |= {e.parent for e in self._session.graph.edges if e.child in path and e.parent in among}
            may |= path
            may |= {
                f.parent
                for f in self._session.catalogue.foreign_keys
                if f.parent in among and self._binds(f) and not self._settled(f, may)
            }
            if len(may) + len(path) == before:
                return frozenset(may), frozenset(path)

    def _leaves(self) -> frozenset[Key]:
        keys = self._session.catalogue.foreign_keys
        led_through = {e.parent for e in self._session.graph.edges} | {f.parent for f in keys}
        # Were such a pointer cleared by itself, the row might not be found any more.
        loose = {f.child for f in keys if f.parent in self._scope.deleted and not self._by_edge(f)}
        found = self._scope.touched - led_through - loose - self.may_stay
        return frozenset(k for k in found if self._session.catalogue.tables[k].located)

    def _inner(self) -> frozenset[Key]:
        graph, keys = self._session.graph, self._session.catalogue.foreign_keys
        # What is found through them is found by a join with their rows, each time anew.
        asked = Counter(e.parent for e in graph.edges) + Counter(f.parent for f in keys if not self._by_edge(f))
        # As for leaves: pointers are cleared before the rows are found the last time.
        cleared = {(f.child, c) for f in keys if f.parent in self._scope.deleted for c in f.clearable}
        loose = {e.child for e in graph.edges if any((e.child, c) in cleared for c in e.child_fields)}
        # Nor is anything found through rows that are gone already.
        rank = {k: n for n, k in enumerate(self.order)}
        early = {e.parent for e in graph.edges if rank[e.parent] < rank[e.child]}
        found = self._scope.deleted - self.may_stay - self.leaves - loose - early
        return frozenset(k for k in found if self._session.catalogue.tables[k].located and asked[k] <= FEW)

    def _binds(self, key: ForeignKey) -> bool:
        """Rows of the child cannot let go of a parent that would be deleted."""
        return key.parent in self._scope.deleted and not key.clearable

    def _by_edge(self, key: ForeignKey) -> bool:
        """Every row that points to a person's row is the person's too, because the map says so."""
        pairs = frozenset(zip(key.parent_columns, key.child_columns, strict=True))
        return (key.parent, key.child, pairs) in self._edges

    def _settled(self, key: ForeignKey, may_stay: Iterable[Key]) -> bool:
        return self._by_edge(key) and key.child in self._scope.deleted and key.child not in may_stay

    def _all_go(self, key: Key) -> bool:
        return key in self._scope.deleted and key not in self.may_stay

    def _erase_order(self) -> tuple[list[Key], list[tuple[Key, Key]]]:
        graph, keys = self._session.graph, self._session.catalogue.foreign_keys
        fixed = [(f.child, f.parent) for f in keys if not f.clearable and f.child != f.parent]
        loose = [(f.child, f.parent) for f in keys if f.clearable and f.child != f.parent]
        wanted = [(a, k) for k, c in graph.collections.items() for a in c.erase_after if a in graph.collections]
        edges = [(e.child, e.parent) for e in graph.edges if e.child != e.parent]
        return order_by(list(graph.collections), [*fixed, *loose, *wanted, *edges])

    # Marks. ----------------------------------------------------------------------------------------------------

    def _retain(self, key: Key, retain: Retain) -> None:
        matched, source = self._found[key], self._session.catalogue.tables[key]
        due: list[ColumnElement[bool]] = []
        if retain.since:
            start = matched[retain.since]
            cutoff = _moment(retain, source.columns[retain.since].kind, self._session.now)
            # A row without a beginning cannot be shown to be over.
            due = [sa.or_(start.is_(None), start > sa.literal(cutoff, AsIs()))]
        self._mark(key, Stay.RETAINED, *due)

    def _retain_along(self, key: Key, retain: Retain) -> None:
        """Keep the rows that belong to kept rows of another table."""
        parent = self._session.graph.named(retain.along) if retain.along else None
        for edge in self._session.graph.into(key):
            if edge.parent == parent and edge.parent in self._found:
                kept, mine = self._aliased(edge.parent), self._found[key]
                on = [kept.subject == mine.subject, *_along(edge, mine, kept), kept.stay == Stay.RETAINED.value]
                self._mark(key, Stay.RETAINED, _exists(kept.table, *on))

    def _mark(self, key: Key, stay: Stay, *conditions: ColumnElement[bool]) -> int:
        """Mark the rows that fulfil the conditions; returns how many."""
        matched = self._found[key]
        update = sa.update(matched.stored).values(stay=stay.value).where(matched.stay < stay.value, *conditions)
        rows = self._session.run(self._session.name(key), update).rowcount
        if rows:
            self.marked.add((key, stay))
        return rows

    def _paths(self) -> Iterator[Step]:
        for edge in self._session.graph.edges:
            if edge.child in self._path and edge.parent in self._found and edge.child in self._found:
                parent, child = self._found[edge.parent], self._aliased(edge.child)
                on = [child.subject == parent.subject, *_along(edge, child, parent), child.stay >= Stay.PATH.value]
                yield Step(edge.child, edge.parent, Stay.PATH, _exists(child.table, *on))

    def _pointers(self) -> Iterator[Step]:
        for key in self._session.catalogue.foreign_keys:
            parent = self._found.get(key.parent)
            if parent is None or not self._binds(key) or self._settled(key, self.may_stay):
                continue
            if self._by_edge(key):
                if key.child not in self._found:
                    continue
                rows = self._aliased(key.child)
                on = [rows[c] == parent[p] for c, p in zip(key.child_columns, key.parent_columns, strict=True)]
                if key.child in self._scope.deleted:
                    on.append(rows.stay > Stay.NO.value)
                staying = _exists(rows.table, *on)
            else:
                staying = self._others(key, parent)
            yield Step(key.child, key.parent, Stay.POINTED_AT, staying)

    def _others(self, key: ForeignKey, parent: Matched) -> ColumnElement[bool]:
        """A row of the child that stays points to the parent's row; it may be anybody's."""
        child = self._session.catalogue.tables[key.child]
        on = _points(key, child, parent)
        if key.child in self._found and key.child in self._scope.deleted:
            mine = self._aliased(key.child)
            on.append(~_exists(mine.table, mine.joins(child), mine.stay == Stay.NO.value))
        return _exists(child.clause, *on)

    def _aliased(self, key: Key) -> Matched:
        """The rows of a collection under another name, so that a statement may update the same table."""
        m = self._found[key]
        return m.within(m.table.alias("other"))


def _moment(retain: Retain, kind: Kind, now: datetime) -> object:
    day = retain.cutoff(now.astimezone(UTC).date())
    if kind is Kind.DATE:
        return day
    end = datetime.combine(day, time.max)
    return end.replace(tzinfo=UTC) if kind is Kind.TIMESTAMPTZ else end


def _exists(table: sa.FromClause, *on: ColumnElement[bool]) -> ColumnElement[bool]:
    return sa.exists(sa.select(sa.literal_column("1")).select_from(table).where(*on).correlate_except(table))


def _along(edge: Edge, child: Matched, parent: Matched) -> list[ColumnElement[bool]]:
    return [child[c] == parent[p] for c, p in zip(edge.child_fields, edge.parent_fields, strict=True)]


def _points(key: ForeignKey, child: Any, parent: Matched) -> list[ColumnElement[bool]]:
    return [child[c] == parent[p] for c, p in zip(key.child_columns, key.parent_columns, strict=True)]
