"""Faults that writing and running the model brought to light, each as a short history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from orchestrator.core import events as ev
from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import Failure
from orchestrator.stages.advance import Happening
from orchestrator.stages.settle import Settle
from tests.model.acts import Cut
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, said


def failed(world: World, claimed: list[Any]) -> None:
    events = [Happening(c.request, ev.Failed(c.step.ordinal, c.token, Failure.RETRYABLE, "away")) for c in claimed]
    Settle(world.runtime.database, world.runtime.advance).settle(said(world.runtime, "crm", events))


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


def test_a_step_that_is_held_back_without_a_call_says_nothing_about_the_system(make_world: MakeWorld) -> None:
    world = make_world(system("crm", breaker={"failures": 1, "rest_seconds": 60}), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    with world.runtime.database.transaction() as tx:
        world.runtime.holds.place(tx, [Identity("email", "ada@example.org")], "case 7", "ops")
    world.rows("UPDATE connector_state SET failures = 1, breaker_until = now() - interval '1 s' WHERE system = 'crm'")
    assert world.runtime.execute.work("crm").claimed == 1
    assert world.connector("crm").calls == []
    assert world.rows("SELECT failures, breaker_until > now() FROM connector_state WHERE system = 'crm'") == [(1, True)]
