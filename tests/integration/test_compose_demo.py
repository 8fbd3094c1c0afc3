"""What Docker Compose runs for the demo shop, run without it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from tests.support.servers.ports import free_ports, wait_until
from tests.support.tree import ROOT


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def payments(reaped: Callable[[int], None]) -> Iterator[str]:
    [port] = free_ports(1)
    process = subprocess.Popen([sys.executable, str(ROOT / "deploy/demo/payments.py"), "127.0.0.1", str(port)])
    reaped(process.pid)
    wait_until(lambda: listens(port), what="the payment server")
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def environment(postgres_database: str, payments: str, tmp_path: Path) -> Mapping[str, str]:
    return {
        "SHOP_DATABASE_URL": postgres_database,
        "SHOP_LOGS": str(tmp_path / "shop" / "logs"),
        "SHOP_STRIPE_URL": payments,
        "SHOP_WAREHOUSE_URL": f"duckdb:///{tmp_path / 'shop' / 'analytics.duckdb'}",
    }


def seed(environment: Mapping[str, str]) -> str:
    command = [sys.executable, str(ROOT / "deploy/demo/seed.py"), "24"]
    whole = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=whole, check=True, capture_output=True, text=True).stdout


def test_the_demo_shop_is_filled_once(environment: Mapping[str, str]) -> None:
    assert "24 people" in seed(environment)
    with psycopg.connect(environment["SHOP_DATABASE_URL"].replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (24,)
    logs = Path(environment["SHOP_LOGS"])
    before = {path.name: path.stat().st_mtime_ns for path in logs.iterdir()}
    assert before
    assert seed(environment) == ""
    assert {path.name: path.stat().st_mtime_ns for path in logs.iterdir()} == before
