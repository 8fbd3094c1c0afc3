"""Fixtures of the connectors' integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["postgresql", "mariadb", "duckdb"])
def sql_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, empty database of each kind the SQL connector speaks to."""
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path / 'warehouse.duckdb'}"
    name = "postgres_database" if request.param == "postgresql" else "mariadb_database"
    url: str = request.getfixturevalue(name)
    return url
