"""The SQL connector keeps the contract's laws on PostgreSQL, MariaDB and DuckDB."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from connectors.conformance import ConnectorConformance, World
from connectors.contract import Identity
from connectors.sql import Sql
from tests.support import sql_shop

PEOPLE = {"person": 7001, "other": 7002, "third": 7003}
SETTINGS: Mapping[str, Any] = {
    "restrict": [{"table": "users", "set": {"state": "restricted"}}],
    "suppress": {"marketing": [{"table": "consents", "where": {"purpose": "marketing"}, "set": {"granted": False}}]},
    "retain": {
        "orders": {"reason": "tax", "legal_basis": "§ 147 AO", "years": 10, "from": "placed", "mask": ["ship_to"]},
        "order_items": {"with": "orders"},
    },
}


def identities(number: int) -> tuple[Identity, ...]:
    return Identity("email", f"person{number}@example.org"), Identity("user_id", str(number))


def whose(row: tuple[Any, ...]) -> int:
    """The shop's people number their rows: the person's own number, then two digits."""
    key = int(str(row[0]).removeprefix("dev-"))
    return key if key < 10_000 else key // 100


def snapshot(url: str) -> dict[str, object]:
    rows = [(table, row) for table, found in sql_shop.contents(url).items() for row in found]
    return {label: [r for r in rows if whose(r[1]) == number] for label, number in PEOPLE.items()}


def world_at(url: str, nowhere: str, folder: Path) -> World:
    sql_shop.create(url)
    sql_shop.seed(url, list(PEOPLE.values()))
    return World(
        connector=sql_shop.system(url, folder, **SETTINGS),
        person=identities(PEOPLE["person"]),
        other=identities(PEOPLE["other"]),
        stranger=identities(7009),
        snapshot=lambda: snapshot(url),
        unreachable=sql_shop.system(nowhere, folder, **SETTINGS),
    )


class TestSqlOnPostgresConformance(ConnectorConformance):
    actions = Sql.actions()

    @pytest.fixture
    def world(self, postgres_database: str, tmp_path: Path) -> World:
        return world_at(postgres_database, "postgresql+psycopg://nobody@127.0.0.1:9/nowhere", tmp_path)


class TestSqlOnMariadbConformance(ConnectorConformance):
    actions = Sql.actions()

    @pytest.fixture
    def world(self, mariadb_database: str, tmp_path: Path) -> World:
        return world_at(mariadb_database, "mysql+pymysql://nobody@127.0.0.1:9/nowhere", tmp_path)


class TestSqlOnDuckdbConformance(ConnectorConformance):
    actions = Sql.actions()

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        return world_at(f"duckdb:///{tmp_path}/shop.duckdb", f"duckdb:///{tmp_path}/no/where.duckdb", tmp_path)
