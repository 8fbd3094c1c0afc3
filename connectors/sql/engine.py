"""One pool of connections for each process, made when first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from connectors.contract import Fatal, MissingExtra
from connectors.sql.config import SqlConfig
from connectors.sql.dialect import DRIVERS, Dialect
from connectors.sql.errors import wrapped


def parse(config: SqlConfig) -> URL:
    """The URL of a system, with the driver we use.

    Raises ``Fatal`` for a URL of another kind, ``MissingExtra`` with the line that installs its driver.
    """
    try:
        url = make_url(config.url.get_secret_value())
    except ArgumentError:
        raise Fatal("`url` is not an SQLAlchemy URL such as postgresql+psycopg://user@host/database") from None
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise Fatal(f"`url` names {backend}; use one of postgresql+psycopg, mysql+pymysql, duckdb")
    module, extra = DRIVERS[backend]
    if find_spec(module) is None:
        raise MissingExtra(f"a {backend} system needs {module}: pip install 'habeas[{extra}]'")
    driver = {"postgresql": "postgresql+psycopg", "duckdb": "duckdb"}.get(backend, f"{backend}+pymysql")
    return url.set(drivername=driver)


class Database:
    """Connections to one database; safe to share between threads, and to carry over a fork."""

    def __init__(self, config: SqlConfig) -> None:
        self._config = config
        self._url = parse(config)
        backend = self._url.get_backend_name()
        self.dialect = Dialect("mysql" if backend == "mariadb" else backend)
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None
        self._owner = 0

    @property
    def engine(self) -> sa.Engine:
        """This process's engine."""
        with self._lock:
            if self._engine is None or self._owner != os.getpid():
                if self._engine is not None:
                    self._engine.dispose(close=False)  # The parent's sockets are the parent's.
                self._engine, self._owner = self._create(), os.getpid()
            return self._engine

    def _create(self) -> sa.Engine:
        options: dict[str, Any] = {"hide_parameters": True}
        if self.dialect.duckdb:
            # The file is locked while it is open, so a connection lives no longer than a call.
            return sa.create_engine(self._url, poolclass=NullPool, **options)
        seconds, lock = self._config.statement_timeout_seconds, self._config.lock_timeout_seconds
        options |= {
            "pool_size": self._config.pool_size,
            "max_overflow": 4,
            "pool_pre_ping": True,
            "pool_recycle": 1800,
            "isolation_level": "READ COMMITTED",
        }
        if self.dialect.postgres:
            settings = f"-c statement_timeout={seconds * 1000} -c lock_timeout={lock * 1000}"
            given = self._url.query.get("options", "")
            settings = " ".join([*((given,) if isinstance(given, str) else given), settings]).strip()
            arguments: dict[str, Any] = {"options": settings, "connect_timeout": 10, "application_name": "habeas"}
            # A prepared statement would outlive the temporary tables it names (and trouble poolers).
            arguments["prepare_threshold"] = None
            return sa.create_engine(self._url, connect_args=arguments, **options)
        url = self._url.update_query_dict({"charset": "utf8mb4"})
        engine = sa.create_engine(url, connect_args={"connect_timeout": 10}, **options)

        @sa.event.listens_for(engine, "connect")
        def limit(connection: Any, _: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT VERSION()")
                maria = "MariaDB" in str(cursor.fetchone()[0])
                cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", (lock,))
                # Strict: a value that does not fit is an error, never cut to size in silence.
                cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
                if maria:
                    cursor.execute("SET SESSION max_statement_time = %s", (seconds,))
                else:
                    cursor.execute("SET SESSION max_execution_time = %s", (seconds * 1000,))

        return engine

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection; its transaction is rolled back unless committed. Raises the contract's errors."""
        with wrapped("connecting"):
            connection = self.engine.connect()
        with connection:
            yield connection

    def close(self) -> None:
        """Close all connections of this process."""
        with self._lock:
            if self._engine is not None and self._owner == os.getpid():
                self._engine.dispose()
            self._engine = None
