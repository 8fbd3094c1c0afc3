"""Steady load: whether dead rows, and the indexes that the hot statements read, stay as small as the work at hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.flat.engine import Engine, messages
from benchmarks.flat.measures import tick

HOT = ("step_claim", "step_lease", "unpublished_pkey")
"""Indexes of what is at hand: each entry in them is dead a moment later."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of things at one moment."""

    at: float
    """Seconds since the load began."""
    dead: int
    """Dead rows in ``step``, as the statistics have it."""
    others: int
    """Dead rows in all other tables together."""
    hot: float
    """Megabytes of the hot indexes."""
    tick: float
    """Milliseconds of a round of the clock."""
    closed: int
    """Requests closed so far."""


def steady(engine: Engine, seconds: float, a_second: int, every: float) -> Sequence[Sample]:
    """Send ``a_second`` requests each second and carry them out; a sample every so many seconds."""
    samples: list[Sample] = []
    began = time.monotonic()
    closed, sampled = 0, began
    while (now := time.monotonic()) < began + seconds:
        ids = engine.admit(messages(a_second))
        engine.drain()
        engine.closed(ids)
        closed += len(ids)
        engine.runtime.sweep.tick()
        engine.runtime.sweep.purge()
        if now >= sampled:
            samples.append(_sample(engine, now - began, closed))
            sampled = now + every
        time.sleep(max(0.0, now + 1 - time.monotonic()))
    return [*samples, _sample(engine, time.monotonic() - began, closed)]


def _sample(engine: Engine, at: float, closed: int) -> Sample:
    [row] = engine.rows(_STATE, hot=list(HOT))
    return Sample(at, row.dead, int(row.others), float(row.hot), tick(engine, 3), closed)


def quarters(samples: Sequence[Sample]) -> Sequence[Sequence[Sample]]:
    """The samples of each quarter of the time that the load lasted."""
    of_all: tuple[list[Sample], ...] = ([], [], [], [])
    for sample in samples:
        of_all[min(3, int(4 * sample.at / samples[-1].at))].append(sample)
    return of_all


_STATE = """
SELECT pg_stat_get_dead_tuples('step'::regclass) AS dead,
    (SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname <> 'step') AS others,
    (SELECT sum(pg_relation_size(oid)) / 1e6 FROM pg_class WHERE relname = ANY(:hot)) AS hot"""
