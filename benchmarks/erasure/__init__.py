"""Mass erasure: the ``sql`` connector beside SQL written by hand for the same tables, and beside itself, one by one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from benchmarks.erasure import peer, shop
from benchmarks.figures import Figure, Report, WrongResult, interleaved
from connectors.contract import Action, Done, Identity, Sink, Task
from connectors.sql import Sql
from orchestrator.embedded import EmbeddedPostgres
from tests.support.servers.ports import wait_until

TITLE = "a thousand people erased from ten million rows, beside hand-written SQL"

NOW: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
CUTOFF: Final = date(2016, 11, 20)
"""Orders placed after this day are kept for another while: ten years before ``NOW``."""
SETTINGS: Final = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "random_page_cost": "1.1",  # As is usual where there are no turning disks.
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    people: int
    batch: int
    rounds: int
    singles: int
    """People erased one by one in each round, from which a thousand are reckoned."""


FULL: Final = Size(people=250_000, batch=1000, rounds=5, singles=40)
SMALL: Final = Size(people=400, batch=20, rounds=1, singles=2)


@dataclass(frozen=True)
class BenchmarkCall:
    """Lends the time alone."""

    now: datetime = NOW

    def sink(self, task: Task) -> Sink:
        """Nothing here gathers data."""
        raise NotImplementedError(task.key)


class World:
    """One database with the tables, reached by the connector and by hand."""

    def __init__(self, url: str, folder: Path, people: int) -> None:
        """Make the tables and fill them."""
        self.sql = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        shop.create(self.sql, people)
        self.sql.execute("VACUUM (ANALYZE)")
        self.sql.execute("CHECKPOINT")
        settings = {"url": url, "datasets": [shop.write_data_map(folder).name], "retain": shop.RETAIN}
        self.connector = Sql("shop", Sql.Config.model_validate(settings, context={"directory": folder}))
        self.erased: list[int] = []
        self._left = random.Random(1).sample(range(1, people + 1), people)

    def close(self) -> None:
        """End all connections."""
        self.connector.close()
        self.sql.close()

    def take(self, number: int) -> list[int]:
        """People not yet erased; the same share of them in every turn has orders that are kept."""
        taken, self._left = self._left[:number], self._left[number:]
        if len(taken) < number:
            raise WrongResult("more people are measured than the database holds")
        self.erased += taken
        return taken

    def ours(self, people: Sequence[int], *, known: bool = False) -> float:
        """Seconds for one call of the connector. ``known``: the user ids were found before, as in a whole request."""
        tasks = [
            Task(f"r{n}/1", Action.ERASE, (Identity("email", e), *([Identity("user_id", str(n))] if known else [])))
            for n, e in zip(people, shop.addresses(people), strict=True)
        ]
        began = time.perf_counter()
        results = list(self.connector.perform(Action.ERASE, tasks, BenchmarkCall()))
        took = time.perf_counter() - began
        for number, (_, result) in zip(people, results, strict=True):
            if not isinstance(result, Done) or (result.counts.get("sessions"), result.counts.get("users")) != (6, 1):
                raise WrongResult(f"person {number}: {result!r}")
        return took

    def theirs(self, people: Sequence[int]) -> float:
        """Seconds by hand."""
        began = time.perf_counter()
        peer.erase(self.sql, shop.addresses(people), CUTOFF)
        return time.perf_counter() - began

    def singly(self, people: Sequence[int]) -> float:
        """Seconds for each, one call after the other."""
        return sum(self.ours([n]) for n in people) / len(people)

    def wal(self, work: Callable[[], object]) -> float:
        """Megabytes of log that work writes."""
        start = self.one("SELECT pg_current_wal_insert_lsn()")
        work()
        return float(self.one(f"SELECT pg_current_wal_insert_lsn() - '{start}'")) / 1e6

    def one(self, query: str) -> Any:
        """A single value."""
        row = self.sql.execute(query).fetchone()
        return row[0] if row else None

    def statements(self, work: Callable[[], object]) -> int:
        """How many statements the connector sends."""
        count = 0

        def see(*_: object) -> None:
            nonlocal count
            count += 1

        sa.event.listen(sa.Engine, "before_cursor_execute", see)
        try:
            work()
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", see)
        return count + 1  # COPY goes past SQLAlchemy.

    def check(self) -> None:
        """Whether nothing is left of all the people erased but what the law keeps."""
        kept = sum((n - 1) % shop.KEPT == 0 for n in self.erased)
        gone = dict.fromkeys(("addresses", "devices", "posts", "consents", "comments"), 0)
        expected = {**gone, "users": kept, "orders": 2 * kept}
        for table, rows in expected.items():
            column = "id" if table == "users" else "user_id"
            found = self.one(
                f"SELECT count(*) FROM {table} WHERE {column} = ANY ('{{{','.join(map(str, self.erased))}}}')"
            )
            if found != rows:
                raise WrongResult(f"{table}: {found} rows of erased people, not {rows}")
        for query, rows in (
            ("SELECT count(*) FROM comments WHERE body = 'masked'", 5 * len(self.erased)),
            ("SELECT count(*) FROM users WHERE email LIKE 'random:%'", kept),
            ("SELECT count(*) FROM newsletter", self.one("SELECT count(*) FROM users WHERE email LIKE 'Person%'")),
        ):
            if (found := self.one(query)) != rows:
                raise WrongResult(f"{query}: {found}, not {rows}")


def run(folder: Path, *, small: bool) -> Report:
    """Measure; see ``benchmarks.figures.Benchmark``."""
    size = SMALL if small else FULL
    with EmbeddedPostgres(folder / "postgres", settings=SETTINGS) as postgres:
        written = _same(postgres, folder)
        world = World(postgres.create_database("shop"), folder, size.people)
        try:
            figures = [*_figures(world, size), written]
            world.check()
            version = str(world.one("SHOW server_version"))
        finally:
            world.close()
    settings = {
        "PostgreSQL": f"{version}, fsync on, shared_buffers 1 GB, random_page_cost 1.1, otherwise as it comes",
        "rows": f"{size.people * shop.PER_PERSON:,} in {len(shop.COLUMNS)} tables, a person's {shop.PER_PERSON} apart",
        "rounds": f"{size.rounds}, after one that does not count; one by one: {size.singles} people a round",
    }
    return Report(settings, figures)


def _figures(world: World, size: Size) -> Iterator[Figure]:
    def batch(work: Callable[[Sequence[int]], float]) -> Callable[[], float]:
        return lambda: work(world.take(size.batch))

    mail, known, hand = batch(world.ours), batch(partial(world.ours, known=True)), batch(world.theirs)
    for warm in (mail, known, hand):
        warm()
    ours, both, theirs, single = interleaved(
        size.rounds, mail, known, hand, lambda: world.singly(world.take(size.singles))
    )
    people, by_hand = f"{size.batch:,} people erased", "hand-written set-based SQL, one transaction"
    yield Figure(f"{people}, known by e-mail address", "s", ours, by_hand, theirs, at_most=1.3)
    yield Figure(f"{people}, known by user id too", "s", both, by_hand, theirs, at_most=1.3)
    rates, singly = [size.batch / s for s in ours], [1 / s for s in single]
    yield Figure("people erased in batches", "people/s", rates, "the connector, one person a call", singly, at_least=20)
    ours, theirs = interleaved(size.rounds, partial(world.wal, mail), partial(world.wal, hand))
    yield Figure(f"log written for {size.batch:,} people", "MB", ours, by_hand, theirs)
    yield Figure(
        f"statements for {size.batch:,} people", "", [world.statements(mail)], by_hand, [1 + len(peer.STATEMENTS)]
    )


def _same(postgres: EmbeddedPostgres, folder: Path) -> Figure:
    """Erase the same people from small databases, by the connector and by hand: what is left must be equal."""
    contents, written = [], []
    works: dict[str, Callable[[World, Sequence[int]], float]]
    works = {"mail": World.ours, "known": partial(World.ours, known=True), "hand": World.theirs}
    for name, work in works.items():
        url = postgres.create_database(name)
        world = World(url, folder, 200)
        work(world, world.take(60))
        world.check()
        contents.append(_contents(world.sql))
        world.close()  # PostgreSQL counts what a session did when it ends.
        written.append(_versions(url))
    for table in shop.COLUMNS:
        if not contents[0][table] == contents[1][table] == contents[2][table]:
            raise WrongResult(f"{table} differs from what SQL by hand left of it")
    ours, _, theirs = written
    return Figure("rows written or deleted, for 60 people of 200", "", [ours], "the same by hand", [theirs], at_most=1)


def _contents(sql: psycopg.Connection) -> Mapping[str, list[str]]:
    """Every row, but for what is random in masks."""
    query = "SELECT regexp_replace(t::text, 'random:[0-9a-f-]+', 'random') FROM {} t ORDER BY 1"
    return {t: [r[0] for r in sql.execute(query.format(t))] for t in shop.COLUMNS}


def _versions(url: str) -> int:
    """Row versions that updates and deletions left dead."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as sql:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        wait_until(lambda: sql.execute(others).fetchone() == (0,), what="the other sessions end")
        row = sql.execute("SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables").fetchone()
    return int(row[0]) if row else 0
