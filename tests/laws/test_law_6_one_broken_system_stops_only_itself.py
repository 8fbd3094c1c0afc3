"""Law 6: the other branches go on, and what cannot proceed says why, in words, at once."""

from __future__ import annotations

import pytest

from connectors.contract import Fatal, Retryable, Unauthorised
from tests.support.scripted import system
from tests.support.worlds import MakeWorld, World

BROKEN = {
    "a refused key": Unauthorised("the key expired"),
    "a fatal answer": Fatal("no such table"),
    "an outage": Retryable("the vendor is away"),
    "a defect": KeyError("x"),
}


def three(make_world: MakeWorld) -> World:
    return make_world(
        system("crm", discovers=["user_id"], retry={"attempts": 2}),
        system("shop"),
        system("ads", identified_by=["user_id"]),
    )


@pytest.mark.parametrize("how", BROKEN)
def test_the_other_systems_of_the_same_request_are_worked_to_their_end(make_world: MakeWorld, how: str) -> None:
    world = three(make_world)
    world.connector("shop").on("ada@example.org", *[BROKEN[how]] * 9)
    request = world.ask("erasure", "ada@example.org")
    world.work()
    outcomes = {name: row.result and row.result["outcome"] for name, row in world.steps(request).items()}
    assert outcomes["erase@ads"] == "executed"
    assert outcomes["verify@ads"] == "verified"
    assert world.resolution(request) is None
    [stuck] = world.rows("SELECT * FROM step WHERE failure IS NOT NULL")
    assert (stuck.system, stuck.error != "") == ("shop", True)


def test_a_broken_discovery_stops_only_those_that_need_what_it_would_have_found(make_world: MakeWorld) -> None:
    world = three(make_world)
    world.connector("crm").on("ada@example.org", Fatal("no such table"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    states = world.states(request)
    assert states["verify@shop"] == "done"
    assert (states["discover@crm"], states["erase@ads"], states["erase@crm"]) == ("attention", "waiting", "waiting")


def test_other_requests_pass_the_one_that_is_stuck(make_world: MakeWorld) -> None:
    world = three(make_world)
    world.connector("crm").on("ada@example.org", Fatal("no such table"))
    stuck = world.ask("erasure", "ada@example.org")
    others = [world.ask("erasure", f"p{n}@example.org") for n in range(5)]
    world.work()
    assert world.resolution(stuck) is None
    assert {world.resolution(o) for o in others} == {"completed"}


def test_a_paused_system_keeps_nobody_else_waiting(make_world: MakeWorld) -> None:
    world = three(make_world)
    world.runtime.operate.pause_system("shop", "ops", "maintenance")
    request = world.ask("erasure", "ada@example.org")
    world.work()
    assert world.states(request)["verify@ads"] == "done"
    world.runtime.operate.resume_system("shop")
    world.work()
    assert world.resolution(request) == "completed"
