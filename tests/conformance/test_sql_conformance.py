"""The SQL connector keeps the contract's laws on PostgreSQL, MariaDB and DuckDB."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

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


@contextmanager
def shop_on(server: str) -> Iterator[str]:
    """A database with the shop's empty tables, for all tests of a class: making one takes longer than a test."""
    name = f"c{secrets.token_hex(6)}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        sql_shop.create(url)
        yield url
        connection.execute(sa.text(f"DROP DATABASE {name}"))


@pytest.fixture(scope="class")
def postgres_shop(postgres_server: str) -> Iterator[str]:
    with shop_on(postgres_server) as url:
        yield url


@pytest.fixture(scope="class")
def mariadb_shop(mariadb_server: str) -> Iterator[str]:
    with shop_on(mariadb_server) as url:
        yield url


def world_at(url: str, nowhere: str, folder: Path) -> World:
    with sql_shop.connected(url) as connection:
        for table in reversed(list(sql_shop.TABLES)):
            connection.execute(sa.text(f"DELETE FROM {table}"))
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
    def world(self, postgres_shop: str, tmp_path: Path) -> World:
        return world_at(postgres_shop, "postgresql+psycopg://nobody@127.0.0.1:9/nowhere", tmp_path)


class TestSqlOnMariadbConformance(ConnectorConformance):
    actions = Sql.actions()

    @pytest.fixture
    def world(self, mariadb_shop: str, tmp_path: Path) -> World:
        return world_at(mariadb_shop, "mysql+pymysql://nobody@127.0.0.1:9/nowhere", tmp_path)


class TestSqlOnDuckdbConformance(ConnectorConformance):
    actions = Sql.actions()

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        url = f"duckdb:///{tmp_path}/shop.duckdb"
        sql_shop.create(url)
        return world_at(url, f"duckdb:///{tmp_path}/no/where.duckdb", tmp_path)
