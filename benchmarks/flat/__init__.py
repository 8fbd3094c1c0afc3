"""Flat: what a request costs, and how long the clock and operators wait, with millions of requests in the database.

Two databases on one server, the same engine on both, in turns: one that was empty at the start, and one with a past.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Report, interleaved
from benchmarks.flat import measures
from benchmarks.flat.engine import CLAIM, INTAKE, STEPS, Engine
from benchmarks.flat.fill import FILLING, Fill, fill
from benchmarks.flat.steady import HOT, Sample, quarters, steady
from benchmarks.servers import IN_WORDS, servers
from orchestrator import logs

TITLE = "with millions of closed and parked requests, beside an empty database"

FLAT = 0.9
"""Of the throughput of an empty database, and of its speed of answering."""
LOOK = 50.0
"""Milliseconds that an operator may wait for an answer."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    past: Fill
    rounds: int
    requests: int
    """In a round of throughput."""
    single: int
    """Requests that come one by one, in a round of latency."""
    batch: int
    """Of the claims that are measured alone."""
    times: int
    """A tick or a look is taken so often."""
    seconds: float
    """Of steady load."""
    a_second: int
    every: float
    """Seconds between samples."""


FULL = Size(Fill(10_000_000, 1_000_000), 12, 300, 50, CLAIM, 20, 300, 40, 10)
SMALL = Size(Fill(300, 200), 1, 20, 3, 20, 2, 1, 5, 0.5)


def run(folder: Path, *, small: bool) -> Report:
    """Measure; see ``benchmarks.figures.Benchmark``."""
    size = SMALL if small else _full()
    with _engines(folder, size.past, quiet=not small) as (empty, full, filling):
        figures = [*_work(full, empty, size), *_clock(full, empty, size)]
        looks = measures.look_times(full, size.times)
        figures += [_look(command, looks) for command in ("list", "show", "why", "metrics", "watch", "quarantine")]
        samples = steady(full, size.seconds, size.a_second, size.every)
        figures += _bounded(samples)
        per_request = _per_request(full)
        gigabytes = float(full.rows("SELECT pg_database_size(current_database()) / 1e9")[0][0])
        version = full.rows("SHOW server_version")[0][0]
    closed, parked = size.past.closed, size.past.parked
    settings = {
        "past": f"{closed:,} closed requests of {STEPS} steps over three years, {parked:,} parked ones of {STEPS + 1}, "
        f"{gigabytes:.0f} GB",
        "PostgreSQL": f"{version}, {IN_WORDS}",
        "one process": f"no-op systems, no broker; intake {INTAKE}, claims of {CLAIM}",
        "a round": f"{size.requests:,} requests",
        "filled in": f"{filling:.0f} s, with fsync off; then restarted",
        "steady load": f"{size.a_second} requests/s for {size.seconds:g} s",
    }
    slow = sorted(looks.items(), key=lambda item: -item[1])[:3]
    note = "The slowest looks: " + "; ".join(f"{name} {value:.1f} ms" for name, value in slow) + "."
    return Report(settings, figures, [note, _over_time(samples), per_request])


def _full() -> Size:
    """The full size, or what the environment says of it: ``BENCHMARK_FLAT_CLOSED``, ``_PARKED``, ``_SECONDS``."""

    def given(name: str, otherwise: float) -> int:
        return int(os.environ.get(f"BENCHMARK_FLAT_{name}", otherwise))

    past = Fill(given("CLOSED", FULL.past.closed), given("PARKED", FULL.past.parked))
    return replace(FULL, past=past, seconds=given("SECONDS", FULL.seconds))


@contextmanager
def _engines(folder: Path, past: Fill, *, quiet: bool) -> Iterator[tuple[Engine, Engine, float]]:
    """An engine on an empty database, one on a database with a past, on one server; and how long filling it took.

    The server is gone with its files when the benchmark ends, however it ends.
    """
    with servers(**FILLING) as running, (folder / "habeas.log").open("w") as log:
        if quiet:
            logs.configure("json", "INFO", log)
        free = shutil.disk_usage(running.reaper).free
        if free < past.bytes:
            wanted = f"{past.bytes / 1e9:.0f} GB are wanted for the past, and {free / 1e9:.0f} GB are free"
            raise SystemExit(f"{wanted}: ask for less with BENCHMARK_FLAT_CLOSED")
        began = time.monotonic()
        names = ("none", "past")
        for name in names:
            running.postgres.create_database(name)
        filled = Engine(running.postgres.url_of("past"), folder / "past")
        fill(filled, past)
        filled.close()
        running.restart_postgres()
        took = time.monotonic() - began
        none, full = (Engine(running.postgres.url_of(n), folder / n) for n in names)
        yield none, full, took
        none.close()
        full.close()


