"""The migrations build exactly the tables, and can be taken back."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from orchestrator.store import migrate
from orchestrator.store.database import Database
from orchestrator.store.tables import metadata

INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
OPTIONS = """
SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
ORDER BY relname"""


def shape(database: Database) -> list[list[tuple[object, ...]]]:
    """What compare_metadata does not look at: what indexes are made of, and how tables are stored."""
    with database.transaction() as tx:
        return [
            [tuple(r) for r in tx.execute(text(s)) if not str(r[0]).startswith("alembic")] for s in (INDEXES, OPTIONS)
        ]


def test_the_migrations_make_exactly_the_tables(postgres_database: str) -> None:
    database = Database(postgres_database)
    assert migrate.upgrade(database) == migrate.head()
    with database.transaction() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    migrated = shape(database)
    with database.transaction() as tx:
        tx.execute(text("DROP SCHEMA public CASCADE"))
        tx.execute(text("CREATE SCHEMA public"))
        metadata.create_all(tx)
    assert migrated == shape(database)
    database.close()


def test_an_upgrade_that_is_done_again_changes_nothing(postgres_database: str) -> None:
    database = Database(postgres_database)
    migrate.upgrade(database)
    before = shape(database)
    assert migrate.upgrade(database) == migrate.head()
    assert shape(database) == before
    database.close()


def test_a_downgrade_leaves_nothing_behind_and_an_upgrade_brings_all_back(postgres_database: str) -> None:
    database = Database(postgres_database)
    migrate.upgrade(database)
    before = shape(database)
    with database.transaction() as tx:
        command.downgrade(migrate.config(tx), "base")
    with database.transaction() as tx:
        assert migrate.current(tx) == ""
        left = tx.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
    assert left == ["alembic_version"]
    migrate.upgrade(database)
    assert shape(database) == before
    database.close()
