r"""Access requests: one of ten million records beside ``psql \\copy`` of the same rows, and a thousand small ones."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

from benchmarks.figures import Figure, Report, WrongResult
from benchmarks.people import Place, ask, field, place
from benchmarks.servers import IN_WORDS
from tests.support.servers import debian

TITLE = "access requests beside psql \\copy of the same rows"
RECORDS, SMALL = 10_000_000, 20_000
PEOPLE, FEW = 1000, 20
EACH = 10
"""Records of each of the many people."""
MEMORY = 200.0
"""MB that a worker process may take."""
COLUMNS = "id, user_id, at, kind, page, amount, ip"
TABLES = """
    CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, name text, joined timestamptz);
    CREATE TABLE events (id bigint PRIMARY KEY, user_id bigint NOT NULL, at timestamptz NOT NULL, kind varchar(30),
        page text, amount numeric(10,2), ip inet);
    INSERT INTO users SELECT n, 'p' || n || '@people.example', 'Name ' || n,
        timestamptz '2020-01-01' + n * interval '1 h' FROM generate_series(0, {people}) n;
    INSERT INTO events SELECT n, CASE WHEN n < {records} THEN 0 ELSE 1 + n % {people} END,
        timestamptz '2020-01-01' + n * interval '7.3 s', (ARRAY['view', 'click', 'purchase'])[1 + n % 3],
        '/shop/items/' || n * 7919 % 1000003 || '?ref=mail', CASE WHEN n % 4 = 0 THEN NULL ELSE n % 100000 / 100.0 END,
        ('10.' || n % 250 || '.' || n % 199 || '.7')::inet
        FROM generate_series(0, {records} + {people} * {each}::bigint - 1) n;
    CREATE INDEX ON events (user_id);
"""
COLLECTIONS = [
    {
        "name": "users",
        "fields": [
            field("id", "user.unique_id", primary_key=True),
            field("email", "user.contact.email", identity="email"),
            field("name", "user.name"),
            field("joined"),
        ],
    },
    {
        "name": "events",
        "fields": [
            field("id", "user.unique_id", primary_key=True),
            field(
                "user_id",
                "user.unique_id",
                references=[{"dataset": "people", "field": "users.id", "direction": "from"}],
            ),
            *(field(name, "user.behavior") for name in ("at", "kind", "page", "amount", "ip")),
        ],
    },
]


def run(folder: Path, *, small: bool) -> Report:
    """Measure."""
    debian.require("postgresql-client")
    records, people = (SMALL, FEW) if small else (RECORDS, PEOPLE)
    rounds = 1 if small else 3
    tables = TABLES.format(records=records, people=people, each=EACH)
    with place(folder, tables, COLLECTIONS, case_sensitive=["users.email"]) as here, here.asking() as publisher:
        ask(publisher, "access", [email(1)])  # connections are made, plans and caches warm
        copies, exports, peaks, many, many_peaks = [], [], [], [], []
        for number in range(rounds):
            copies.append(records / _copy(here, folder / "copy.txt"))
            with _peak(here) as peak:
                seconds, answers = ask(publisher, "access", [email(0)])
            exports.append(records / seconds)
            peaks.append(peak[0])
            _check(here, folder, answers[0].data["request_id"], records, thorough=number == 0)
            with _peak(here) as peak:
                seconds, answers = ask(publisher, "access", [email(n) for n in range(1, people + 1)])
            many.append(people / seconds)
            many_peaks.append(peak[0])
            for answer in answers[:3]:
                _check(here, folder, answer.data["request_id"], EACH, thorough=True)
    return Report(
        settings={
            "one person": f"{records:,} records of 7 columns, {people} others beside",
            "PostgreSQL": IN_WORDS,
            "processes": "1 intake, 1 worker of 2 processes, 1 clock; RabbitMQ",
            "measured": "from message published to completion received, package written and synced",
            "psql": subprocess.run(["psql", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        },
        figures=[
            Figure("one access request", "records/s", exports, "psql \\copy to a file", copies, at_least=0.5),
            Figure("memory of a worker process meanwhile", "MB", peaks, "limit", [MEMORY], at_most=1),
            Figure(f"{people} access requests at once, {EACH + 1} records each", "requests/s", many),
            Figure("memory of a worker process meanwhile", "MB", many_peaks, "limit", [MEMORY], at_most=1),
        ],
    )


def email(number: int) -> str:
    """A person's address; 0 is the one with many records."""
    return f"p{number}@people.example"


def _copy(here: Place, path: Path) -> float:
    began = time.perf_counter()
    command = f"\\copy (SELECT {COLUMNS} FROM events WHERE user_id = 0) TO '{path}'"
    subprocess.run(["psql", here.people, "-qXc", command], check=True)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


@contextmanager
def _peak(here: Place) -> Iterator[list[float]]:
    """The most memory (MB, resident) that any process of the worker takes meanwhile."""
    most, over = [0.0], threading.Event()
    workers = here.workers()

    def look() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], *(p.memory_info().rss / 1e6 for p in workers))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def _check(here: Place, folder: Path, request: str, records: int, *, thorough: bool) -> None:
    """The package opens, and holds every record; ``thorough``: each once, undamaged. Raises ``WrongResult``."""
    path = folder / "package.zip"
    here.deployment.habeas("package", request, "--out", str(path), "--as", "benchmark")
    with zipfile.ZipFile(path) as package, package.open("people/events.jsonl") as lines:
        if thorough:
            ids = {json.loads(line)["id"] for line in islice(lines, 100_000)}  # a set of all would be a gigabyte
            seen = len(ids) + sum(1 for _ in lines)
        else:
            seen = sum(piece.count(b"\n") for piece in iter(partial(lines.read, 1 << 20), b""))
    path.unlink()
    if seen != records:
        raise WrongResult(f"the package holds {seen} records of {records}")
