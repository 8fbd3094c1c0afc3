"""Faults that the model found, each as the shortest history that showed it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from orchestrator.core import events as ev
from orchestrator.core.vocabulary import Failure
from orchestrator.stages.advance import Happening
from orchestrator.stages.settle import Settle
from tests.model.acts import Cut
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World


def failed(world: World, claimed: list[Any]) -> None:
    said = [Happening(c.request, ev.Failed(c.step.ordinal, c.token, Failure.RETRYABLE, "away")) for c in claimed]
    settle = Settle(world.runtime.database, world.runtime.advance)
    settle.settle(world.runtime.definitions.systems["crm"], said)


def test_what_comes_too_late_says_nothing_about_the_system(make_world: MakeWorld) -> None:
    world = make_world(system("crm", breaker={"failures": 1, "rest_seconds": 60}), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    late = world.claim("crm")
    world.later(timedelta(minutes=1))
    world.tick()
    failed(world, late)
    assert world.rows("SELECT failures, breaker_until, fenced FROM connector_state WHERE system = 'crm'") == [
        (0, None, 1)
    ]


def test_a_settle_sent_again_after_a_lost_commit_counts_each_failure_once(make_world: MakeWorld) -> None:
    world = make_world(system("crm", breaker={"failures": 2, "rest_seconds": 60}), workflows=[ONE_STEP])
    database = Cut(world.settings.database_url.get_secret_value(), name="habeas first")
    world.runtime.__dict__["database"] = database
    world.ask("erasure", "ada@example.org")
    claimed = world.claim("crm")
    database.silent_commits = 1
    failed(world, claimed)
    assert world.rows("SELECT failures, breaker_until FROM connector_state WHERE system = 'crm'") == [(1, None)]
    database.close()
