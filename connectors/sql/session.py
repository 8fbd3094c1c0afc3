"""One connection in one transaction: statements, and the temporary tables they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from connectors.sql.config import SqlConfig
from connectors.sql.datamap import Key
from connectors.sql.dialect import Analyze, CreateTemporary, Dialect, DropTemporary, column, name
from connectors.sql.errors import wrapped
from connectors.sql.graph import Graph
from connectors.sql.schema import Catalogue

Select = sa.Select[*tuple[Any, ...]]
Query = Select | sa.CompoundSelect[*tuple[Any, ...]]

PREFIX: Final = "habeas_"
"""Of temporary tables. The same names every time, so that SQLAlchemy need not compile the statements anew."""
INSERT_ROWS: Final = 500
"""Rows of one INSERT where the driver sends rows one by one otherwise."""


@dataclass(slots=True)
class Session:
    """One connection, in one transaction, with all there is to know about its database."""

    connection: sa.Connection
    dialect: Dialect
    config: SqlConfig
    graph: Graph
    catalogue: Catalogue
    now: datetime
    temporary: list[str] = field(default_factory=list)

    def run(
        self, where: str, statement: sa.Executable, rows: Sequence[Mapping[str, object]] = ()
    ) -> sa.CursorResult[*tuple[Any, ...]]:
        """Execute; ``where`` names the table for error texts. Raises the contract's errors."""
        with wrapped(where):
            return self.connection.execute(statement, rows or None, execution_options={"preserve_rowcount": True})

    def create(self, query: Query, columns: Iterable[str], where: str) -> tuple[sa.TableClause, int]:
        """Make a temporary table of a query's rows; returns it and how many rows it has (-1: unknown)."""
        table = f"{PREFIX}{len(self.temporary)}"
        result = self.run(where, CreateTemporary(table, query))
        self.temporary.append(table)
        return sa.table(name(table), *(column(c) for c in columns)), -1 if self.dialect.duckdb else result.rowcount

    def insert(self, table: sa.TableClause, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows into a temporary table in as few round trips as the driver allows."""
        if self.dialect.postgres:
            cursor = self.connection.connection.cursor()
            columns = ", ".join(rows[0])  # Ours: "s, v".
            with wrapped("identities"), cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:  # type: ignore[attr-defined]
                for row in rows:
                    copy.write_row(tuple(row.values()))
        elif self.dialect.duckdb:
            for start in range(0, len(rows), INSERT_ROWS):
                self.run("identities", sa.insert(table).values(list(rows[start : start + INSERT_ROWS])))
        else:
            self.run("identities", sa.insert(table), rows)

    def analyze(self, tables: list[str]) -> None:
        """Tell PostgreSQL's planner how large temporary tables are."""
        if self.dialect.postgres and tables:
            self.run("identities", Analyze(tables))

    def name(self, key: Key) -> str:
        """What a collection is called in counts and texts."""
        return self.graph.names[key]

    @contextmanager
    def cleaning(self) -> Iterator[None]:
        """Drop the temporary tables where the end of the transaction does not (MariaDB)."""
        try:
            yield
        finally:
            if self.dialect.mysql and self.temporary and not self.connection.invalidated:
                self.run("identities", DropTemporary(self.temporary))
