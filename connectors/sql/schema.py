"""The database as it is: columns, keys and foreign keys of the mapped tables, read from the catalogue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from connectors.sql.config import SqlConfig
from connectors.sql.datamap import Key
from connectors.sql.dialect import AsIs, Dialect, name
from connectors.sql.errors import SchemaDrift
from connectors.sql.graph import Graph
from connectors.sql.values import Kind, kind_of

LOCATION: Final = "ctid"
"""PostgreSQL's own column for where a row lies. An update moves the row."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the database has it."""

    name: str
    kind: Kind
    data_type: str
    nullable: bool
    length: int | None
    collation: str | None
    custom: bool = False
    """Of a type that somebody defined (PostgreSQL), an enumeration say."""


@dataclass(frozen=True, slots=True)
class Table:
    """A mapped table as the database has it."""

    key: Key
    clause: sa.TableClause
    columns: Mapping[str, Column]
    unique: frozenset[str]
    """Columns with a unique index over them, alone or with others."""
    located: bool = False
    """A statement can reach its rows where they lie (``ctid``). So it is with PostgreSQL's tables, but for partitioned
    ones, where the user may read all columns; views have no such thing."""

    def __getitem__(self, column: str) -> sa.ColumnClause[Any]:
        """The column, to build statements with."""
        return self.clause.c[column]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key between two mapped tables."""

    child: Key
    child_columns: tuple[str, ...]
    parent: Key
    parent_columns: tuple[str, ...]
    clearable: tuple[str, ...]
    """Columns of the child that may be set to NULL to let go of the parent; empty: it cannot be let go of."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All mapped tables."""

    tables: Mapping[Key, Table]
    foreign_keys: tuple[ForeignKey, ...] = field(default=())


def read(connection: sa.Connection, dialect: Dialect, graph: Graph, config: SqlConfig) -> Catalogue:
    """Read the catalogue. Raises ``SchemaDrift`` naming every mapped table and column that is missing."""
    default = _default_schema(connection, dialect)
    schemas: dict[str, list[Key]] = defaultdict(list)
    for key, collection in graph.collections.items():
        schemas[collection.schema or default].append(key)
    tables: dict[Key, Table] = {}
    foreign_keys: list[ForeignKey] = []
    for schema, keys in schemas.items():
        columns = _columns(connection, dialect, schema, [k.table for k in keys])
        unique, keyed = _keys(connection, dialect, schema, [k.table for k in keys])
        located = _located(connection, schema) if dialect.postgres else frozenset[str]()
        for key in keys:
            # Without a schema of its own, a table is left unqualified, so that the connection's search path finds it.
            own = graph.collections[key].schema
            tables[key] = _table(key, own, columns.get(key.table, []), unique[key.table], located=key.table in located)
        by_name = {k.table: k for k in keys}
        foreign_keys += [
            ForeignKey(by_name[child], cols, by_name[parent], targets, ())
            for child, cols, parent, targets in keyed
            if child in by_name and parent in by_name
        ]
    _check(graph, tables, config)
    return Catalogue(tables, tuple(_with_clearable(f, graph, tables) for f in foreign_keys))


def _default_schema(connection: sa.Connection, dialect: Dialect) -> str:
    function = sa.func.database() if dialect.mysql else sa.func.current_schema()
    return str(connection.scalar(sa.select(function)))


def _columns(
    connection: sa.Connection, dialect: Dialect, schema: str, tables: Sequence[str]
) -> Mapping[str, list[Column]]:
    names = ("table_name", "column_name", "data_type", "is_nullable", "character_maximum_length", "collation_name")
    extra = ("udt_name",) if dialect.postgres else ()
    catalogue = sa.table(
        "columns", *(sa.column(n) for n in ("table_schema", *names, *extra)), schema="information_schema"
    )
    query = sa.select(*(catalogue.c[n] for n in (*names, *extra))).where(
        catalogue.c.table_schema == schema, catalogue.c.table_name.in_(sorted(set(tables)))
    )
    found: dict[str, list[Column]] = defaultdict(list)
    for row in connection.execute(query):
        table, column, data_type, nullable, length, collation, *rest = row
        custom = bool(rest) and data_type == "USER-DEFINED"
        if custom:
            data_type = rest[0]
        kind = kind_of(str(data_type))
        limit = int(length) if length and int(length) < 2**31 - 1 and kind in {Kind.TEXT, Kind.CITEXT} else None
        found[table].append(Column(column, kind, str(data_type), nullable == "YES", limit, collation, custom))
    return found


ForeignKeyRow = tuple[str, tuple[str, ...], str, tuple[str, ...]]


