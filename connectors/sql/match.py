"""Which rows belong to which person of a batch: one temporary table for each collection.

The identities of the whole batch go into small temporary tables; each collection's rows are then found by one
``CREATE TEMPORARY TABLE … AS SELECT``, from the identities and from what was found in its parents. So the number of
statements depends on the data map, not on the number of people.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from connectors.contract import Task
from connectors.sql.datamap import Key
from connectors.sql.graph import Edge, Entry
from connectors.sql.matched import Matched
from connectors.sql.schema import LOCATION, Table
from connectors.sql.session import PREFIX, Query, Select, Session
from connectors.sql.values import Kind, identity_values

PLAIN: Final = frozenset({Kind.INTEGER, Kind.NUMBER, Kind.UUID, Kind.INET, Kind.CITEXT})
"""Kinds whose identities are compared as they are."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to reach rows of a collection: ``other`` holds ``s`` and is joined on ``on``."""

    other: sa.FromClause
    subject: ColumnElement[Any]
    on: ColumnElement[bool]
    once: bool
    """It reaches a row at most once for a person."""
    column: str = ""
    """Where ``on`` says that this one column equals ``value``."""
    value: ColumnElement[Any] | None = None
    parent: bool = False
    """By a row of a parent, not by an identity."""


class Matching:
    """All rows of the people of a batch."""

    def __init__(
        self,
        session: Session,
        tasks: Sequence[Task],
        *,
        reading: bool = False,
        leaves: Container[Key] = (),
        inner: Container[Key] = (),
    ) -> None:
        """``reading``: rows that lead to no others need no temporary table: they are read by what they are found by.

        ``leaves``: collections whose rows are found by the statement that changes them (PostgreSQL); ``inner``: those
        that may be, although others are found through them, if no row can belong to two people.
        """
        self._session = session
        self._tasks = tasks
        self._reading = reading and session.dialect.postgres
        self._leaves, self._inner = leaves, inner
        self._branched: dict[Key, list[Select]] = {}
        self._own: dict[Key, bool] = {}
        self.direct: dict[Key, Way] = {}
        """The one way to leaves' and inner collections' rows, where each row belongs to one person alone."""
        self._idles: dict[frozenset[tuple[str, str]], bool] = {}
        self._identities: dict[tuple[object, ...], sa.TableClause | None] = {}
        self._given = {(i.type, i.format == "sha256") for task in tasks for i in task.identities}
        self.found: dict[Key, Matched] = {}
        for group in session.graph.order:
            cyclic = len(group) > 1 or any(e.parent == group[0] for e in session.graph.into(group[0]))
            if cyclic:
                self._match_cycle(group)
            else:
                self._match(group[0])

    # Identities. -----------------------------------------------------------------------------------------------

    def _values(self, entry: Entry, *, hashed: bool) -> sa.TableClause | None:
        """The temporary table of a type's identities, in a type that compares with the entry's column."""
        if (entry.identity, hashed) not in self._given:
            return None
        source = self._session.catalogue.tables[entry.collection].columns[entry.field]
        kind = Kind.TEXT if hashed else source.kind
        sort: tuple[object, ...] = (entry.identity, hashed, kind)
        if self._session.dialect.mysql and not hashed:
            sort += (source.collation, source.length)  # Two collations cannot be compared.
        if sort in self._identities:
            return self._identities[sort]
        length = source.length if self._session.dialect.mysql else None
        rows = [
            {"s": number, "v": value}
            for number, task in enumerate(self._tasks)
            for value in identity_values(task, entry.identity, kind, length, hashed=hashed)
        ]
        self._identities[sort] = table = self._temporary_values(entry, kind, rows, hashed=hashed) if rows else None
        return table

    def _temporary_values(
        self, entry: Entry, kind: Kind, rows: list[dict[str, object]], *, hashed: bool
    ) -> sa.TableClause:
        session = self._session
        source = session.catalogue.tables[entry.collection]
        wide: ColumnElement[Any] = source[entry.field]
        if kind is Kind.INTEGER:
            wide = sa.cast(wide, sa.BigInteger())
        elif kind is Kind.NUMBER:
            wide = sa.cast(wide, sa.Numeric(38, 10))
        elif hashed or kind not in {Kind.TEXT, Kind.CITEXT, Kind.UUID, Kind.INET}:
            wide = session.dialect.text(wide)
        elif kind is Kind.TEXT and not session.dialect.mysql:
            wide = sa.cast(wide, sa.Text())
        if hashed and session.dialect.mysql:
            wide = sa.cast(sa.literal_column("''"), sa.CHAR(64))
        empty = (
            sa.select(sa.literal_column("0").label("s"), wide.label("v")).select_from(source.clause).where(sa.false())
        )
        table, _ = session.create(empty, ("s", "v"), session.name(entry.collection))
        session.insert(table, rows)
        session.analyze([table.name])
        return table

    def _by_identity(self, entry: Entry, source: Table) -> Iterator[Way]:
        dialect, here = self._session.dialect, source.columns[entry.field]
        stored: ColumnElement[Any] = source[entry.field]
        if (values := self._values(entry, hashed=False)) is not None:
            subject, value = values.c["s"], values.c["v"]
            plain = entry.field if here.kind in PLAIN else ""
            yield Way(values, subject, self._equal(entry, source, value), True, plain, value)  # noqa: FBT003 - once
        if (values := self._values(entry, hashed=True)) is not None:
            text = sa.func.trim(stored if here.kind is Kind.TEXT else dialect.text(stored))
            if entry.identity == "email":
                text = sa.func.lower(text)
            yield Way(values, values.c["s"], dialect.sha256(text) == values.c["v"], once=True)

    def _equal(self, entry: Entry, source: Table, value: ColumnElement[Any]) -> ColumnElement[bool]:
        """A column holds an identity's value; e-mail addresses whatever their case."""
        dialect, here, stored = self._session.dialect, source.columns[entry.field], source[entry.field]
        if here.kind in PLAIN:
            return stored == value
        if here.kind is not Kind.TEXT:
            return dialect.text(stored) == value
        table, names = entry.collection.table, self._session.config.case_sensitive
        exact = entry.identity != "email" or names & {f"{table}.{entry.field}", f"{entry.collection}.{entry.field}"}
        if dialect.mysql:
            # A collation may hold "é" for "e" and "A" for "a": it finds the row by the index, the bytes decide.
            same = stored if exact else sa.func.lower(stored)
            decided = dialect.binary(same) == dialect.binary(value)
            folds = str(here.collation).endswith("_ci")
            return sa.and_(stored == value, decided) if exact or folds else decided
        return stored == value if exact else sa.func.lower(stored) == value

    # Rows. -----------------------------------------------------------------------------------------------------

    def _match(self, key: Key) -> None:
        ways = self._needed([*self._ways(key, self._session.graph.into(key), self.found)])
        if not ways:
            return
        leads = any(e.parent == key for e in self._session.graph.edges)
        if self._reading and not leads and (direct := self._direct(key, ways)):
            self.found[key] = direct
            return
        branches = [*self._branches(key, self._apart(self._session.catalogue.tables[key], ways))]
        if key in self._leaves or key in self._inner:
            if own := len(ways) == 1 and self._belongs_to_one(ways[0]):
                self.direct[key] = ways[0]
            if own or key in self._leaves:
                self._branched[key], self._own[key] = branches, own
                self.found[key] = self.narrowed(key)
                return
        matched, count = self._create(key, branches)
        if count != 0:
            self.found[key] = matched
            if leads:
                self._session.analyze([matched.name])

    def _belongs_to_one(self, way: Way) -> bool:
        """No row found that way belongs to two people: each has one parent row, and that belongs to one."""
        if not way.once or not way.parent:
            return False
        [key] = [k for k, m in self.found.items() if m.table is way.other]
        if key not in self._own:
            parent = self.found[key]
            rows = sa.select(*(parent[c] for c in parent.primary_key)).distinct().subquery()
            counts = [sa.select(sa.func.count()).select_from(t).scalar_subquery() for t in (parent.table, rows)]
            query = sa.select(counts[0] == counts[1])
            self._own[key] = bool(self._session.run(self._session.name(key), query).scalar_one())
        return self._own[key]

    def _direct(self, key: Key, ways: Sequence[Way]) -> Matched | None:
        """Rows by the one thing they are found by; ``None``: there are several, so that a row could come twice."""
        own = self._session.graph.collections[key].primary_key
        if len(ways) == 1 and ways[0].once and isinstance(ways[0].other, sa.TableClause):
            return Matched(key, ways[0].other, {}, own, ways[0].on)
        columns = {w.column for w in ways}
        if len(columns) > 1 or "" in columns:
            return None
        # The same column found by an identity and by a parent, say: one list of values, without repeats.
        values = [sa.select(w.subject.label("s"), w.value.label("v")) for w in ways if w.value is not None]
        query: Query = sa.union(*values) if len(values) > 1 else values[0].distinct()
        table, _ = self._session.create(query, ("s", "v"), self._session.name(key))
        self._session.analyze([table.name])
        return Matched(key, table, {}, own, self._session.catalogue.tables[key][columns.pop()] == table.c["v"])

    def _match_cycle(self, group: tuple[Key, ...]) -> None:
        """Collections that lead to each other: again and again from the rows just found, until there are no more."""
        graph, inside = self._session.graph, set(group)
        total: dict[Key, Matched] = {}
        for key in group:
            outer = [e for e in graph.into(key) if e.parent not in inside]
            branches = [*self._branches(key, self._ways(key, outer, self.found))]
            total[key] = self._create(key, branches or [self._nothing(key)])[0]
        fresh: dict[Key, Matched] = dict(total)
        while fresh:
            following: dict[Key, Matched] = {}
            for key in group:
                inner = [e for e in graph.into(key) if e.parent in inside]
                branches = [*self._branches(key, self._ways(key, inner, fresh, entries=False))]
                if branches:
                    new, count = self._create(key, branches, unless=total[key])
                    if count if count >= 0 else self._count(new):
                        following[key] = new
            for key, new in following.items():
                names = [c.name for c in new.table.c]
                self._session.run(
                    self._session.name(key), sa.insert(total[key].stored).from_select(names, sa.select(*new.table.c))
                )
            fresh = following
        for key, matched in total.items():
            if self._count(matched):
                self.found[key] = matched
        self._session.analyze([m.name for k, m in total.items() if k in self.found])

    def _count(self, matched: Matched) -> int:
        query = sa.select(sa.func.count()).select_from(matched.table)
        return int(self._session.run(self._session.name(matched.key), query).scalar_one())

    def _kept_columns(self, key: Key) -> tuple[str, ...]:
        """The columns copied: the key, what edges and foreign keys join on, since when it is kept, where it lies."""
        graph, catalogue = self._session.graph, self._session.catalogue
        own = graph.collections[key].primary_key
        keyed = {c for f in catalogue.foreign_keys if f.parent == key for c in f.parent_columns}
        keyed |= {r.since for t, r in self._session.config.retain.items() if r.since and graph.named(t) == key}
        place = (LOCATION,) if catalogue.tables[key].located else ()
        return (*own, *sorted((set(graph.links(key)) | keyed) - set(own)), *place)

    def _ways(
        self, key: Key, edges: Iterable[Edge], parents: Mapping[Key, Matched], *, entries: bool = True
    ) -> Iterator[Way]:
        """Every way to reach rows of a collection: by identities, unless not wanted, and by edges."""
        source = self._session.catalogue.tables[key]
        if entries:
            for entry in self._session.graph.entries:
                if entry.collection == key:
                    yield from self._by_identity(entry, source)
        for edge in edges:
            parent = parents.get(edge.parent)
            if parent is None:
                continue
            pairs = [*zip(edge.child_fields, edge.parent_fields, strict=True)]
            on = [self._same(edge, c, p, source, parent) for c, p in pairs]
            once = self._at_most_once(edge)
            if len(pairs) == 1 and self._plainly(edge):
                (child, field_), *_ = pairs
                yield Way(parent.table, parent.subject, on[0], once, child, parent[field_], parent=True)
            else:
                yield Way(parent.table, parent.subject, sa.and_(*on), once, parent=True)

    def _needed(self, ways: Sequence[Way]) -> list[Way]:
        """Ways but for identities each of whose values leads where a parent's row does: most often that is so."""
        return [w for w in ways if not self._idle(w, self._covering(w, ways))]

    def _idle(self, way: Way, covering: Sequence[Way]) -> bool:
        if not covering or not all(isinstance(p.other, sa.TableClause) for p in covering):
            return False
        # What was found stays as it is, so the answer holds for every collection.
        asked = frozenset((str(w.value), str(w.other)) for w in (way, *covering))
        if asked not in self._idles:
            query = sa.select(_rest(way, covering).exists())
            self._idles[asked] = not self._session.run("identities", query).scalar_one()
        return self._idles[asked]

    def _covering(self, way: Way, ways: Sequence[Way]) -> list[Way]:
        """Of an identity: the ways by a parent's row that compare the same column (PostgreSQL)."""
        if way.parent or way.value is None or not way.column or not self._session.dialect.postgres:
            return []
        return [w for w in ways if w.parent and w.column == way.column]

    def _apart(self, source: Table, ways: Sequence[Way]) -> Iterator[Way]:
        """Ways of which none finds what another does, where that can be told (PostgreSQL).

        So the child of a user is not looked for twice, by the user's row and by the user's id.
        """
        for way in ways:
            covering = self._covering(way, ways)
            if not covering:
                yield way
                continue
            rest = _rest(way, covering).subquery("rest")
            yield replace(way, other=rest, subject=rest.c["s"], on=source[way.column] == rest.c["v"], value=rest.c["v"])

    def _branches(self, key: Key, ways: Iterable[Way]) -> Iterator[Select]:
        """One SELECT for each way."""
        source, columns = self._session.catalogue.tables[key], self._kept_columns(key)
        for way in ways:
            yield self._select(source, columns, way.subject).select_from(source.clause.join(way.other, way.on))

    def _plainly(self, edge: Edge) -> bool:
        """Whether the columns of an edge of one pair are of one kind."""
        tables = self._session.catalogue.tables
        child, parent = tables[edge.child].columns, tables[edge.parent].columns
        return child[edge.child_fields[0]].kind == parent[edge.parent_fields[0]].kind

    def _same(self, edge: Edge, child: str, parent: str, source: Table, rows: Matched) -> ColumnElement[bool]:
        a = source.columns[child].kind
        b = self._session.catalogue.tables[edge.parent].columns[parent].kind
        numeric = {Kind.INTEGER, Kind.NUMBER}
        if a == b or {a, b} <= numeric or {a, b} <= {Kind.TEXT, Kind.CITEXT}:
            return source[child] == rows[parent]
        return self._session.dialect.text(source[child]) == self._session.dialect.text(rows[parent])

    def _select(self, source: Table, columns: Sequence[str], subject: ColumnElement[Any]) -> Select:
        copies = [source[c].label(f"c{n}") for n, c in enumerate(columns)]
        return sa.select(subject.label("s"), *copies, sa.literal_column("0").label("stay"))

    def _nothing(self, key: Key) -> Select:
        source = self._session.catalogue.tables[key]
        return (
            self._select(source, self._kept_columns(key), sa.literal_column("0"))
            .select_from(source.clause)
            .where(sa.false())
        )

    def narrowed(self, key: Key, *conditions: ColumnElement[bool], **more: ColumnElement[Any]) -> Matched:
        """The rows of a leaf that fulfil conditions on the real table, with ``more`` of its columns."""
        branches = [
            b.where(*conditions).add_columns(*(c.label(n) for n, c in more.items())) for b in self._branched[key]
        ]
        return self._matched(key, self._query(key, branches).subquery(f"{PREFIX}leaf"))

    def _create(self, key: Key, branches: Sequence[Select], unless: Matched | None = None) -> tuple[Matched, int]:
        query = self._query(key, branches)
        names = ("s", *(f"c{n}" for n in range(len(self._kept_columns(key)))), "stay")
        if unless is not None:
            rows = query.subquery("candidates")
            candidates = self._matched(key, rows)
            same = [candidates[c] == unless[c] for c in candidates.primary_key]
            known: Select = sa.select(sa.literal_column("1")).where(candidates.subject == unless.subject, *same)
            query = sa.select(*(rows.c[n] for n in names)).where(~known.exists())
        table, count = self._session.create(query, names, self._session.name(key))
        return self._matched(key, table), count

    def _query(self, key: Key, branches: Sequence[Select]) -> Query:
        """Each row of each person once, however many ways lead to it."""
        if len(branches) > 1:
            return sa.union(*branches)
        once = all(self._at_most_once(e) for e in self._session.graph.into(key))
        return branches[0] if once else branches[0].distinct()

    def _matched(self, key: Key, table: sa.FromClause) -> Matched:
        of = {c: f"c{n}" for n, c in enumerate(self._kept_columns(key))}
        return Matched(key, table, of, self._session.graph.collections[key].primary_key)

    def _at_most_once(self, edge: Edge) -> bool:
        """Whether a row is reached over an edge from one parent row alone; by an identity it always is."""
        return set(edge.parent_fields) == set(self._session.graph.collections[edge.parent].primary_key)


def _rest(way: Way, covering: Iterable[Way]) -> Select:
    """The values of an identity that no parent's row holds."""
    value = cast("ColumnElement[Any]", way.value)
    found = [sa.select(p.other).where(p.subject == way.subject, value == p.value).exists() for p in covering]
    return sa.select(way.subject.label("s"), value.label("v")).where(~sa.or_(*found))
