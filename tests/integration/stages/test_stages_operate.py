"""What operators do, and what they are told when it cannot be done."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from connectors.contract import Fatal, Pending, Unauthorised
from orchestrator.errors import Conflict, NotFound
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, counts, delivery

TWO = {
    **ONE_STEP,
    "steps": [
        {"id": "erase", "action": "erase"},
        {"id": "verify", "action": "verify", "after_same": ["erase"], "with": {"of": "erase"}},
    ],
}


def stuck(make_world: MakeWorld, people: int = 1) -> World:
    """A world where an erasure wants an operator for each person."""
    world = make_world(system("crm"), workflows=[TWO])
    for n in range(people):
        world.connector("crm").on(f"p{n}@example.org", Fatal("no such table"))
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(people)))
    world.work()
    return world


def the_request(world: World) -> UUID:
    request: UUID = world.one("SELECT id FROM request")
    return request


def test_a_retry_begins_again_with_a_full_count_of_attempts(make_world: MakeWorld) -> None:
    world = stuck(make_world)
    request = the_request(world)
    assert world.runtime.operate.retry(request, 0, "ops").rings == {"crm": 1}
    row = world.steps(request)["erase@crm"]
    assert (row.state, row.failures, row.crashes) == ("ready", 0, 0)
    world.work()
    assert world.resolution(request) == "completed"


def test_a_skipped_step_is_reported_as_skipped_with_its_reason_and_not_checked(make_world: MakeWorld) -> None:
    world = stuck(make_world)
    request = the_request(world)
    world.runtime.operate.skip(request, 0, "ops", "the table is gone")
    assert world.resolution(request) == "completed_with_exceptions"
    rows = world.steps(request)
    assert rows["erase@crm"].result["note"] == "the table is gone"
    assert rows["verify@crm"].result["outcome"] == "skipped"
    assert [t.action for batch in world.connector("crm").calls for t in batch] == ["erase"]


def test_what_was_done_by_hand_is_recorded_with_its_evidence_and_looked_up(make_world: MakeWorld) -> None:
    world = stuck(make_world)
    request = the_request(world)
    world.runtime.operate.done(request, 0, "ops", "ticket 12")
    assert world.steps(request)["erase@crm"].result["evidence"] == {"by_hand": "ticket 12", "actor": "ops"}
    world.work()
    assert world.connector("crm").calls[-1][0].action == "verify"
    assert world.resolution(request) == "completed"


def test_a_cancelled_request_begins_nothing_more_and_tells_what_cannot_be_taken_back(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[TWO])
    request = world.ask("erasure", "ada@example.org")
    world.runtime.execute.work("crm")
    world.runtime.operate.cancel(request, "ops", "the person asked")
    assert world.resolution(request) == "cancelled"
    facts = world.one("SELECT facts FROM audit WHERE what = 'cancelled'")
    assert facts["irrevocable"] == ["crm"]
    assert world.told(request)[-1] == "completed"


def test_a_cancellation_waits_for_what_runs(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[TWO])
    request = world.ask("erasure", "ada@example.org")
    world.connector("crm").during = lambda _: world.runtime.operate.cancel(request, "ops", "") and None
    world.work()
    assert world.resolution(request) == "cancelled"
    assert world.steps(request)["erase@crm"].result["outcome"] == "executed"
    assert world.told(request) == ["accepted", "completed"]


def test_pause_and_resume(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[TWO])
    request = world.ask("erasure", "ada@example.org")
    world.runtime.operate.pause(request, "ops", "asked by legal")
    world.work()
    assert world.connector("crm").calls == []
    with pytest.raises(Conflict, match="the request is paused: resume it instead"):
        world.runtime.operate.retry(request, 0, "ops")
    world.runtime.operate.resume(request, "ops")
    world.work()
    assert world.resolution(request) == "completed"


def test_a_gate_is_answered_by_request_alone_when_it_is_the_only_one(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    request = world.ask("erasure", "ada@example.org", verified=False)
    world.work()
    assert world.told(request) == ["accepted", "waiting"]
    world.runtime.operate.decide(request, "approve", "ops")
    world.work()
    assert world.resolution(request) == "completed"


def test_a_gate_that_is_declined_denies_the_request(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    request = world.ask("erasure", "ada@example.org", verified=False)
    world.work()
    world.runtime.operate.decide(request, "decline", "ops", "suspected_fraud")
    world.work()
    assert world.resolution(request) == "denied"
    assert world.connector("crm").calls == []


def test_an_unanswered_gate_expires_and_so_does_the_request(make_world: MakeWorld) -> None:

    world = make_world(system("crm"))
    request = world.ask("erasure", "ada@example.org", verified=False)
    world.work()
    world.rows("UPDATE step SET handle = handle || '{\"until\": \"2020-01-01T00:00:00+00:00\"}' WHERE state = 'parked'")
    world.later(timedelta(days=31))
    world.tick()
    world.work()
    assert world.resolution(request) == "expired"


# Conflicts are told in words. ----------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_found(make_world: MakeWorld) -> None:
    operate = make_world(system("crm")).runtime.operate
    with pytest.raises(NotFound, match="there is no request"):
        operate.retry(uuid4(), 0, "ops")
    with pytest.raises(NotFound, match="there is no request"):
        operate.decide(uuid4(), "approve", "ops")
    with pytest.raises(NotFound, match="there is no system 'nowhere'"):
        operate.pause_system("nowhere", "ops", "")
    with pytest.raises(NotFound, match="there is no system 'nowhere'"):
        operate.resume_system("nowhere")


def test_what_the_state_forbids_is_refused_with_the_reason_and_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[TWO])
    request = world.ask("erasure", "ada@example.org")
    operate = world.runtime.operate
    audit = world.rows("SELECT * FROM audit")
    with pytest.raises(Conflict, match="there is no step 9; there are 0 to 1"):
        operate.retry(request, 9, "ops")
    with pytest.raises(Conflict, match=r"step 0 \(erase in crm\) is ready: it cannot wake"):
        operate.retry(request, 0, "ops")
    with pytest.raises(Conflict, match="it awaits no report"):
        operate.report(request, 0, {"decision": "approve"})
    with pytest.raises(Conflict, match="those that await a report are none"):
        operate.decide(request, "approve", "ops")
    world.claim("crm")
    with pytest.raises(Conflict, match="is running: wait for it, or for its lease"):
        operate.skip(request, 0, "ops", "")
    assert world.rows("SELECT * FROM audit") == audit


def test_a_closed_request_takes_nothing_more(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[TWO])
    request = world.ask("erasure", "ada@example.org")
    world.work()
    for act in (
        lambda: world.runtime.operate.cancel(request, "ops", ""),
        lambda: world.runtime.operate.pause(request, "ops", ""),
        lambda: world.runtime.operate.skip(request, 0, "ops", ""),
    ):
        with pytest.raises(Conflict, match=r"the request is closed \(completed\)"):
            act()


def test_with_two_parked_steps_a_decision_must_name_the_one_it_means(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop"), workflows=[TWO])
    for name in ("crm", "shop"):
        asked = {"asked_at": "2026-01-01T00:00:00+00:00"}
        world.connector(name).on("ada@example.org", Pending(asked, None, f"the people of {name}"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    with pytest.raises(Conflict, match=r"name the step with --step: .* 0 \(erase in crm\), 1 \(erase in shop\)"):
        world.runtime.operate.decide(request, "done", "ops")
    world.runtime.operate.decide(request, "done", "ops", ordinal=1)
    assert world.states(request)["erase@shop"] == "ready"


def test_what_a_vendor_still_works_on_is_not_for_a_person_to_approve(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", Pending({"job": "j1"}, None, "the vendor's job"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    with pytest.raises(Conflict, match="those that await a report are none"):
        world.runtime.operate.decide(request, "approve", "ops")


def test_a_report_that_carries_a_persons_records_is_refused(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", Pending({"asked_at": "2026-01-01T00:00:00+00:00"}, None, "people"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    with pytest.raises(Conflict, match="must not carry a person's records"):
        world.runtime.operate.report(request, 0, {"decision": "done", "records": [{"name": "Ada"}]})
    assert "Ada" not in world.everything_kept()


# In bulk. ------------------------------------------------------------------------------------------------------------


def test_all_steps_of_a_system_that_want_attention_are_retried_or_skipped_at_once(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.stages.operate.BULK", 3)
    world = stuck(make_world, people=8)
    world.connector("crm").on("new@example.org", Unauthorised("key expired"))
    world.ask("erasure", "new@example.org")
    world.work()
    attention = "SELECT state FROM step WHERE name = 'erase'"
    assert counts(world.rows(attention)) == {"attention": 9}
    assert world.runtime.operate.retry_all("crm", "ops", failure="unauthorised").rings == {"crm": 1}
    assert counts(world.rows(attention)) == {"attention": 8, "ready": 1}
    world.runtime.operate.skip_all("crm", "ops", "the table is gone")
    assert counts(world.rows(attention)) == {"done": 8, "ready": 1}
