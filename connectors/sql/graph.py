"""The graph of a data map: entry points, edges, what is reachable, and in which order.

An edge leads from rows of a person to more rows of the same person, never back: ``orders.user_id`` with a reference
*from* ``users.id`` leads from a user to their orders; an order does not lead to a user.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from connectors.sql.config import SqlConfig
from connectors.sql.datamap import Collection, DataMap, DataMapFaults, Key

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows of ``child`` belong to the owner of those rows of ``parent`` whose columns hold the same values."""

    parent: Key
    parent_fields: tuple[str, ...]
    child: Key
    child_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """``field`` of a collection holds identities of a type, so rows are found by it directly."""

    collection: Key
    field: str
    identity: str
    declared: bool = True
    """The file says so; otherwise it follows from an edge out of an identity column."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What can be reached, by what, and in which order."""

    collections: Mapping[Key, Collection]
    """Those that are processed."""
    edges: tuple[Edge, ...]
    entries: tuple[Entry, ...]
    order: tuple[tuple[Key, ...], ...]
    """Parents before children; collections that reach each other in a cycle are together in one group."""
    names: Mapping[Key, str] = field(default_factory=dict)
    """What a collection is called in counts and packages: the table, or dataset.table where two share a name."""

    def into(self, key: Key) -> tuple[Edge, ...]:
        """The edges that lead to a collection."""
        return tuple(e for e in self.edges if e.child == key)

    def links(self, key: Key) -> tuple[str, ...]:
        """The columns of a collection that edges join on, at either end."""
        out = {f for e in self.edges if e.parent == key for f in e.parent_fields}
        return tuple(sorted(out | {f for e in self.edges if e.child == key for f in e.child_fields}))

    def leading(self, key: Key) -> frozenset[str]:
        """The columns of a collection by which alone rows of others are found: identities are looked for there, too."""
        entered = {e.field for e in self.entries if e.collection == key}
        return frozenset(f for e in self.edges if e.parent == key for f in e.parent_fields) - entered

    def named(self, name: str) -> Key | None:
        """The collection that settings mean by ``table`` or ``dataset.table``; ``None``: none, or more than one."""
        found = [k for k in self.collections if name in {k.table, str(k)}]
        return found[0] if len(found) == 1 else None


def build(data: DataMap, config: SqlConfig) -> Graph:
    """The graph of a data map. Raises ``DataMapFaults`` with everything that is wrong with it."""
    faults: list[str] = []
    active = {k: c for k, c in data.collections.items() if not c.skip}
    edges = _edges(data, active, config, faults)
    entries = _entries(active, edges, config)
    reachable = _closure({e.collection for e in entries}, edges)
    for key, collection in active.items():
        if key not in reachable:
            faults.append(
                f"{collection.file}: {key} cannot be reached: no field of it is an identity, and no reference leads to "
                "it from a collection that is; add one, or `skip_processing: true`"
            )
        faults += [
            f"{collection.file}: {key} is to be erased after {after}, which no dataset describes"
            for after in collection.erase_after
            if after not in data.collections and after.dataset not in config.other_datasets
        ]
    known = {k.dataset for k in data.collections} | set(config.other_datasets)
    faults += [
        f"dataset {d} is to be erased first, but is neither here nor in other_datasets" for d in data.after - known
    ]
    if faults:
        raise DataMapFaults(faults)
    tables = [k.table for k in active]
    names = {k: k.table if tables.count(k.table) == 1 else str(k) for k in active}
    return Graph(active, edges, entries, _order(active, edges), names)


def _edges(data: DataMap, active: Mapping[Key, Collection], config: SqlConfig, faults: list[str]) -> tuple[Edge, ...]:
    single: list[Edge] = []
    for key, collection in data.collections.items():
        for r in collection.references:
            table, _, column = r.target.rpartition(".")
            target = Key(r.dataset, table)
            where = f"{collection.file}: {key}.{r.field}"
            if r.dataset in config.other_datasets:
                continue
            if target not in data.collections:
                faults.append(
                    f"{where} refers to {target}, which no dataset describes; a dataset of another system belongs in "
                    "other_datasets"
                )
                continue
            if column not in data.collections[target].fields:
                faults.append(f"{where} refers to {target}.{column}, a field that its collection does not have")
                continue
            if target == key and not r.explicit:
                continue  # A plain self-reference (a reply's parent) is structure, not ownership: foreign keys tell.
            if target not in active or key not in active:
                continue
            here, there = (key, r.field), (target, column)
            (parent, parent_field), (child, child_field) = (here, there) if r.outward else (there, here)
            edge = Edge(parent, (parent_field,), child, (child_field,))
            if edge not in single:
                single.append(edge)
    return tuple(_join_composites(single, active))


