"""Bringing the database to this version's schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from orchestrator.store.database import Database

FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x48_41_42_45  # "HABE": advisory lock that keeps two migrations from running at once


def upgrade(database: Database) -> str:
    """Apply what is missing, in one transaction; the revision reached. Raises ``Unavailable``."""
    with database.transaction() as tx:
        tx.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        command.upgrade(config(tx), "head")
        return current(tx)


def config(tx: Connection) -> Config:
    """Alembic's configuration, on a connection."""
    made = Config()
    made.set_main_option("script_location", str(FOLDER))
    made.attributes["connection"] = tx
    return made


def current(tx: Connection) -> str:
    """The revision that the database is at; empty before the first."""
    return MigrationContext.configure(tx).get_current_revision() or ""


def head() -> str:
    """The revision that this version of the code needs."""
    made = Config()
    made.set_main_option("script_location", str(FOLDER))
    return ScriptDirectory.from_config(made).get_current_head() or ""
