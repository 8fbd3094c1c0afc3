#!/usr/bin/env python
"""Fills the demo shop's four systems inside Docker Compose, once; ends at once where they are filled already.

Reads what ``examples/shop/systems.yaml`` refers to: ``SHOP_DATABASE_URL``, ``SHOP_LOGS``, ``SHOP_STRIPE_URL`` and
``SHOP_WAREHOUSE_URL``. The number of people may be given as an argument.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg

from examples.shop import analytics, logfiles, payments, users
from examples.shop.people import cast
from examples.shop.persons import make_persons

PEOPLE = 3000
SEED = 7


def seeded(url: str) -> bool:
    """Whether the shop is filled: its database is filled last, in one transaction."""
    with psycopg.connect(users.driver_url(url)) as connection:
        found = connection.execute("select to_regclass('accounts') is not null").fetchone()
        return bool(found and found[0])


def main(people: int) -> None:
    """Fill the systems, the database last."""
    database = os.environ["SHOP_DATABASE_URL"]
    if seeded(database):
        return
    logs = Path(os.environ["SHOP_LOGS"])
    logs.parent.mkdir(parents=True, exist_ok=True)
    persons = make_persons(SEED, people)
    customers = payments.seed(os.environ["SHOP_STRIPE_URL"], cast(persons, SEED, min(300, people // 2)).customers, SEED)
    logfiles.create(logs, persons, SEED)
    analytics.create(Path(os.environ["SHOP_WAREHOUSE_URL"].removeprefix("duckdb:///")), persons, SEED)
    rows = users.create(database, persons, SEED, customers)
    sys.stdout.write(f"filled the demo shop: {len(persons)} people, {rows} rows in its database\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PEOPLE)
