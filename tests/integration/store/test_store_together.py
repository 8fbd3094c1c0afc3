"""What is written together is committed together, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from orchestrator.store import bulk, tables
from orchestrator.store.database import Database


@pytest.fixture
def database(migrated_database: str) -> Iterator[Database]:
    """A database of its own."""
    made = Database(migrated_database)
    yield made
    made.close()


def quarantined(**other: object) -> dict[str, object]:
    """A row of a table without any others."""
    plain = {"id": uuid4(), "reason": "r", "detail": "d", "bytes": 1, "wrapped_key": b"", "sealed": b""}
    return {**plain, **other}


def write(database: Database, *rows: dict[str, object]) -> None:
    """Each by a statement of its own, sent together with the commit."""
    with database.transaction() as tx:
        tx.execute(text("SELECT 1"))
        with bulk.together(tx, commit=True):
            for row in rows:
                bulk.insert(tx, tables.quarantine, [row])


def kept(database: Database) -> int:
    """As another session sees it."""
    with database.transaction() as tx:
        return int(tx.execute(text("SELECT count(*) FROM quarantine")).scalar_one())


def test_what_goes_out_with_its_commit_is_there_before_the_transaction_block_ends(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute(text("SELECT 1"))
        with bulk.together(tx, commit=True):
            with bulk.together(tx):
                bulk.insert(tx, tables.quarantine, [quarantined()])
            bulk.insert(tx, tables.quarantine, [quarantined(at=datetime.now(UTC))])
        assert kept(database) == 2


def test_where_one_of_them_fails_none_is_kept_and_the_connection_serves_the_next(database: Database) -> None:
    again = quarantined()
    with pytest.raises(psycopg.errors.UniqueViolation):
        write(database, again, again, quarantined())
    assert kept(database) == 0


def test_each_statement_is_kept_by_itself_where_that_is_asked_for(database: Database) -> None:
    again = quarantined()
    with database.statements() as tx:
        bulk.insert(tx, tables.quarantine, [again])
        with pytest.raises(Exception, match="quarantine_pkey"):
            bulk.insert(tx, tables.quarantine, [again])
        bulk.insert(tx, tables.quarantine, [quarantined()])
    assert kept(database) == 2


def test_what_is_more_than_a_socket_takes_at_once_is_sent_to_its_end(database: Database) -> None:
    # psycopg's own ``commit`` in a pipeline waits for an answer to what it has not sent yet.
    written = threading.Thread(target=write, args=(database, quarantined(sealed=bytes(100 << 20))), daemon=True)
    written.start()
    written.join(60)
    assert not written.is_alive()
    assert kept(database) == 1
