"""Random schedules of everything that can happen, in virtual time, each of them repeatable by its seed."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from tests.support.simulated import Simulation


def test_whatever_happens_in_whatever_order_every_request_comes_to_its_end_once(schedules: range) -> None:
    for seed in schedules:
        simulation = Simulation(Random(seed))
        try:
            simulation.play()
        except Exception as broken:
            history = "\n".join(simulation.trace[-60:])
            words = f"{history}\nschedule {seed} broke: {broken!r}\nreplay it with HABEAS_TEST_SCHEDULE_SEED={seed}"
            raise AssertionError(words) from broken


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
def test_a_seed_plays_the_same_schedule_each_time(seed: int) -> None:
    one, other = Simulation(Random(seed)), Simulation(Random(seed))
    one.play()
    other.play()
    assert one.trace == other.trace
