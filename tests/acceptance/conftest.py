"""A shop and a deployment for each test, with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from examples.shop.world import SOURCES, SYSTEMS, Shop
from tests.support.deployment import Deployment, deployed

Deploy = Callable[..., "contextmanager[Deployment]"]


@pytest.fixture
def open_shop(tmp_path: Path, new_postgres_database: Callable[[], str]) -> Iterator[Callable[..., Shop]]:
    """Makes a shop with all four systems, filled."""
    with ExitStack() as stack:

        def create(people: int, requests: int, seed: int = 7) -> Shop:
            shop = Shop.create(tmp_path / "shop", new_postgres_database(), people, seed, requests=requests)
            shop.start()
            stack.callback(shop.stop)
            shop.seed()
            return shop

        yield create


@pytest.fixture(params=["rabbitmq", "pgmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The broker's URL: RabbitMQ's, or the database's own queues."""
    return str(request.getfixturevalue("rabbitmq_vhost")) if request.param == "rabbitmq" else "pgmq://localhost"


@pytest.fixture
def deploy(tmp_path: Path, postgres_database: str) -> Callable[..., contextmanager[Deployment]]:
    """Starts a deployment for a shop; a context manager."""

    def start(shop: Shop, broker: str, *processes: str, **settings: str) -> contextmanager[Deployment]:
        environment = {
            **shop.environment(),
            "HABEAS_DATABASE_URL": postgres_database,
            "HABEAS_BROKER_URL": broker,
            "HABEAS_SYSTEMS": str(SYSTEMS),
            "HABEAS_SOURCES": str(SOURCES),
            **{f"HABEAS_{name.upper()}": value for name, value in settings.items()},
        }
        return deployed(tmp_path / "deployment", environment, *(processes or ("intake", "worker", "clock")))

    return start
