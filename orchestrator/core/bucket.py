"""The bucket that a system's rate is kept by: what is free, and what was claimed but has not begun.

The law: **from any moment on, no more begin within ``w`` seconds than the bucket holds and what runs in meanwhile**, by
all workers together. A claim takes tokens, and calls begin when a thread is free for them, perhaps much later. So what
was claimed and has not begun still takes its room in the bucket: ``tokens`` and all permits together never exceed
``capacity``, however late the calls begin. A worker says what has begun (``kept``), and gives back what never will
(``ended``). One that falls silent loses its permit, and with it the right to begin: what it has not begun by then it
hands back. So a late start moves behind others, and never joins them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LAG = 0.1
"""Seconds that a call may take from its permission to where the system counts it, without the limit being exceeded."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a bucket fills, and how much it holds."""

    per_second: float
    capacity: int


def rate(per_second: float, burst: int) -> Rate:
    """The bucket by which a system counts at most ``per_second + burst`` calls in any second, each ``LAG`` late or not.

    Room for those that are late is taken from the burst, up to half of it, and only then from the speed.
    """
    most = int(per_second) + burst
    # Just below one more: fewer than that, in whole calls, are as many as allowed.
    bound = most + 0.999
    capacity = min(burst, max(int(bound - per_second * (1 + LAG)), (burst + 1) // 2))
    return Rate(min(per_second, (bound - capacity) / (1 + LAG)), capacity)


@dataclass(frozen=True, slots=True)
class Permit:
    """So many may begin, for so many seconds more."""

    steps: int
    lasts: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket at a moment."""

    tokens: float = 0.0
    permits: Mapping[str, Permit] = field(default_factory=dict)
    """By holder."""

    def after(self, seconds: float, rate: Rate) -> Bucket:
        """The bucket so much later: fuller, and without the permits that ran out on the way."""
        tokens, at, permits = self.tokens, 0.0, dict(self.permits)
        for holder, permit in sorted(self.permits.items(), key=lambda held: held[1].lasts):
            if permit.lasts > seconds:
                break
            tokens, at = _filled(tokens, permit.lasts - at, permits, rate), permit.lasts
            del permits[holder]
        tokens = _filled(tokens, seconds - at, permits, rate)
        return Bucket(tokens, {h: Permit(p.steps, p.lasts - seconds) for h, p in permits.items()})

    def taken(self, holder: str, steps: int, lasts: float) -> Bucket:
        """So many are claimed, no more than there are tokens."""
        return Bucket(self.tokens - steps, {**self.permits, holder: Permit(steps, lasts)})

    def kept(self, holder: str, unbegun: int, lasts: float) -> Bucket:
        """All but so many have begun, and these may for longer. A permit that ran out does not come back."""
        if holder not in self.permits:
            return self
        left = min(unbegun, self.permits[holder].steps)
        others = {h: p for h, p in self.permits.items() if h != holder}
        return Bucket(self.tokens, {**others, holder: Permit(left, lasts)} if left else others)

    def ended(self, holder: str, unbegun: int) -> Bucket:
        """So many never began, nor will they: their tokens are free again."""
        if holder not in self.permits:
            return self
        back = min(unbegun, self.permits[holder].steps)
        return Bucket(self.tokens + back, {h: p for h, p in self.permits.items() if h != holder})


def _filled(tokens: float, seconds: float, permits: Mapping[str, Permit], rate: Rate) -> float:
    room = rate.capacity - sum(p.steps for p in permits.values())
    return max(0.0, min(tokens + max(0.0, seconds) * rate.per_second, room))
