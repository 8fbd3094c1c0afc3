"""What differs between PostgreSQL, MariaDB/MySQL and DuckDB, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement, quoted_name
from sqlalchemy.types import UserDefinedType

DRIVERS: Final = {
    # SQLAlchemy backend → (module that must be importable, extra that brings it)
    "postgresql": ("psycopg", "sql"),
    "mysql": ("pymysql", "mysql"),
    "mariadb": ("pymysql", "mysql"),
    "duckdb": ("duckdb_engine", "duckdb"),
}


class AsIs(UserDefinedType[Any]):
    """A column whose values go to and from the driver untouched: the server knows its type, we need not."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Never used in DDL."""
        raise NotImplementedError


def name(text: str) -> quoted_name:
    """An identifier that is always quoted."""
    return quoted_name(text, quote=True)


def column(text: str) -> sa.ColumnClause[Any]:
    """A column of any type."""
    return sa.column(name(text), AsIs())


class CreateTemporary(Executable, sa.ClauseElement):
    """``CREATE TEMPORARY TABLE … AS SELECT …``."""

    inherit_cache = False

    def __init__(self, table: str, query: sa.SelectBase) -> None:
        """``query`` gives the columns and the rows."""
        self.table = name(table)
        self.query = query


@compiles(CreateTemporary)
def _create(element: CreateTemporary, compiler: SQLCompiler, **kw: Any) -> str:
    ending = " ON COMMIT DROP" if compiler.dialect.name == "postgresql" else ""
    table = compiler.preparer.quote(element.table)
    return f"CREATE TEMPORARY TABLE {table}{ending} AS {compiler.process(element.query, **kw)}"


class DropTemporary(Executable, sa.ClauseElement):
    """``DROP TABLE`` for temporary tables, several at once."""

    inherit_cache = False

    def __init__(self, tables: list[str]) -> None:
        """``tables``: their names."""
        self.tables = tables


@compiles(DropTemporary)
def _drop(element: DropTemporary, compiler: SQLCompiler, **_: Any) -> str:
    return f"DROP TEMPORARY TABLE IF EXISTS {', '.join(compiler.preparer.quote(name(t)) for t in element.tables)}"


class Analyze(Executable, sa.ClauseElement):
    """``ANALYZE`` of temporary tables: the planner otherwise guesses how many rows they hold."""

    inherit_cache = False

    def __init__(self, tables: list[str]) -> None:
        """``tables``: their names."""
        self.tables = tables


@compiles(Analyze)
def _analyze(element: Analyze, compiler: SQLCompiler, **_: Any) -> str:
    return f"ANALYZE {', '.join(compiler.preparer.quote(name(t)) for t in element.tables)}"


@dataclass(frozen=True, slots=True)
class Dialect:
    """SQL that differs by server."""

    backend: str
    """``postgresql``, ``mysql`` (MariaDB too) or ``duckdb``."""

    @property
    def postgres(self) -> bool:
        """Whether this is PostgreSQL."""
        return self.backend == "postgresql"

    @property
    def mysql(self) -> bool:
        """Whether this is MariaDB or MySQL."""
        return self.backend == "mysql"

    @property
    def duckdb(self) -> bool:
        """Whether this is DuckDB."""
        return self.backend == "duckdb"

    def text(self, value: ColumnElement[Any]) -> ColumnElement[str]:
        """A value as text."""
        return sa.cast(value, sa.CHAR() if self.mysql else sa.Text())

    def binary(self, value: ColumnElement[Any]) -> ColumnElement[Any]:
        """A text whose comparison ignores the column's collation (MariaDB)."""
        return sa.cast(value, sa.BINARY())

    def sha256(self, value: ColumnElement[Any]) -> ColumnElement[str]:
        """The lower-case hex digest of a text in UTF-8."""
        if self.postgres:
            digest = sa.func.sha256(sa.func.convert_to(value, sa.literal_column("'UTF8'")))
            return sa.func.encode(digest, sa.literal_column("'hex'"), type_=sa.Text())
        if self.mysql:
            return sa.func.sha2(value, sa.literal_column("256"), type_=sa.Text())
        return sa.func.sha256(value, type_=sa.Text())

    def unique(self) -> ColumnElement[str]:
        """A new random text for each row, 36 characters."""
        if self.postgres:
            return sa.cast(sa.func.gen_random_uuid(), sa.Text())
        return self.text(sa.func.uuid())
