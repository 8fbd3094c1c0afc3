"""The command line on an engine on a fresh database."""

from tests.support.command_line import habeas
from tests.support.worlds import make_world, migrated_database, migrated_template

__all__ = ["habeas", "make_world", "migrated_database", "migrated_template"]
