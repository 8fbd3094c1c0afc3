"""Random schedules of everything that can happen, in virtual time, each of them repeatable by its seed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.support.shrinking import play, shrink
from tests.support.simulated import Simulation


def test_whatever_happens_in_whatever_order_every_request_comes_to_its_end_once(schedules: range) -> None:
    for seed in schedules:
        broken = play(seed)
        if broken is not None:
            least = shrink(broken)
            words = [
                *least.trace[-60:],
                f"schedule {seed} broke: {broken.error!r}",
                f"so it does with {least.left} of its {broken.left} misfortunes, as above: {least.error!r}",
                f"replay it with HABEAS_TEST_SCHEDULE_SEED={seed}",
            ]
            raise AssertionError("\n".join(words)) from least.error


class Forgetful(Simulation):
    """An engine with a defect: a lease that runs out while another has run out before is never taken back."""

    def sweep(self) -> None:
        """Breaks when a second step was lost."""
        lost = sum(line.split()[1] == "LeaseExpired" for line in self.trace)
        if lost > 1:
            raise AssertionError("a step was forgotten")
        super().sweep()


def test_a_schedule_that_breaks_is_shrunk_to_the_misfortunes_that_it_takes() -> None:
    broken = next(b for b in (play(seed, kind=Forgetful) for seed in range(200)) if b is not None and b.left > 6)
    least = shrink(broken, Forgetful)
    assert str(least.error) == str(broken.error)
    assert least.left <= broken.left // 2
    again = play(broken.seed, least.muted, Forgetful)
    assert again is not None
    assert again.trace == least.trace, "what was shrunk can be replayed"


def test_the_schedules_meet_what_they_are_meant_to_meet() -> None:
    """A simulation in which nothing ever goes wrong would prove nothing."""
    met: Counter[str] = Counter()
    for seed in range(150):
        simulation = Simulation(Random(seed))
        simulation.play()
        met.update(line.split()[1] for line in simulation.trace)
        met.update(str(run.resolution) for run in simulation.runs.values())
    wanted = {
        "admitted",
        "claimed",
        "woken",
        "GoneOn",
        "Finished",
        "Parked",
        "Failed",
        "HandedBack",
        "GateDeclined",
        "LeaseExpired",
        "Reported",
        "RetryAsked",
        "SkipAsked",
        "DoneAsked",
        "CancelAsked",
        "PauseAsked",
        "ResumeAsked",
        "completed",
        "completed_with_exceptions",
        "denied",
        "expired",
        "cancelled",
    }
    assert wanted <= met.keys(), wanted - met.keys()


@pytest.mark.parametrize("seed", [3, 99])
def test_a_seed_plays_the_same_schedule_in_every_process(seed: int) -> None:
    program = (
        "from random import Random; from tests.support.simulated import Simulation; "
        f"s = Simulation(Random({seed})); s.play(); print('\\n'.join(s.trace))"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hashing},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashing in ("1", "2")
    }
    assert len(traces) == 1
