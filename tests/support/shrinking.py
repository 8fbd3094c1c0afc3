"""A schedule that broke, with the misfortunes taken out that the breakage does not need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.support.simulated import Simulation


@dataclass(frozen=True)
class Broken:
    """A schedule that breaks an invariant."""

    seed: int
    error: Exception
    muted: frozenset[int]
    """Misfortunes left out."""
    left: int
    """Misfortunes that still happen."""
    trace: tuple[str, ...]


def play(seed: int, muted: frozenset[int] = frozenset(), kind: Callable[..., Simulation] = Simulation) -> Broken | None:
    """Play one schedule; what broke, if anything."""
    simulation = kind(Random(seed), muted=muted)
    try:
        simulation.play()
    except Exception as error:  # noqa: BLE001 - whatever breaks is what is looked for
        left = simulation.struck - sum(n <= simulation.struck for n in muted)
        return Broken(seed, error, muted, left, tuple(simulation.trace))
    return None


def shrink(broken: Broken, kind: Callable[..., Simulation] = Simulation) -> Broken:
    """The same breakage with fewer misfortunes: they are muted in halves, quarters, … and at last one by one."""
    size = max(broken.left // 2, 1)
    while True:
        smaller = _without(broken, size, kind)
        if smaller is None and size == 1:
            return broken
        if smaller is None:
            size //= 2
        else:
            broken, size = smaller, max(min(size, smaller.left // 2), 1)


def _without(broken: Broken, size: int, kind: Callable[..., Simulation]) -> Broken | None:
    happening = [n for n in range(1, broken.left + len(broken.muted) + 1) if n not in broken.muted]
    for start in range(0, len(happening), size):
        again = play(broken.seed, broken.muted | set(happening[start : start + size]), kind)
        if again is not None and type(again.error) is type(broken.error) and again.left < broken.left:
            return again
    return None