def _join_composites(single: Sequence[Edge], active: Mapping[Key, Collection]) -> Iterable[Edge]:
    """References to several parts of one composite primary key are one edge: all parts must agree."""
    between: dict[tuple[Key, Key], list[Edge]] = defaultdict(list)
    for edge in single:
        between[edge.parent, edge.child].append(edge)
    for (parent, child), edges in between.items():
        key = set(active[parent].primary_key)
        parts = [e for e in edges if e.parent_fields[0] in key]
        targets = [e.parent_fields[0] for e in parts]
        if len(key) > 1 and len(parts) > 1 and len(set(targets)) == len(targets):
            parts.sort(key=lambda e: e.parent_fields)
            yield Edge(
                parent,
                tuple(e.parent_fields[0] for e in parts),
                child,
                tuple(e.child_fields[0] for e in parts),
            )
            yield from (e for e in edges if e not in parts)
        else:
            yield from edges


def _entries(active: Mapping[Key, Collection], edges: Sequence[Edge], config: SqlConfig) -> tuple[Entry, ...]:
    found = {
        (key, f.name): Entry(key, f.name, f.identity)
        for key, collection in active.items()
        for f in collection.fields.values()
        if f.identity and (f.identity in config.identify_by if config.identify_by is not None else f.identity != "ip")
    }
    # A column that refers to an identity column holds that identity too. So rows are still found when the row they
    # point to is gone.
    changed = True
    while changed:
        changed = False
        for edge in edges:
            start = found.get((edge.parent, edge.parent_fields[0])) if len(edge.parent_fields) == 1 else None
            end = (edge.child, edge.child_fields[0])
            if start and end not in found:
                found[end] = Entry(edge.child, edge.child_fields[0], start.identity, declared=False)
                changed = True
    return tuple(found.values())


def _closure(start: set[Key], edges: Sequence[Edge]) -> set[Key]:
    seen, fresh = set(start), set(start)
    while fresh:
        fresh = {e.child for e in edges if e.parent in fresh} - seen
        seen |= fresh
    return seen


def _order(active: Mapping[Key, Collection], edges: Sequence[Edge]) -> tuple[tuple[Key, ...], ...]:
    reach = {k: _closure({k}, edges) for k in active}
    groups: list[tuple[Key, ...]] = []
    placed: set[Key] = set()
    for key in active:
        if key not in placed:
            group = tuple(k for k in active if k in reach[key] and key in reach[k])
            groups.append(group)
            placed |= set(group)
    # A group that reaches another reaches strictly more collections than it.
    groups.sort(key=lambda g: -len(reach[g[0]]))
    return tuple(groups)


def order_by(items: Sequence[T], before: Iterable[tuple[T, T]]) -> tuple[list[T], list[tuple[T, T]]]:
    """Sort so that ``a`` comes before ``b`` for each pair ``(a, b)``, and return the pairs that had to be broken.

    Earlier pairs win over later ones that contradict them.
    """
    after: dict[T, set[T]] = {i: set() for i in items}
    broken: list[tuple[T, T]] = []

    def leads(start: T, goal: T) -> bool:
        seen, stack = {start}, [start]
        while stack:
            here = stack.pop()
            if here == goal:
                return True
            stack += [n for n in after[here] if n not in seen]
            seen |= after[here]
        return False

    for a, b in before:
        if leads(b, a):
            broken.append((a, b))
        else:
            after[a].add(b)
    waiting = {i: sum(i in later for later in after.values()) for i in items}
    ordered: list[T] = []
    ready = [i for i in items if waiting[i] == 0]
    while ready:
        here = ready.pop(0)
        ordered.append(here)
        for later in after[here]:
            waiting[later] -= 1
            if waiting[later] == 0:
                ready.append(later)
    return ordered, broken
