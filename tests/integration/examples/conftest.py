"""A small demo shop, all four systems of it real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.shop.world import Shop


@pytest.fixture
def shop(tmp_path: Path, postgres_database: str, reaped: Callable[[int], None]) -> Iterator[Shop]:
    """A shop of 60 people, 30 of whom ask for something, filled and running."""
    made = Shop.create(tmp_path / "shop", postgres_database, people=60)
    try:
        made.start()
        assert made.server.pid
        reaped(made.server.pid)
        made.seed()
        yield made
    finally:
        made.stop()
