"""The database alone, for commands that only look: they start in a fraction of the time that the engine takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import Connection

from orchestrator import settings
from orchestrator.cli import quiet
from orchestrator.settings import Settings
from orchestrator.store import queries
from orchestrator.store.database import Database


@contextlib.contextmanager
def connected(name: str = "habeas cli") -> Iterator[tuple[Settings, Database]]:
    """Settings and database, for the length of one command. Raises ``ConfigurationError``.

    What is logged meanwhile goes to standard error, from warnings up.
    """
    quiet.listen()
    known = settings.read()
    database = Database(known.database_url.get_secret_value(), pool=known.database_pool, name=name)
    try:
        yield known, database
    finally:
        database.close()


def find(tx: Connection, request: str, *, message: bool = False) -> UUID:
    """The request that is meant. Raises ``NotFound`` or ``Conflict``."""
    return queries.find_message(tx, request) if message else queries.find(tx, request)
