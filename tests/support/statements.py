"""What is sent to PostgreSQL, whoever sends it: caught at the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine, event


@contextmanager
def sent(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Statements with their values, as they are executed through an engine's connections meanwhile."""
    seen: list[tuple[str, Any]] = []

    class Seen(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Seen:
            seen.append((str(query), params))
            return super().execute(query, params, **options)

    def watch(connection: Any, *_: object) -> None:
        connection.cursor_factory = Seen

    def stop(connection: Any, *_: object) -> None:
        connection.cursor_factory = psycopg.Cursor

    event.listen(engine, "checkout", watch)
    event.listen(engine, "checkin", stop)
    try:
        yield seen
    finally:
        event.remove(engine, "checkout", watch)
        event.remove(engine, "checkin", stop)
