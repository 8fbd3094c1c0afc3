"""A small demo shop, all four systems of it real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.shop.payments import PaymentsServer, api
from examples.shop.world import Shop


@pytest.fixture(scope="session")
def payments_server(reaped: Callable[[int], None]) -> Iterator[PaymentsServer]:
    """Started once; each shop begins with an empty one."""
    server = PaymentsServer()
    try:
        server.start()
        assert server.pid
        reaped(server.pid)
        yield server
    finally:
        server.stop()


@pytest.fixture
def shop(tmp_path: Path, postgres_database: str, payments_server: PaymentsServer) -> Shop:
    """A shop of 60 people, 30 of whom ask for something, filled and running."""
    with api(payments_server.url) as stripe:
        stripe.wipe()
    made = Shop.create(tmp_path / "shop", postgres_database, people=60)
    made.server = payments_server
    made.seed(log_lines=4000)
    return made
