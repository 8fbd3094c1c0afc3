"""PGMQ: queues inside PostgreSQL, made of SQL alone."""

from __future__ import annotations

import psycopg

from orchestrator.embedded.errors import missing_extra

__all__ = ["install_pgmq"]

PGMQ_LOCK = 0x70676D71
"""Advisory lock that makes two simultaneous installations of PGMQ one; the bytes spell ``pgmq``."""


def install_pgmq(url: str) -> None:
    """Install PGMQ's SQL (queues inside PostgreSQL, no extension) in a database, once.

    ``url``: SQLAlchemy or libpq URL of the database; its user must own it.

    Raises:
        EmbeddedError: the ``pgmq`` package is missing.
    """
    try:
        from pgmq.install import install_pgmq_from_sql  # noqa: PLC0415 - an extra, not always there
    except ImportError as error:
        raise missing_extra() from error
    with psycopg.connect(url.replace("+psycopg", "", 1)) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [PGMQ_LOCK])
        found = connection.execute("SELECT to_regclass('pgmq.meta') IS NOT NULL").fetchone()
        if found is None or not found[0]:
            install_pgmq_from_sql(conn=connection)
        connection.execute(_SEND_TOPIC)


# The Python client calls this overload for a message that has headers and no delay; its SQL leaves it out.
_SEND_TOPIC = """
CREATE OR REPLACE FUNCTION pgmq.send_topic(routing_key text, msg jsonb, headers jsonb) RETURNS integer LANGUAGE sql AS
$$ SELECT pgmq.send_topic(routing_key, msg, headers, 0) $$"""
