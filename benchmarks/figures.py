"""What a benchmark yields: figures, each beside a peer or a limit that was measured in the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, round by round, and what it is compared with."""

    what: str
    """What was measured, in words."""
    unit: str
    """Of both, e.g. ``requests/s``, ``s``, ``MB``."""
    ours: Sequence[float]
    """One value for each round."""
    peer: str = ""
    """What it is compared with, in words; empty: shown alone."""
    theirs: Sequence[float] = ()
    """The peer's value for each round, or the one limit."""
    at_least: float | None = None
    """Target: ours / theirs is at least this."""
    at_most: float | None = None
    """Target: ours / theirs is at most this."""

    @property
    def ratio(self) -> float | None:
        """Ours / theirs, of the medians; ``None`` where there is no peer."""
        return median(self.ours) / median(self.theirs) if self.theirs else None

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; ``None`` where there is none."""
        if self.ratio is None or (self.at_least is None and self.at_most is None):
            return None
        above = self.at_least is None or self.ratio >= self.at_least
        return above and (self.at_most is None or self.ratio <= self.at_most)

    @property
    def target(self) -> str:
        """The target in words."""
        parts = [f"≥ {self.at_least:g}"] if self.at_least is not None else []
        return " and ".join([*parts, f"≤ {self.at_most:g}"] if self.at_most is not None else parts)


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark found."""

    settings: Mapping[str, str]
    """What it was measured with: sizes, processes, versions, durability."""
    figures: Sequence[Figure]
    notes: Sequence[str] = field(default_factory=tuple)
    """Sentences to read beside the figures."""


class Benchmark(Protocol):
    """A module of this package: ``python -m benchmarks NAME``."""

    TITLE: str
    """One line: what is compared with what."""

    def run(self, folder: Path, *, small: bool) -> Report:
        """Measure, with scratch files below ``folder``; raises ``WrongResult`` when what was measured is not right.

        ``small``: some seconds' worth, to see that it runs; its figures mean nothing.
        """
        ...


class WrongResult(AssertionError):
    """What was measured did not do what it should: its time means nothing."""


def interleaved(rounds: int, *measures: Callable[[], float]) -> tuple[list[float], ...]:
    """Measure each in turn, ``rounds`` times over, so that what else the machine does falls on all alike."""
    values: tuple[list[float], ...] = tuple([] for _ in measures)
    for _ in range(rounds):
        for measure, into in zip(measures, values, strict=True):
            into.append(measure())
    return values
