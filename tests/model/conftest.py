"""Engines on fresh databases."""

from tests.support.worlds import make_world, migrated_database, migrated_template

__all__ = ["make_world", "migrated_database", "migrated_template"]
