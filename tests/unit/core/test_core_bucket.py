"""Rates: however late calls begin, and whoever dies, no second sees more of them than the limit allows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.core.bucket import LAG, Bucket, Permit, Rate, rate

LASTS = 3.0
"""Seconds that a permit lasts without another word."""

speeds = st.one_of(st.floats(0.001, 5000), st.integers(1, 2000).map(float))
bursts = st.integers(1, 1000)


@dataclass
class Claim:
    """What a worker holds, and what it believes."""

    holder: str
    unbegun: int
    until: float
    before: int
    """What it had not begun when it last spoke: a word that is under way may be as old as that."""


@dataclass
class World:
    """A bucket in a database, workers, and a system that counts."""

    per_second: float
    burst: int
    now: float = 3000.0
    bucket: Bucket = field(default_factory=Bucket)
    saved: float = 1000.0
    claims: list[Claim] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)
    held: int = 0

    def __post_init__(self) -> None:
        self.rate = rate(self.per_second, self.burst)

    def write(self, change: Callable[[Bucket], Bucket]) -> None:
        self.bucket = change(self.bucket.after(self.now - self.saved, self.rate))
        self.saved = self.now
        everything = self.bucket.tokens + sum(p.steps for p in self.bucket.permits.values())
        assert self.bucket.tokens >= -1e-6
        assert everything <= self.rate.capacity + 1e-6

    def claim(self, most: int) -> None:
        self.write(lambda bucket: bucket)
        steps = min(most, int(self.bucket.tokens))
        if steps:
            self.held += 1
            holder = str(self.held)
            self.write(lambda bucket: bucket.taken(holder, steps, LASTS))
            self.claims.append(Claim(holder, steps, self.now + LASTS, steps))

    def begin(self, claim: Claim, most: int, late: float) -> None:
        """The call goes out at once, and the system counts it a little later."""
        if self.now < claim.until:
            steps = min(most, claim.unbegun)
            claim.unbegun -= steps
            self.counted += [self.now + late] * steps

    def say(self, claim: Claim, *, stale: bool) -> None:
        said = claim.before if stale else claim.unbegun
        self.write(lambda bucket: bucket.kept(claim.holder, said, LASTS))
        claim.until = self.now + LASTS if claim.holder in self.bucket.permits else 0
        claim.before = claim.unbegun

    def give_back(self, claim: Claim) -> None:
        self.write(lambda bucket: bucket.ended(claim.holder, claim.unbegun))
        self.claims.remove(claim)

    def busiest(self) -> int:
        counted = sorted(self.counted)
        return max((bisect_left(counted, at + 1 - 1e-9) - n for n, at in enumerate(counted)), default=0)


moves = st.tuples(
    st.sampled_from(["claim", "begin", "begin", "begin", "say", "stale", "back", "die"]),
    st.one_of(st.just(0.0), st.floats(0, 0.3), st.floats(0, 5)),  # seconds that pass before it
    st.integers(0, 5),  # whose
    st.integers(1, 2000),  # how many
    st.floats(0, LAG),  # how late the call is
)


ALL = 2000
AFTER_A_LONG_WAIT = [("claim", 60.0, 0, ALL, 0.0), ("claim", 2.9, 0, ALL, 0.0), ("begin", 0.0, 0, ALL, 0.0)]
AFTER_A_LONG_WAIT += [("begin", 0.0, 1, ALL, 0.0)]
"""A worker stands still between its claim and its calls, while the bucket would have filled again."""
LATE_AND_THEN_AT_ONCE = [("claim", 60.0, 0, ALL, 0.0), ("begin", 0.0, 0, ALL, LAG), ("say", 0.0, 0, 1, 0.0)]
LATE_AND_THEN_AT_ONCE += [
    move
    for n in range(1, 28)
    for move in (
        ("claim", 0.04, 0, ALL, 0.0),
        ("begin", 0.0, n, ALL, max(0.0, LAG - n * 0.04)),
        ("say", 0.0, n, 1, 0.0),
    )
]
"""The first calls are counted all together and as late as may be, those a second later at once."""


@given(speeds, bursts, st.lists(moves, max_size=60))
@example(50.0, 100, AFTER_A_LONG_WAIT)
@example(50.0, 100, LATE_AND_THEN_AT_ONCE)
@example(100.0, 10, LATE_AND_THEN_AT_ONCE)
def test_no_second_sees_more_than_the_limit(
    per_second: float, burst: int, acts: list[tuple[str, float, int, int, float]]
) -> None:
    world = World(per_second, burst)
    for what, seconds, whose, many, late in acts:
        world.now += seconds
        if what == "claim":
            world.claim(many)
        elif world.claims:
            claim = world.claims[whose % len(world.claims)]
            match what:
                case "begin":
                    world.begin(claim, many, late)
                case "say" | "stale":
                    world.say(claim, stale=what == "stale")
                case "back":
                    world.give_back(claim)
                case "die":
                    world.claims.remove(claim)
    assert world.busiest() <= floor(per_second) + burst


@given(speeds, bursts)
def test_calls_that_begin_at_once_are_as_fast_as_the_bucket_fills(per_second: float, burst: int) -> None:
    world = World(per_second, burst)
    step = max(0.02, 0.5 / per_second)
    for _ in range(200):
        world.now += step
        world.claim(2000)
        for claim in list(world.claims):
            world.begin(claim, 2000, 0.0)
            world.say(claim, stale=False)
            world.claims.remove(claim)
    # Whoever looks less often than a token comes loses what does not fit into the bucket.
    fits = min(world.rate.per_second, world.rate.capacity / step)
    assert len(world.counted) >= floor(200 * step * fits * 0.49)


@given(speeds, bursts)
def test_room_for_calls_that_are_late_costs_little(per_second: float, burst: int) -> None:
    kept = rate(per_second, burst)
    assert 1 <= kept.capacity <= burst
    assert kept.capacity >= burst / 2
    assert per_second / (1 + LAG) * 0.999 <= kept.per_second <= per_second
    if burst > 2 * LAG * per_second + 2:
        assert kept.per_second == per_second


FULL = Rate(1.0, 10)


def test_what_has_not_begun_keeps_its_room_until_the_permit_runs_out() -> None:
    held = Bucket(10.0).taken("a", 10, 5.0)
    assert held.after(4.0, FULL) == Bucket(0.0, {"a": Permit(10, 1.0)})
    assert held.after(5.0, FULL) == Bucket(0.0)
    assert held.after(8.0, FULL) == Bucket(3.0), "it fills from the moment when the permit ran out"


def test_what_has_begun_makes_room_and_what_never_will_is_free_again() -> None:
    held = Bucket(10.0).taken("a", 10, 5.0)
    assert held.kept("a", 4, 5.0).after(3.0, FULL) == Bucket(3.0, {"a": Permit(4, 2.0)})
    assert held.kept("a", 0, 5.0) == Bucket(0.0)
    assert held.ended("a", 10) == Bucket(10.0)


@pytest.mark.parametrize("word", [lambda b: b.kept("a", 5, 5.0), lambda b: b.ended("a", 5)])
def test_a_permit_that_ran_out_does_not_come_back(word: Callable[[Bucket], Bucket]) -> None:
    gone = Bucket(10.0).taken("a", 10, 5.0).after(6.0, FULL)
    assert word(gone) == gone