def _per_request(full: Engine) -> str:
    sizes = full.rows(_SIZES)
    requests = full.rows("SELECT reltuples FROM pg_class WHERE relname = 'request'")[0][0]
    said = ", ".join(f"{name} {size / max(1, requests):.0f}" for name, size in sizes)
    return f"Bytes on the disk for each request, open ones and indexes included: {said}."


_SIZES = """
SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY size DESC LIMIT 8"""


def _work(full: Engine, empty: Engine, size: Size) -> list[Figure]:
    for engine in (full, empty):
        measures.throughput(engine, 2 * size.requests)  # warm: plans, pages, pools
    ours, theirs = interleaved(
        size.rounds,
        lambda: measures.throughput(full, size.requests),
        lambda: measures.throughput(empty, size.requests),
    )
    single: tuple[list[float], list[float]] = ([], [])
    for _ in range(size.rounds):
        for engine, into in zip((full, empty), single, strict=True):
            into.extend(measures.latency(engine, size.single))
    middle = [[median(values)] for values in single]
    tail = [[measures.p99(values)] for values in single]
    none = "nothing behind it"
    return [
        Figure("throughput", "requests/s", ours, none, theirs, at_least=FLAT),
        Figure("one request alone, p50", "ms", middle[0], none, middle[1], at_most=1 / FLAT),
        Figure("one request alone, p99", "ms", tail[0], none, tail[1], at_most=1 / FLAT),
    ]


def _clock(full: Engine, empty: Engine, size: Size) -> list[Figure]:
    ticks = interleaved(size.rounds, lambda: measures.tick(full, size.times), lambda: measures.tick(empty, size.times))
    claims = interleaved(
        size.rounds, lambda: measures.claim(full, size.times), lambda: measures.claim(empty, size.times)
    )
    parked = f"{size.past.parked:,} steps parked"
    return [
        Figure(f"the clock's round, {parked}", "ms", ticks[0], "none parked", ticks[1], at_most=1 / FLAT),
        Figure(f"a claim of {size.batch} steps, {parked}", "ms", claims[0], "none parked", claims[1], at_most=1 / FLAT),
    ]


def _look(command: str, looks: dict[str, float]) -> Figure:
    times = [value for name, value in looks.items() if name.startswith(command)]
    what = f"habeas {command}" if command != "metrics" else "a scrape of metrics"
    return Figure(f"{what}, the slowest of {len(times)}", "ms", [max(times)], "limit", [LOOK], at_most=1)


def _bounded(samples: Sequence[Sample]) -> list[Figure]:
    """The most in the second half beside the most in the first: what grows without bound shows."""
    half = len(samples) // 2
    before, after = samples[:half], samples[half:]
    indexes = ", ".join(HOT)
    return [
        _most("dead rows of step", "rows", [max(1, s.dead) for s in before], [s.dead for s in after]),
        _most(f"size of {indexes}", "MB", [s.hot for s in before], [s.hot for s in after]),
        _most("the clock's round under load", "ms", [s.tick for s in before], [s.tick for s in after]),
    ]


def _over_time(samples: Sequence[Sample]) -> str:
    """The steady load, quarter by quarter."""

    def each(of: Callable[[Sequence[Sample]], float], form: str) -> str:
        return ", ".join(format(of(quarter), form) for quarter in quarters(samples) if quarter)

    last = samples[-1]
    return (
        f"The steady load, in quarters of {last.at / 4:.0f} s, {last.closed:,} requests carried out: "
        f"dead rows of step at most {each(lambda q: max(s.dead for s in q), ',')}; "
        f"of all other tables together {each(lambda q: max(s.others for s in q), ',')}; "
        f"hot indexes {each(lambda q: max(s.hot for s in q), '.1f')} MB; "
        f"the clock's round, median {each(lambda q: median(s.tick for s in q), '.2f')} ms."
    )


def _most(what: str, unit: str, before: Sequence[float], after: Sequence[float]) -> Figure:
    return Figure(f"{what}, most in the second half", unit, [max(after)], "most in the first half", [max(before)])
