"""``habeas why`` gives the true reason, on a real database, for everything that a request can wait for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from connectors.contract import Fatal, Pending, Retryable, Unauthorised
from orchestrator.embedded import install_pgmq
from tests.support.command_line import MakeCommandLine
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld

APPROVED = {
    "workflow": "erasure",
    "version": 1,
    "right": "erasure",
    "steps": [
        {"id": "approval", "gate": "approval", "with": {"by": "the privacy team", "expires_after": 86400}},
        {"id": "erase", "action": "erase", "needs": ["approval"]},
    ],
}
MAIL = "ada@example.org"


def reasons(answer: Any) -> dict[str, Any]:
    """The reasons by the step they are about."""
    return {r["step"]: r for r in answer["reasons"]}


def test_a_request_that_waits_for_approval_says_of_whom_since_when_and_until_when(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[APPROVED])
    request = world.ask("erasure", MAIL)
    world.work()
    run = habeas(world)
    answer = run.json("why", request)
    (reason,) = answer["reasons"]
    assert reason["kind"] == "person"
    assert reason["text"].startswith("waits for approval by the privacy team since ")
    assert "until " in reason["text"]
    assert reason["since"] < reason["until"]
    assert reason["holds_up"] == [1]
    assert answer["waiting"][0]["text"].startswith("erase in crm waits for step 0 (gate approval), which waits for")
    assert f"habeas approve {request} --step 0" in run("why", request).output
    run("approve", request, "--as", "eve")
    world.work()
    world.rows("DELETE FROM unpublished")
    assert run.json("why", request)["summary"] == "the request is completed; nothing is waited for"
    assert world.one("SELECT facts->>'actor' FROM audit WHERE what = 'reported'") == "eve"


def test_a_failing_connector_is_named_with_its_error_and_its_next_attempt(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm", retry={"attempts": 3, "base_seconds": 60}), workflows=[ONE_STEP])
    world.connector("crm").on(MAIL, *[Retryable("the vendor answered 503")] * 3)
    request = world.ask("erasure", MAIL)
    world.work()
    run = habeas(world)
    (reason,) = run.json("why", request)["reasons"]
    assert reason["kind"] == "retry"
    assert "after failure 1 of 3: retryable: the vendor answered 503" in reason["text"]
    for _ in range(2):
        world.later(timedelta(hours=1))
        world.tick()
        world.work()
    (reason,) = run.json("why", request)["reasons"]
    assert (reason["kind"], reason["text"]) == ("attention", "wants attention: retryable: the vendor answered 503")
    for way in ("retry", "skip", "done"):
        assert f"habeas {way} {request} --step 0" in reason["help"]


def test_one_broken_system_is_told_to_stop_only_what_depends_on_it(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(
        system("users", erase_after=["payments"]), system("payments"), system("analytics"), workflows=[ONE_STEP]
    )
    world.connector("payments").on(MAIL, Unauthorised("the key was revoked"))
    request = world.ask("erasure", MAIL)
    world.work()
    assert world.states(request) == {
        "erase@analytics": "done", "erase@payments": "attention", "erase@users": "waiting",
    }  # fmt: skip
    answer = habeas(world).json("why", request)
    (reason,) = answer["reasons"]
    assert reason["step"] == "erase in payments"
    assert reason["text"] == "wants attention: unauthorised: the key was revoked"
    assert reason["help"].startswith("renew the credentials")
    (waiting,) = answer["waiting"]
    assert waiting["text"] == (
        "erase in users waits for step 1 (erase in payments), which wants attention: unauthorised: the key was revoked"
    )
    assert answer["summary"] == "1 of 3 steps are done; 1 step wants somebody to act"


def test_a_paused_system_says_who_paused_it_and_why(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    run = habeas(world)
    run("pause", "--system", "crm", "--reason", "a migration", "--as", "eve")
    request = world.ask("erasure", MAIL)
    world.work()
    (reason,) = run.json("why", request)["reasons"]
    assert reason["kind"] == "paused_system"
    assert reason["text"] == "is held: system crm is paused by eve (a migration)"
    assert reason["help"] == "habeas resume --system crm"
    run("resume", "--system", "crm")
    world.work()
    assert world.resolution(request) == "completed"


def test_a_parked_wait_says_for_what_and_until_when(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    pending = Pending({"job": "j-1"}, timedelta(days=13), "the vendor's deletion job")
    world.connector("crm").on(MAIL, pending)
    request = world.ask("erasure", MAIL)
    world.work()
    (reason,) = habeas(world).json("why", request)["reasons"]
    assert reason["kind"] == "system"
    assert reason["text"].startswith("waits for the vendor's deletion job; it is asked again at ")
    assert reason["until"] > reason["since"]
    assert reason["help"] == ""


def test_a_paused_request_says_who_paused_it_and_why(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", MAIL)
    run = habeas(world)
    run("pause", request, "--reason", "a question of law", "--as", "eve")
    answer = run.json("why", request)
    (reason,) = answer["reasons"]
    assert reason["text"] == "is held: the request is paused by eve (a question of law)"
    assert "the request is paused by eve (a question of law)" in answer["summary"]


def test_a_step_under_legal_hold_says_which_case(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    run = habeas(world)
    run("hold", "place", "--case", "C-7", "--email", "-", stdin=MAIL + "\n")
    request = world.ask("erasure", MAIL)
    world.work()
    (reason,) = run.json("why", request)["reasons"]
    assert reason["text"] == "is held back: it waits for the end of legal hold C-7"
    assert reason["help"].endswith("habeas hold release --case C-7")
    run("hold", "release", "--case", "C-7")
    world.tick()
    world.work()
    assert world.resolution(request) == "completed"


def test_a_breaker_that_opened_says_until_when_and_after_what(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    breaker = {"failures": 1, "rest_seconds": 300}
    world = make_world(system("crm", breaker=breaker), workflows=[ONE_STEP])
    world.connector("crm").on("first@example.org", Retryable("connection refused"))
    world.ask("erasure", "first@example.org")
    world.work()
    request = world.ask("erasure", MAIL)
    (reason,) = habeas(world).json("why", request)["reasons"]
    assert reason["kind"] == "breaker"
    assert "the circuit breaker of crm opened after 1 failure in a row: connection refused" in reason["text"]


def test_a_step_that_nobody_takes_asks_whether_a_worker_runs(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    install_pgmq(world.settings.database_url.get_secret_value())
    request = world.ask("erasure", MAIL)
    run = habeas(world, HABEAS_BROKER_URL="pgmq://")
    (reason,) = run.json("why", request)["reasons"]
    assert (reason["kind"], reason["text"].endswith("and is taken in a moment")) == ("queue", True)
    world.later(timedelta(minutes=2))
    (reason,) = run.json("why", request)["reasons"]
    assert reason["kind"] == "no_worker"
    assert "is a worker for crm running?" in reason["help"]


def test_a_step_behind_others_says_how_many_and_that_they_are_under_way(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for n in range(3):
        world.ask("erasure", f"p{n}@example.org")
    request = world.ask("erasure", MAIL)
    world.claim("crm", n=1)
    (reason,) = habeas(world).json("why", request)["reasons"]
    assert reason["kind"] == "queue"
    assert "behind 2 other steps of crm; 1 step of that system is under way" in reason["text"]


def test_running_work_says_under_which_lease_and_when_its_worker_is_gone(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", MAIL)
    world.claim("crm")
    run = habeas(world)
    (reason,) = run.json("why", request)["reasons"]
    assert (reason["kind"], "under a lease until" in reason["text"]) == ("running", True)
    world.later(timedelta(minutes=5))
    (reason,) = run.json("why", request)["reasons"]
    assert "its lease ran out, so its worker is gone" in reason["text"]


def test_an_overdue_request_says_so(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[APPROVED])
    request = world.ask("erasure", MAIL)
    world.work()
    world.rows("UPDATE request SET deadline = now() - interval '3 days 4 hours'")
    run = habeas(world)
    answer = run.json("why", request)
    assert answer["summary"].endswith("the legal deadline passed 3 d 4 h ago")
    assert run.json("list", "--overdue")["requests"][0]["id"] == str(request)


def test_without_the_systems_file_the_reason_is_still_true(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on(MAIL, Fatal("no such table"))
    request = world.ask("erasure", MAIL)
    world.work()
    run = habeas(world, HABEAS_SYSTEMS="/nowhere/systems.yaml")
    (reason,) = run.json("why", request)["reasons"]
    assert reason["text"] == "wants attention: fatal: no such table"


def test_a_broker_that_is_away_is_named_for_work_that_waits_and_for_an_answer_that_waits(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    away = {"HABEAS_BROKER_URL": "amqp://guest:hunter2@127.0.0.1:1"}
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", MAIL)
    at_once = habeas(world, **away).json("why", request)
    assert at_once["reasons"][0]["text"].endswith("and is taken in a moment"), "nobody is late yet"
    world.later(timedelta(seconds=10))
    (reason,) = habeas(world, **away).json("why", request)["reasons"]
    assert reason["kind"] == "no_worker"
    assert reason["text"].endswith("no worker hears of it: the broker does not answer")
    world.work()
    world.rows("UPDATE outbox SET created_at = created_at - interval '10 seconds'")
    assert habeas(world, **away).json("why", request)["summary"] == (
        "the request is completed; nothing is waited for; its sender does not know yet: the broker does not answer"
    )
    world.rows("DELETE FROM unpublished")
    assert habeas(world, **away).json("why", request)["summary"].endswith("nothing is waited for")
