"""How many schedules are tried, and which."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    # Known only when this folder is named on the command line; the environment variable works always.
    parser.addoption("--schedule-seed", type=int, default=None, help="replay this one schedule of the simulation")


@pytest.fixture
def schedules(pytestconfig: pytest.Config) -> range:
    """The seeds to try: ``HABEAS_TEST_SCHEDULES`` of them (5,000 by default), or the one that is to be replayed."""
    seed = pytestconfig.getoption("--schedule-seed", default=None)
    if seed is None and "HABEAS_TEST_SCHEDULE_SEED" in os.environ:
        seed = int(os.environ["HABEAS_TEST_SCHEDULE_SEED"])
    if seed is not None:
        return range(seed, seed + 1)
    return range(int(os.environ.get("HABEAS_TEST_SCHEDULES", "5000")))
