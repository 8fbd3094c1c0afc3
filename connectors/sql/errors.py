"""Driver errors, wrapped once: what should the caller do? Texts name tables, never values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from connectors.contract import ConnectorError, Fatal, Retryable, Unauthorised

LOCK_RETRY: Final = timedelta(seconds=2)
"""A DuckDB file is locked for the length of another process's call, which is short."""

POSTGRES_AUTH: Final = ("password authentication failed", "no pg_hba.conf entry", "role ")
POSTGRES_RETRY: Final = ("08", "40", "53", "57")
MYSQL_AUTH: Final = frozenset({1044, 1045, 1142, 1143, 1227, 1370, 1698})
MYSQL_RETRY: Final = frozenset(
    {1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1317, 1927, 1969, 2002, 2003, 2006, 2013, 2014, 3024}
)
MYSQL_DRIFT: Final = frozenset({1049, 1054, 1146})
MYSQL_CONSTRAINT: Final = frozenset({1048, 1062, 1451, 1452, 1586, 3819, 4025})
MYSQL_DATA: Final = frozenset({1264, 1265, 1292, 1366, 1406})


class RowFault(Fatal):
    """A constraint or a value stands in the way; perhaps of one person of the batch alone."""


class SchemaDrift(Fatal):
    """The database is not as the data map says."""


@contextmanager
def wrapped(where: str) -> Iterator[None]:
    """Turn driver errors into the contract's; ``where`` is the table at hand, for the text.

    The cause is cut off on purpose: drivers quote rows and parameters.
    """
    try:
        yield
    except DBAPIError as error:
        raise translate(error, where) from None
    except psycopg.Error as error:
        raise _postgres(error, where) from None  # COPY goes past SQLAlchemy.
    except SQLAlchemyError as error:
        raise Fatal(f"{where}: the statement could not be built ({type(error).__name__})") from None
    except UnicodeError:
        raise RowFault(f"{where}: a value cannot be written in the database's character set") from None


def translate(error: DBAPIError, where: str) -> ConnectorError:
    """What the caller should do about a driver's error."""
    origin = error.orig
    if origin is None or error.connection_invalidated:
        return Retryable(f"{where}: the connection was lost")
    family = type(origin).__module__.partition(".")[0]
    if family == "psycopg":
        return _postgres(origin, where)
    if family == "pymysql":
        return _mysql(origin, where)
    return _duckdb(origin, where)


def _postgres(origin: BaseException, where: str) -> ConnectorError:
    state: str | None = getattr(origin, "sqlstate", None)
    if state is None:
        return _postgres_unreached(origin, where)
    diagnostics = getattr(origin, "diag", None)
    table = getattr(diagnostics, "table_name", None) or where
    constraint = getattr(diagnostics, "constraint_name", None)
    if state.startswith("28") or state == "42501":
        return Unauthorised(f"{where}: PostgreSQL refuses the user in `url` (SQLSTATE {state})")
    if state == "55P03" or state.startswith(POSTGRES_RETRY):
        return Retryable(f"{where}: PostgreSQL asks to try again (SQLSTATE {state})")
    if state in {"42P01", "42703", "3F000", "3D000"}:
        return SchemaDrift(f"{where}: a table or column of the data map is missing in the database (SQLSTATE {state})")
    if state.startswith("23"):
        return RowFault(_constraint(where, table, constraint, unique=state == "23505"))
    if state.startswith("22"):
        return RowFault(f"{where}: a value does not fit its column (SQLSTATE {state})")
    return Fatal(f"{where}: PostgreSQL refused the statement (SQLSTATE {state})")


def _postgres_unreached(origin: BaseException, where: str) -> ConnectorError:
    """An error that the driver raised, not the server."""
    if type(origin).__name__ == "DataError":
        return RowFault(f"{where}: a value cannot be sent to PostgreSQL")
    if any(words in str(origin) for words in POSTGRES_AUTH):
        return Unauthorised("PostgreSQL refuses the credentials in `url`")
    return Retryable("PostgreSQL could not be reached, or the connection was lost")


def _mysql(origin: BaseException, where: str) -> ConnectorError:
    number = origin.args[0] if origin.args and isinstance(origin.args[0], int) else 0
    if number in MYSQL_AUTH:
        return Unauthorised(f"{where}: MariaDB refuses the user in `url` (error {number})")
    if number in MYSQL_RETRY:
        return Retryable(f"{where}: MariaDB asks to try again (error {number})")
    if number in MYSQL_DRIFT:
        return SchemaDrift(f"{where}: a table or column of the data map is missing in the database (error {number})")
    if number in MYSQL_CONSTRAINT:
        return RowFault(_constraint(where, _quoted_table(origin) or where, None, unique=number in {1062, 1586}))
    if number in MYSQL_DATA:
        return RowFault(f"{where}: a value does not fit its column (error {number})")
    return Fatal(f"{where}: MariaDB refused the statement (error {number})")


def _quoted_table(origin: BaseException) -> str | None:
    """The table that a foreign key error names: "… fails (`shop`.`orders`, CONSTRAINT …"; it quotes no values."""
    if origin.args[0] not in {1451, 1452}:
        return None
    _, _, rest = str(origin.args[-1]).partition("(`")
    _, _, rest = rest.partition("`.`")
    return rest.partition("`")[0] or None


def _duckdb(origin: BaseException, where: str) -> ConnectorError:
    match type(origin).__name__:
        case "IOException" if "lock" in str(origin):
            return Retryable("the DuckDB file is open in another process", after=LOCK_RETRY)
        case "IOException":
            return Retryable("the DuckDB file could not be opened or read")
        case "TransactionException" | "SerializationException" | "InterruptException":
            return Retryable(f"{where}: another transaction changed the same rows", after=LOCK_RETRY)
        case "ConstraintException":
            return RowFault(_constraint(where, where, None, unique="uplicate key" in str(origin)))
        case "CatalogException" | "BinderException":
            return SchemaDrift(f"{where}: a table or column of the data map is missing in the database")
        case "ConversionException" | "OutOfRangeException":
            return RowFault(f"{where}: a value does not fit its column")
        case "ConnectionException":
            return Retryable("the DuckDB file is open in this process with other settings", after=LOCK_RETRY)
        case name:
            return Fatal(f"{where}: DuckDB refused the statement ({name})")


def _constraint(where: str, table: str, constraint: str | None, *, unique: bool) -> str:
    if unique:
        return f"{where}: another row of table {table} already holds the new value, which must be unique"
    named = f"constraint {constraint}" if constraint else "a constraint"
    of = f" of table {table}" if table != where or constraint else ""
    return f"{where}: {named}{of} forbids the change; map that table, or let its rows cascade or be set to NULL"
