"""The whole job on one database: four tables, one row of each person in each, found by e-mail address."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.costs import Costs, between
from benchmarks.figures import Figure, Report, WrongResult
from benchmarks.people import Place, ask, field, place
from benchmarks.servers import IN_WORDS

TITLE = "access and erasure in one database of four tables, message to completion event"
REQUESTS, FEW = 5000, 30
WARM_UP = 500
"""Requests before anything is measured."""
OTHERS = 100_000
"""People nobody asks for."""
FIDES, FIDES_COMMITS = 2.5, 118.0
"""Access requests a second, and commits of each."""
BESIDE = "Fides, measured elsewhere"
NOTE = (
    "Fides was not run here: version 2.84.2 with its own defaults and two worker processes gave about 2.5 access "
    "requests a second on another machine of this size, with 118 commits and 240 Redis commands each."
)
TIMES = 200.0
TABLES = """
    CREATE TABLE accounts (id bigint PRIMARY KEY, email text UNIQUE, name text, phone text,
        joined timestamptz NOT NULL);
    CREATE TABLE profiles (id bigint PRIMARY KEY, email text UNIQUE, bio text, born date, points integer NOT NULL);
    CREATE TABLE subscriptions (id bigint PRIMARY KEY, email text UNIQUE NOT NULL, topic text, since timestamptz);
    CREATE TABLE tickets (id bigint PRIMARY KEY, email text UNIQUE NOT NULL, subject text, paid numeric(10, 2));
    INSERT INTO accounts SELECT n, 'p' || n || '@people.example', 'Name ' || n, '+49' || n, now()
        FROM generate_series(1, {n}) n;
    INSERT INTO profiles SELECT n, 'p' || n || '@people.example', repeat('about me ', 10), '1990-02-28', n
        FROM generate_series(1, {n}) n;
    INSERT INTO subscriptions SELECT n, 'p' || n || '@people.example', 'news', now() FROM generate_series(1, {n}) n;
    INSERT INTO tickets SELECT n, 'p' || n || '@people.example', 'where is my parcel', n / 100.0
        FROM generate_series(1, {n}) n;
"""
HELD = {"accounts": "name, phone", "profiles": "bio, born", "subscriptions": "", "tickets": ""}
"""Table → what is set to NULL in it; nothing: rows are deleted."""
DELETE = {"fides_meta": {"masking_strategy_override": {"strategy": "delete"}}}


def _collection(name: str, fields: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    key = field("id", "user.unique_id", primary_key=True)
    return {"name": name, "fields": [key, field("email", "user.contact.email", identity="email"), *fields], **more}


COLLECTIONS = [
    _collection("accounts", [field("name"), field("phone"), {"name": "joined"}]),
    _collection("profiles", [field("bio"), field("born"), {"name": "points"}]),
    _collection("subscriptions", [field("topic"), field("since")], **DELETE),
    _collection("tickets", [field("subject"), field("paid")], **DELETE),
]


@dataclass(frozen=True)
class Measured:
    """One round of one right."""

    rate: float
    """Requests a second."""
    costs: Costs
    commits: float
    """For each request, in both databases."""


def run(folder: Path, *, small: bool) -> Report:
    """Measure."""
    requests, rounds, others = (FEW, 1, 100) if small else (REQUESTS, 3, OTHERS)
    warm = FEW if small else WARM_UP
    people = iter(range(1, warm + rounds * requests + 1))
    rights: dict[str, list[Measured]] = {"access": [], "erasure": []}
    total = warm + rounds * requests
    with place(folder, TABLES.format(n=total + others), COLLECTIONS, case_sensitive=_cased()) as here:
        _measure(here, "access", [next(people) for _ in range(warm)])
        for _ in range(rounds):
            asked = [next(people) for _ in range(requests)]
            rights["access"].append(_measure(here, "access", asked))
            rights["erasure"].append(_measure(here, "erasure", asked))
            _check(here, asked)
    access, erasure = rights["access"], rights["erasure"]
    figures = [
        Figure("access requests", "requests/s", [m.rate for m in access], BESIDE, [FIDES], at_least=TIMES),
        Figure("erasure requests", "requests/s", [m.rate for m in erasure]),
        Figure("access: commits", "per request", [m.commits for m in access], BESIDE, [FIDES_COMMITS]),
        Figure("erasure: commits", "per request", [m.commits for m in erasure]),
    ]
    for right, measured in rights.items():
        figures += [
            Figure(f"{right}: CPU, {kind}", "ms per request", [m.costs.cpu_ms[kind] for m in measured])
            for kind in measured[0].costs.cpu_ms
        ]
    return Report(
        settings={
            "people": f"{requests:,} a round, {others:,} others beside",
            "PostgreSQL": IN_WORDS,
            "processes": "1 publisher, 1 intake, 1 worker of 2 processes, 1 clock, PostgreSQL, RabbitMQ on one machine",
            "batch": "1000",
        },
        figures=figures,
        notes=[NOTE],
    )


def _cased() -> list[str]:
    return [f"{c['name']}.email" for c in COLLECTIONS]


def email(number: int) -> str:
    """A person's address."""
    return f"p{number}@people.example"


def _measure(here: Place, right: str, people: Sequence[int]) -> Measured:
    n, meters = len(people), here.meters()
    with here.asking() as publisher:
        before, commits, own = meters.read(), here.commits(), time.process_time()
        seconds, answers = ask(publisher, right, [email(p) for p in people])
        costs, committed = between(before, meters.read(), n), (here.commits() - commits) / n
        own = time.process_time() - own
    costs = replace(costs, cpu_ms={"publisher": own * 1000 / n, **costs.cpu_ms})
    if right == "access":
        for answer in (answers[0], answers[-1]):
            counts = [s["counts"] for system in answer.data["systems"] for s in system["steps"] if "counts" in s]
            if not any(sum(c.values()) == len(COLLECTIONS) for c in counts):
                raise WrongResult("an answer does not tell of four records")
    return Measured(n / seconds, costs, committed)


def _check(here: Place, people: Sequence[int]) -> None:
    """Their rows are gone, or hold nothing of them; all others are as they were. Raises ``WrongResult``."""
    addresses = [email(p) for p in people]
    with psycopg.connect(here.people) as connection:
        for name, left in HELD.items():
            of_them = f"SELECT count(*) FROM {name} WHERE email = ANY(%s)"
            if connection.execute(of_them, (addresses,)).fetchone() != (0,):
                raise WrongResult(f"{name} still holds addresses")
            where = "id = ANY(%s)" + (f" AND num_nonnulls({left}) > 0" if left else "")
            if connection.execute(f"SELECT count(*) FROM {name} WHERE {where}", (list(people),)).fetchone() != (0,):
                raise WrongResult(f"{name} still holds what was to be erased")