def _keys(
    connection: sa.Connection, dialect: Dialect, schema: str, tables: Sequence[str]
) -> tuple[Mapping[str, frozenset[str]], list[ForeignKeyRow]]:
    """Per table the columns with a unique index, and the foreign keys."""
    unique: dict[str, frozenset[str]] = defaultdict(frozenset)
    keyed: list[ForeignKeyRow] = []
    if dialect.duckdb:
        query = sa.text(
            "SELECT table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names "
            "FROM duckdb_constraints() WHERE schema_name = :schema AND constraint_type IN ('UNIQUE', 'FOREIGN KEY')"
        )
        for table, sort, columns, parent, targets in connection.execute(query, {"schema": schema}):
            if sort == "UNIQUE":
                unique[table] |= frozenset(columns)
            else:
                keyed.append((table, tuple(columns), parent, tuple(targets)))
        return unique, keyed
    if dialect.mysql:
        return _mysql_keys(connection, schema)
    inspector = sa.inspect(connection)
    wanted = sorted(set(tables))
    for (_, table), indexes in inspector.get_multi_indexes(schema=schema, filter_names=wanted).items():
        for index in indexes:
            if index["unique"]:
                unique[table or ""] |= frozenset(c for c in index["column_names"] if c)
    for (_, table), found in inspector.get_multi_foreign_keys(schema=schema, filter_names=wanted).items():
        keyed += [
            (table or "", tuple(f["constrained_columns"]), f["referred_table"], tuple(f["referred_columns"]))
            for f in found
            if f["referred_schema"] in {None, schema}
        ]
    return unique, keyed


def _mysql_keys(connection: sa.Connection, schema: str) -> tuple[Mapping[str, frozenset[str]], list[ForeignKeyRow]]:
    """The same, from information_schema: the inspector would read and parse every table's definition."""
    unique: dict[str, frozenset[str]] = defaultdict(frozenset)
    indexes = sa.text(
        "SELECT table_name, column_name FROM information_schema.statistics "
        "WHERE table_schema = :schema AND non_unique = 0 AND index_name <> 'PRIMARY' AND column_name IS NOT NULL"
    )
    for table, column in connection.execute(indexes, {"schema": schema}):
        unique[table] |= {column}
    keys = sa.text(
        "SELECT table_name, constraint_name, column_name, referenced_table_name, referenced_column_name "
        "FROM information_schema.key_column_usage "
        "WHERE table_schema = :schema AND referenced_table_schema = :schema "
        "ORDER BY table_name, constraint_name, ordinal_position"
    )
    keyed: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for table, constraint, column, parent, target in connection.execute(keys, {"schema": schema}):
        keyed[table, constraint, parent].append((column, target))
    return unique, [
        (table, tuple(c for c, _ in pairs), parent, tuple(t for _, t in pairs))
        for (table, _, parent), pairs in keyed.items()
    ]


def _located(connection: sa.Connection, schema: str) -> frozenset[str]:
    query = sa.text(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = :schema AND c.relkind = 'r' AND NOT c.relhassubclass "
        "AND has_table_privilege(c.oid, 'SELECT')"
    )
    return frozenset(connection.scalars(query, {"schema": schema}))


def _table(key: Key, schema: str | None, columns: Sequence[Column], unique: frozenset[str], *, located: bool) -> Table:
    clause = sa.table(
        name(key.table),
        *(sa.column(name(c.name), AsIs()) for c in columns),
        *((sa.column(LOCATION, AsIs()),) if located else ()),
        **({"schema": name(schema)} if schema else {}),
    )
    return Table(key, clause, {c.name: c for c in columns}, unique, located)


def _check(graph: Graph, tables: Mapping[Key, Table], config: SqlConfig) -> None:
    wanted: dict[Key, set[str]] = {k: set(c.fields) for k, c in graph.collections.items()}
    for change in (*config.restrict, *(c for changes in config.suppress.values() for c in changes)):
        if key := graph.named(change.table):
            wanted[key] |= {*change.values, *change.where}
    for table, retain in config.retain.items():
        if key := graph.named(table):
            wanted[key] |= {*retain.mask, *((retain.since,) if retain.since else ())}
    missing: list[str] = []
    for key, columns in wanted.items():
        if not tables[key].columns:
            missing.append(f"table {key.table}")
            continue
        missing += [f"column {key.table}.{c}" for c in sorted(columns - set(tables[key].columns))]
    if missing:
        raise SchemaDrift(
            f"the database does not have, or hides from this user, what the data map names: {', '.join(missing)}"
        )


def _with_clearable(key: ForeignKey, graph: Graph, tables: Mapping[Key, Table]) -> ForeignKey:
    own = set(graph.collections[key.child].primary_key)
    columns = tables[key.child].columns
    clearable = tuple(c for c in key.child_columns if columns[c].nullable and c not in own)
    return ForeignKey(key.child, key.child_columns, key.parent, key.parent_columns, clearable)
