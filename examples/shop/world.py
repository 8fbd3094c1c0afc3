"""The whole shop: its four systems, made, filled, started and stopped together."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from examples.shop import analytics, logfiles, payments, users
from examples.shop.people import RIGHTS, Cast, cast
from examples.shop.persons import Person, make_persons

__all__ = ["SIGNING_SECRET", "SOURCES", "SYSTEMS", "Shop", "create_database"]

HERE = Path(__file__).parent
SYSTEMS = HERE / "systems.yaml"
"""The four systems, as Habeas is told of them."""
SOURCES = HERE / "sources.yaml"
"""The services that may ask, as Habeas is told of them."""
FEWEST_PEOPLE = 12
"""With fewer there would be nobody left to be a bystander."""
SIGNING_SECRET = "whsec_c2hvcC1hY2NvdW50LXNlcnZpY2UtZGVtby1zZWNyZXQ="  # noqa: S105 - it guards made-up people
"""What the shop's account service signs its requests with (Standard Webhooks)."""


def create_database(url: str) -> None:
    """Makes an empty database of this name, in place of one that was there; the server's user must be allowed to."""
    where = make_url(users.driver_url(url))
    name = sql.Identifier(where.database or "shop")
    admin = where.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        connection.execute(sql.SQL("create database {}").format(name))


@dataclass
class Shop:
    """The shop and everybody in it."""

    directory: Path
    """Holds the logs and the warehouse."""
    postgres_url: str
    """Of the user database, e.g. ``postgresql+psycopg://user@127.0.0.1:5432/shop``."""
    seed_number: int
    persons: tuple[Person, ...]
    cast: Cast
    server: payments.PaymentsServer = field(default_factory=payments.PaymentsServer)
    customers: dict[str, str] = field(default_factory=dict)
    """User id → Stripe customer id, once seeded."""
    counts: dict[str, int] = field(default_factory=dict)
    """System → how many rows, lines or customers it was filled with."""

    @classmethod
    def create(
        cls, directory: Path, postgres_url: str, people: int = 3000, seed: int = 7, *, requests: int | None = None
    ) -> Shop:
        """A shop that does not exist yet: nothing is written or started.

        ``people``: at least 12. ``requests``: how many of them ask for something; by default half, at most 300.

        Raises:
            ValueError: too few people.
        """
        wanted = min(300, people // 2) if requests is None else requests
        if people < FEWEST_PEOPLE or wanted < len(RIGHTS):
            message = f"the shop needs at least {FEWEST_PEOPLE} people and {len(RIGHTS)} requests, one for each right"
            raise ValueError(message)
        persons = make_persons(seed, people)
        return cls(directory, postgres_url, seed, persons, cast(persons, seed, wanted))

    @property
    def logs(self) -> Path:
        """The directory of log files."""
        return self.directory / "logs"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.directory / "analytics.duckdb"

    def start(self, *, stay: bool = False) -> None:
        """Starts the payment processor's server. With ``stay`` it outlives this process."""
        self.server.start(stay=stay)

    def seed(self, *, log_lines: int | None = None) -> None:
        """Makes and fills all four systems. The database must be there and empty, the payment server started.

        ``log_lines``: over all files; by default as many as befits the number of people.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(1) as pool:
            # The payment server is a process of its own: it works while this one writes logs.
            customers = pool.submit(payments.seed, self.server.url, self.cast.customers, self.seed_number)
            self.counts["logs"] = logfiles.create(self.logs, self.persons, self.seed_number, lines=log_lines)
            self.counts["analytics"] = analytics.create(self.warehouse, self.persons, self.seed_number)
            self.customers = customers.result()
        self.counts["payments"] = len(self.customers)
        self.counts["users"] = users.create(self.postgres_url, self.persons, self.seed_number, self.customers)

    def environment(self) -> Mapping[str, str]:
        """What ``systems.yaml`` and ``sources.yaml`` refer to."""
        return {
            "SHOP_DATABASE_URL": self.postgres_url,
            "SHOP_LOGS": str(self.logs),
            "SHOP_STRIPE_KEY": payments.KEY,
            "SHOP_STRIPE_URL": self.server.url,
            "SHOP_WAREHOUSE_URL": f"duckdb:///{self.warehouse}",
            "SHOP_SIGNING_SECRET": SIGNING_SECRET,
        }

    def stop(self) -> None:
        """Stops what was started. Data stays where it is."""
        self.server.stop()
