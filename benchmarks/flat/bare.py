"""Tables without indexes and constraints, to be filled fast: both are taken off, and made again as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

SESSION = (
    "SET maintenance_work_mem = '1GB'",
    "SET work_mem = '1GB'",
    "SET max_parallel_maintenance_workers = 1",
    "SET synchronous_commit = off",
)
"""What one session of the fill may use; there are two at a time."""


@dataclass(frozen=True, slots=True)
class Stripped:
    """What was taken off one table, as statements that make it again."""

    own: tuple[str, ...]
    """Its indexes, and the constraints that are indexes."""
    foreign: tuple[str, ...]
    """Its references to other tables."""


class Session:
    """Runs statements, each in a transaction of its own."""

    def __init__(self, connection: Connection) -> None:
        """``connection``: in autocommit."""
        self._connection = connection

    def run(self, *statements: str) -> None:
        """One after the other."""
        for statement in statements:
            self._connection.exec_driver_sql(statement.replace("%", "%%"))

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        return [tuple(r) for r in self._connection.execute(text(query), values)]

    def together(self, *statements: str) -> None:
        """In one transaction: what fills a table that was emptied in the same one need not go through the log."""
        self.run("BEGIN", *statements, "COMMIT")


@contextmanager
def session(pool: Engine) -> Iterator[Session]:
    """A session that may use much memory."""
    with pool.connect() as connection:
        one = Session(connection.execution_options(isolation_level="AUTOCOMMIT"))
        try:
            one.run(*SESSION)
            yield one
        finally:
            connection.invalidate()  # what was set must not stay behind in the pool


def strip(on: Session, tables: Sequence[str]) -> dict[str, Stripped]:
    """Take indexes and constraints off these tables, and references to them off all others."""
    constraints = on.rows(_CONSTRAINTS, tables=list(tables))
    indexes = on.rows(_INDEXES, tables=list(tables))
    for kind in ("f", "p"):  # what refers to a key goes before the key
        on.run(*(f"ALTER TABLE {t} DROP CONSTRAINT {name}" for t, name, k, _ in constraints if k == kind))
    on.run(*(f"DROP INDEX {name}" for _, name, _ in indexes))
    made: dict[str, tuple[list[str], list[str]]] = {}
    for table, name, kind, definition in constraints:
        own, foreign = made.setdefault(table, ([], []))
        (own if kind == "p" else foreign).append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    for table, _, definition in indexes:
        made.setdefault(table, ([], []))[0].append(definition)
    return {table: Stripped(tuple(own), tuple(foreign)) for table, (own, foreign) in made.items()}


_CONSTRAINTS = """
SELECT conrelid::regclass::text, quote_ident(conname), contype::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE contype IN ('p', 'f')
    AND (conrelid = ANY(CAST(:tables AS regclass[])) OR confrelid = ANY(CAST(:tables AS regclass[])))
ORDER BY conrelid, conname"""
_INDEXES = """
SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = ANY(CAST(:tables AS regclass[]))
    AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype = 'p')
ORDER BY indrelid, indexrelid"""
