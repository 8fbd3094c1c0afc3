"""Fixtures of the connectors' integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.logs import passes


@pytest.fixture(params=["postgresql", "mariadb", "duckdb"])
def sql_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, empty database of each kind the SQL connector speaks to."""
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path / 'warehouse.duckdb'}"
    name = "postgres_database" if request.param == "postgresql" else "mariadb_database"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture(params=["here", "beside"])
def wherever(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have log files dealt with in this process, as few are, and in processes beside it, as many are."""
    if request.param == "beside":
        monkeypatch.setattr(passes, "_hands", lambda files, most: min(len(files), most))
