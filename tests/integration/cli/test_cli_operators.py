"""What operators do from the command line: effects in the database, the actor in the audit trail, exit codes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from connectors.contract import Fatal, Pending, Unauthorised
from tests.integration.cli.test_cli_why import APPROVED
from tests.support.command_line import MakeCommandLine
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World

MAIL = "ada@example.org"


def stuck(make_world: MakeWorld, people: int = 1) -> tuple[World, list[str]]:
    """Erasures that want an operator."""
    world = make_world(system("crm"), workflows=[ONE_STEP])
    asked = []
    for n in range(people):
        error = Fatal("no such table") if n % 2 == 0 else Unauthorised("key revoked")
        world.connector("crm").on(f"p{n}@example.org", error)
        asked.append(str(world.ask("erasure", f"p{n}@example.org")))
    world.work()
    return world, asked


def actors(world: World, what: str) -> list[Any]:
    return [r.actor for r in world.rows("SELECT facts->>'actor' AS actor FROM audit WHERE what = :what", what=what)]


def test_a_retry_of_a_request_retries_what_wants_attention(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world, (request,) = stuck(make_world)
    run = habeas(world)
    result = run("retry", request, "--as", "eve")
    assert "retried" in result.stdout
    assert "the clock rings for the work when it is back" in result.stderr
    assert actors(world, "retry") == ["eve"]
    world.work()
    assert world.one("SELECT resolution FROM request") == "completed"
    assert "is closed" in run("retry", request, "--step", 0, code=1).stderr


def test_a_whole_system_is_retried_by_class_of_failure(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world, _ = stuck(make_world, 4)
    run = habeas(world)
    told = run.json("retry", "--system", "crm", "--failure", "unauthorised", "--all", "--as", "eve")
    assert (told["steps"], told["rung"]) == (2, False)
    assert world.one("SELECT count(*) FROM step WHERE state = 'attention' AND failure = 'fatal'") == 2
    assert actors(world, "retry") == ["eve", "eve"]
    run("retry", "--system", "crm", code=2)
    run("retry", "--system", "nowhere", "--all", code=1)


def test_skipping_and_doing_by_hand_close_the_request_with_their_words(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world, (first, second) = stuck(make_world, 2)
    run = habeas(world)
    assert "the request is closed" in run("skip", first, "--reason", "the table is gone").output
    told = run.json("done", second, "--step", 0, "--evidence", "ticket T-4", "--as", "eve")
    assert told["closed"] == [second]
    assert run.json("show", first)["steps"][0]["result"]["note"] == "the table is gone"
    assert actors(world, "done by hand") == ["eve"]
    run("skip", first, code=2)


def test_a_declined_request_is_denied_for_a_reason_of_the_protocol(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[APPROVED])
    request = world.ask("erasure", MAIL)
    world.work()
    run = habeas(world)
    run("decline", request, "--reason", "because", code=2)
    run("decline", request, "--reason", "suspected_fraud", "--as", "eve")
    world.work()
    told = run.json("show", request)
    assert (told["resolution"], told["stop_reason"]) == ("denied", "suspected_fraud")
    assert "is closed" in run("decline", request, "--step", 0, code=1).stderr
    assert "the request was denied (suspected_fraud)" in run("why", request).output


def test_a_request_is_paused_resumed_and_cancelled(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", MAIL)
    run = habeas(world)
    run("pause", request, "--reason", "law", "--as", "eve")
    world.work()
    assert world.states(request) == {"erase@crm": "parked"}
    run("resume", request, "--as", "adam")
    assert world.states(request) == {"erase@crm": "ready"}
    run("cancel", request, "--reason", "withdrawn")
    assert world.resolution(request) == "cancelled"
    assert (actors(world, "paused"), actors(world, "resumed")) == (["eve"], ["adam"])
    run("pause", "--reason", "law", code=2)
    run("pause", request, "--system", "crm", "--reason", "law", code=2)


def test_pausing_a_system_leaves_a_trace_of_who_did_it(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    run = habeas(world)
    run("pause", "--system", "crm", "--reason", "a migration", "--as", "eve")
    run("resume", "--system", "crm", "--as", "adam")
    assert (actors(world, "system paused"), actors(world, "system resumed")) == (["eve"], ["adam"])
    run("pause", "--system", "nowhere", "--reason", "a migration", code=1)
    assert run.json("audit", "verify", "--all")["broken"] == 0


def test_a_vendors_wait_can_not_be_approved_by_mistake(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on(MAIL, Pending({"job": 1}, timedelta(days=1), ""))
    request = world.ask("erasure", MAIL)
    world.work()
    run = habeas(world)
    assert "name the step with --step" in run("approve", request, code=1).stderr
    wrong = run("approve", MAIL, code=1).stderr
    assert "give 8 hex digits" in wrong
    assert MAIL not in wrong


def test_holds_are_placed_listed_and_released_without_a_trace_of_whom(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    run = habeas(world)
    told = run.json("hold", "place", "--case", "C-7", "--email", "-", "--user-id", "u-1", stdin=MAIL + "\n")
    assert len(told["holds"]) == 2
    assert [(h["case"], h["identities"]) for h in run.json("hold", "list")["holds"]] == [("C-7", 2)]
    assert MAIL not in world.everything_kept()
    assert "2 released" in run("hold", "release", "--case", "C-7", "--as", "eve").output
    assert run.json("hold", "list")["holds"] == []
    assert len(run.json("hold", "list", "--released")["holds"]) == 1
    assert actors(world, "hold released") == ["eve"]
    run("hold", "release", "--case", "C-7", code=1)
    run("hold", "place", "--case", "C-7", code=2)
    assert MAIL not in run("hold", "place", "--case", "C-7", "--phone", MAIL, code=2).stderr
