"""Flat: what a request costs, and how long the clock and operators wait, with millions of requests in the database.

Two databases on one server, the same engine on both, in turns: one that was empty at the start, and one with a past.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Report, interleaved
from benchmarks.flat import measures
from benchmarks.flat.engine import CLAIM, INTAKE, STEPS, Engine
from benchmarks.flat.fill import Fill, fill
from benchmarks.flat.steady import HOT, Sample, steady
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


FULL = Size(Fill(2_000_000, 1_000_000), 12, 300, 10, CLAIM, 20, 600, 40, 20)
SMALL = Size(Fill(300, 200), 1, 20, 3, 20, 2, 1, 5, 0.5)


def run(folder: Path, *, small: bool) -> Report:
    """Measure; see ``benchmarks.figures.Benchmark``."""
    size = SMALL if small else FULL
    with _engines(folder, quiet=not small) as (empty, full):
        fill(full, size.past)
        figures = [*_work(full, empty, size), *_clock(full, empty, size)]
        looks = measures.look_times(full, size.times)
        figures += [_look(command, looks) for command in ("list", "show", "why", "metrics", "watch", "quarantine")]
        samples = steady(full, size.seconds, size.a_second, size.every)
        figures += _bounded(samples)
        gigabytes = float(full.rows("SELECT pg_database_size(current_database()) / 1e9")[0][0])
        version = full.rows("SHOW server_version")[0][0]
    closed, parked = size.past.closed, size.past.parked
    settings = {
        "past": f"{closed:,} closed requests of {STEPS} steps over three years, {parked:,} parked ones of {STEPS + 1}, "
        f"{gigabytes:.0f} GB",
        "PostgreSQL": f"{version}, {IN_WORDS}",
        "one process": f"no-op systems, no broker; intake {INTAKE}, claims of {CLAIM}",
        "a round": f"{size.requests:,} requests",
        "steady load": f"{size.a_second} requests/s for {size.seconds:g} s",
    }
    slow = sorted(looks.items(), key=lambda item: -item[1])[:3]
    note = "The slowest looks: " + "; ".join(f"{name} {value:.1f} ms" for name, value in slow) + "."
    return Report(settings, figures, [note])


@contextmanager
def _engines(folder: Path, *, quiet: bool) -> Iterator[tuple[Engine, Engine]]:
    """An engine on an empty database, and one on a database to fill, both on one server of our own."""
    with servers() as running, (folder / "habeas.log").open("w") as log:
        if quiet:
            logs.configure("json", "INFO", log)
        none, past = (Engine(running.postgres.create_database(n), folder / n) for n in ("none", "past"))
        yield none, past
        none.close()
        past.close()


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


def _most(what: str, unit: str, before: Sequence[float], after: Sequence[float]) -> Figure:
    return Figure(f"{what}, most in the second half", unit, [max(after)], "most in the first half", [max(before)])
