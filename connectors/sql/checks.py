"""Faults in a system's settings that the data map shows, before any database is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from connectors.sql.config import SqlConfig
from connectors.sql.graph import Graph

OUT = "; leave it out of `mask`"


def settings_faults(config: SqlConfig, graph: Graph) -> list[str]:
    """Every table and column that the settings name and the data map does not have, and a missing salt."""
    return [
        *_tables(config, graph),
        *_along(config, graph),
        *_kept_keys(config, graph),
        *_columns(config, graph),
        *_salt(config, graph),
        *_identities(config, graph),
    ]


def _tables(config: SqlConfig, graph: Graph) -> Iterator[str]:
    places = [
        *((f"retain: {t}", t) for t in config.retain),
        *((f"restrict: {c.table}", c.table) for c in config.restrict),
        *((f"suppress: {p}: {c.table}", c.table) for p, changes in config.suppress.items() for c in changes),
    ]
    for place, table in places:
        if graph.named(table) is None:
            yield f"{place} is not one collection of the data map; name one, as dataset.table where two share a name"


def _along(config: SqlConfig, graph: Graph) -> Iterator[str]:
    for table, retain in config.retain.items():
        key, leader = graph.named(table), graph.named(retain.along) if retain.along else None
        if retain.along is None or key is None:
            continue
        if retain.along not in config.retain or not any(e.parent == leader for e in graph.into(key)):
            yield f"retain: {table}: with: {retain.along} must be under retain too, and lead to {table} by a reference"


def _kept_keys(config: SqlConfig, graph: Graph) -> Iterator[str]:
    """What tells a kept row apart, or leads to the rows that belong to it, must stay: they would be found no more."""
    for table, retain in config.retain.items():
        key = graph.named(table)
        if key is None:
            continue
        for column in retain.mask:
            if column in graph.collections[key].primary_key:
                yield f"retain: {table}: mask: {column} is in the primary key, which tells kept rows apart{OUT}"
            elif column in graph.leading(key):
                yield f"retain: {table}: mask: {column} is what leads to the rows that belong to kept ones{OUT}"


def _columns(config: SqlConfig, graph: Graph) -> Iterator[str]:
    for setting, names in (("masking", config.masking), ("case_sensitive", config.case_sensitive)):
        for name in sorted(names):
            table, _, column = name.rpartition(".")
            key = graph.named(table)
            if key is None or column not in graph.collections[key].fields:
                yield f"{setting}: {name} is not a `table.column` of the data map"


def _salt(config: SqlConfig, graph: Graph) -> Iterable[str]:
    masks = [*config.masking.values(), *(f.mask for c in graph.collections.values() for f in c.fields.values())]
    if config.hash_salt is None and any(m and m.strategy == "hash" for m in masks):
        yield "hash_salt is missing: without one, a hash of an e-mail address is found by guessing; give a secret"


def _identities(config: SqlConfig, graph: Graph) -> Iterator[str]:
    known = {f.identity for c in graph.collections.values() for f in c.fields.values()}
    for kind in sorted((config.identify_by or frozenset()) - known):
        yield f"identify_by: no field of the data map is an identity of type {kind}"
