"""Connections and transactions. Driver errors are turned into ours once, here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from orchestrator.errors import ConfigurationError, Fault, Unavailable

SETTING = "HABEAS_DATABASE_URL"
RESTED = 1.0
"""Seconds after which a connection that was not used is asked whether it still lives."""
IDLE = "30s"
"""How long a transaction may stand still before PostgreSQL ends it: its process was stopped, or the network to it is
gone, and others wait for what it has locked."""


class Database:
    """PostgreSQL. Connects when first used, so that it can be made before a fork."""

    def __init__(self, url: str, *, pool: int = 5, name: str = "habeas") -> None:
        """``url``: ``postgresql://user:password@host/database``; ``name``: shown in ``pg_stat_activity``."""
        if not url:
            raise ConfigurationError(
                "", [Fault("is not set; e.g. postgresql://user@host/db", field="HABEAS_DATABASE_URL")]
            )
        parsed = make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise ConfigurationError("", [Fault("must be a postgresql:// URL", field=SETTING)])
        self.url = parsed.set(drivername="postgresql+psycopg")
        self._pool, self._name = pool, name
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        if self._engine is None:
            self._engine = create_engine(
                self.url,
                pool_size=self._pool,
                max_overflow=2,
                pool_timeout=10,
                hide_parameters=True,  # parameters of a failed statement must not reach a log
                connect_args={
                    "application_name": self._name,
                    "connect_timeout": 5,
                    "keepalives_idle": 10,
                    "keepalives_interval": 5,
                    "keepalives_count": 3,
                    "tcp_user_timeout": 15_000,
                },
            )
            event.listen(self._engine, "connect", _send_arrays_in_binary)
            event.listen(self._engine, "connect", _bounded)
            event.listen(self._engine, "checkin", _note_use)
            event.listen(self._engine, "checkout", _ping_after_rest)
        return self._engine

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction, committed at the end. Raises ``Unavailable`` when the database is away or was cut off."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        """Each statement is a transaction of its own, in one round trip instead of three. Raises ``Unavailable``."""
        with _translated(), self.engine.connect() as connection:
            # The driver alone is told: that is a note of its own, where SQLAlchemy's way is half a statement's time.
            driver: Any = connection.connection.driver_connection
            driver.autocommit = True
            try:
                yield connection
            finally:
                if not driver.closed:
                    driver.autocommit = False

    def ping(self) -> None:
        """Raises ``Unavailable`` unless the database answers."""
        with self.transaction() as tx:
            tx.execute(text("SELECT 1"))

    def close(self) -> None:
        """Let go of all connections; a later use makes new ones."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def forget(self) -> None:
        """In a forked child: drop the parent's connections without closing them."""
        if self._engine is not None:
            self._engine.dispose(close=False)
            self._engine = None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(f"the database does not answer ({type(error).__name__})") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the connection to the database was cut") from error
        raise


def _send_arrays_in_binary(connection: Any, _record: Any) -> None:
    """Arrays carry all bulk writes; their binary form takes a quarter of the time of their text form to make."""
    connection.adapters.register_dumper(list, ListBinaryDumper)


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_after_rest(connection: Any, record: Any, _proxy: object) -> None:
    """Ask a connection that lay idle whether it still lives; the pool makes another if it does not.

    One that was used a moment ago is taken at its word: asking each time is a round trip for every transaction. If it
    is dead after all, the transaction says ``Unavailable``, as it does when it dies a moment later.
    """
    if time.monotonic() - record.info.get("used", time.monotonic()) < RESTED:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error as error:
        raise DisconnectionError from error


def _bounded(connection: Any, _record: object) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE}'")
    connection.execute("SET datestyle = 'ISO'")  # rows of steps are read as text
    connection.commit()
