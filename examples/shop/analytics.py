"""The event warehouse (a DuckDB file): made, bulk-loaded, and the same for the same seed."""

from __future__ import annotations

import csv
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import duckdb

from examples.shop.persons import TODAY, Person, moment
from examples.shop.words import CITIES_NEARBY, PATHS

__all__ = ["TABLES", "create", "make_rows"]

Row = tuple[object, ...]

TABLES = ("identities", "events", "devices", "geo", "ad_partner_audiences", "daily_sales")

_BROWSERS = ("Chrome 141", "Firefox 143", "Safari 18")
_AUDIENCES = (("adreach", "home and garden"), ("adreach", "visited, did not buy"), ("friendbook", "lookalike seed"))


def make_rows(persons: Sequence[Person], seed: int) -> dict[str, list[Row]]:
    """Every table's rows, in the order of its columns. Beside the people, visitors who never signed in."""
    random = Random(f"analytics:{seed}")
    rows: dict[str, list[Row]] = {table: [] for table in TABLES}
    for person in persons:
        rows["identities"].append((person.cookie_id, person.user_id, person.email, person.joined, False, False))
        _visits(rows, random, person.cookie_id, CITIES_NEARBY[person.address.country], person.address.country)
        for device_id in person.device_ids:
            screen = random.choice(("390x844", "1440x900", "1920x1080"))
            rows["devices"].append((device_id, person.cookie_id, random.choice(_BROWSERS), "desktop", screen))
        digest = hashlib.sha256(person.email.encode()).hexdigest()
        for partner, audience in random.sample(_AUDIENCES, random.choice((0, 0, 1, 2))):
            rows["ad_partner_audiences"].append(
                (partner, audience, person.cookie_id, digest, True, moment(random, person.joined))
            )
    for number in range(len(persons) // 2):
        visitor = f"anon_{hashlib.sha256(f'visitor:{seed}:{number}'.encode()).hexdigest()[:12]}"
        rows["identities"].append((visitor, None, None, moment(random, TODAY - timedelta(days=200)), False, False))
        _visits(rows, random, visitor, "Rhône", "FR")
    for day in range(365):
        rows["daily_sales"].append(
            ((TODAY - timedelta(days=day)).date(), random.randint(5, 60), random.randrange(10**6))
        )
    return rows


def _visits(rows: dict[str, list[Row]], random: Random, cookie_id: str, city: str, country: str) -> None:
    start = TODAY - timedelta(days=200)
    events = rows["events"]
    for _ in range(random.randint(8, 28)):
        name = random.choice(("page viewed", "page viewed", "search", "product viewed", "cart opened"))
        url = f"https://shop.example{random.choice(PATHS)}"
        referrer = random.choice((None, "https://search.example/", "https://friendbook.example/"))
        events.append((len(events) + 1, cookie_id, name, url, referrer, random.randint(1, 300), moment(random, start)))
    days = {moment(random, start).date() for _ in range(random.randint(1, 3))}
    rows["geo"].extend((cookie_id, day, city, country) for day in sorted(days))


def _cells(row: Row) -> Iterator[object]:
    for value in row:
        yield value.replace(tzinfo=None) if isinstance(value, datetime) else value


def create(path: Path, persons: Sequence[Person], seed: int) -> int:
    """Makes the warehouse in a new file and fills it; the number of rows."""
    rows = make_rows(persons, seed)
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect(str(path)) as connection:
        connection.execute((Path(__file__).parent / "analytics.sql").read_text())
        for table in TABLES:
            # DuckDB takes rows one by one slowly and a CSV file at once; the tables' names are ours.
            file = Path(scratch, f"{table}.csv")
            with file.open("w", newline="") as stream:
                csv.writer(stream).writerows(map(_cells, rows[table]))
            connection.execute(f"copy {table} from '{file}' (format csv, header false)")
    return sum(map(len, rows.values()))
