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
        connection.execute(_ENABLE_NOTIFY)


# The Python client calls this overload for a message that has headers and no delay; its SQL leaves it out.
_SEND_TOPIC = """
CREATE OR REPLACE FUNCTION pgmq.send_topic(routing_key text, msg jsonb, headers jsonb) RETURNS integer LANGUAGE sql AS
$$ SELECT pgmq.send_topic(routing_key, msg, headers, 0) $$"""

# Every process declares its queues when it connects. PGMQ's own version drops the trigger and makes it anew each time:
# two at once fail (``DuplicateObject``), and each takes the queue's table for itself. This one makes it once.
_ENABLE_NOTIFY = """
CREATE OR REPLACE FUNCTION pgmq.enable_notify_insert(queue_name TEXT, throttle_interval_ms INTEGER DEFAULT 250)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wanted_name TEXT := queue_name;
    wanted_throttle INTEGER := throttle_interval_ms;
    queue_table REGCLASS := to_regclass(format('pgmq.%I', pgmq.format_table_name(queue_name, 'q')));
BEGIN
    IF throttle_interval_ms < 0 THEN
        RAISE EXCEPTION 'throttle_interval_ms must be non-negative';
    END IF;
    IF queue_table IS NULL THEN
        RAISE EXCEPTION 'Queue "%" does not exist. Create it first using pgmq.create()', queue_name;
    END IF;
    PERFORM pgmq.acquire_queue_lock(queue_name);
    INSERT INTO pgmq.notify_insert_throttle AS t (queue_name, throttle_interval_ms)
    VALUES (wanted_name, wanted_throttle)
    ON CONFLICT ON CONSTRAINT notify_insert_throttle_queue_name_key
        DO UPDATE SET throttle_interval_ms = excluded.throttle_interval_ms
        WHERE t.throttle_interval_ms <> excluded.throttle_interval_ms;
    IF NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = queue_table AND tgname = 'trigger_notify_queue_insert_listeners'
    ) THEN
        EXECUTE format(
            'CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON %s DEFERRABLE '
            'FOR EACH ROW EXECUTE PROCEDURE pgmq.notify_queue_listeners()',
            queue_table
        );
    END IF;
END $$"""
