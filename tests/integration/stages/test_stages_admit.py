"""Admit: a batch of messages becomes requests, answers again, or quarantine."""

from __future__ import annotations

import dataclasses
import json

import pytest

from orchestrator.errors import Refusal
from orchestrator.stages.planning import Planner
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, delivery


def test_a_batch_of_messages_becomes_requests_with_their_first_steps_ready(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop"))
    admitted = world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(5)))
    assert len(set(admitted.accepted)) == 5
    assert admitted.advanced.rings == {"crm": 5, "shop": 5}
    for request in admitted.accepted:
        assert world.states(request)["discover@crm"] == "ready"
        assert world.states(request)["verify@crm"] == "waiting"
        assert world.told(request) == ["accepted"]
    assert world.broken_links() == {}


def test_requests_that_go_several_ways_in_one_batch_each_get_the_steps_of_their_own(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop"))
    asked = [
        delivery("erasure", "a@example.org"),
        delivery("access", "b@example.org"),
        delivery("erasure", "c@example.org", scope={"systems": ["shop"]}),
        delivery("erasure", "d@example.org"),
        delivery("access", "e@example.org"),
    ]
    alone = [world.states(world.admit(message).accepted[0]) for message in asked]
    again = [dataclasses.replace(m, body=m.body.replace(b'"id": "', b'"id": "again-')) for m in asked]
    together = world.admit(*again).accepted
    assert [world.states(request) for request in together] == alone
    assert len({tuple(states) for states in alone}) == 3
    deadlines = "SELECT count(*) FROM step JOIN request r ON r.id = request_id WHERE step.deadline <> r.deadline"
    assert world.one(deadlines) == 0


def test_nothing_personal_is_stored_in_the_clear(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    world.ask("rectification", "ada@example.org", corrections={"user.name": "Augusta King"}, requested_by="Mr Babbage")
    kept = world.everything_kept()
    assert "ada@example.org" not in kept
    assert "Augusta" not in kept
    assert "Babbage" not in kept


def test_the_same_message_again_gets_the_same_answer_and_no_second_run(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    message = delivery("erasure", "ada@example.org", message_id="m1", reply_to="first")
    first = world.admit(message).accepted[0]
    again = world.admit(dataclasses.replace(message, reply_to="second"))
    assert (again.accepted, again.repeated, again.refused) == ([], [first], [])
    events = world.rows("SELECT event_id, kind, reply_to FROM outbox ORDER BY id")
    assert len({e.event_id for e in events}) == 1
    assert [(e.kind, e.reply_to) for e in events] == [("accepted", "first"), ("accepted", "second")]
    assert world.one("SELECT count(*) FROM request") == 1


def test_a_message_repeated_after_the_end_is_told_how_it_ended(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    message = delivery("erasure", "ada@example.org", message_id="m1")
    request = world.admit(message).accepted[0]
    world.work()
    world.admit(message)
    assert world.told(request) == ["accepted", "completed", "completed"]
    assert len(world.connector("crm").effects) == 1


def test_the_same_message_twice_in_one_batch_runs_once(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    message = delivery("erasure", "ada@example.org", message_id="m1")
    admitted = world.admit(message, message)
    assert admitted.repeated == admitted.accepted
    assert len(admitted.accepted) == 1


def test_the_same_id_with_another_body_goes_to_quarantine(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    first = world.admit(delivery("erasure", "ada@example.org", message_id="m1")).accepted[0]
    admitted = world.admit(delivery("erasure", "eve@example.org", message_id="m1", reply_to="hers"))
    assert [e.reason for e in admitted.refused] == [Refusal.CONFLICTING_REPLAY]
    assert world.one("SELECT reason FROM quarantine") == "conflicting_replay"
    assert world.told(first) == ["accepted"]
    refusal = world.rows("SELECT * FROM outbox WHERE kind = 'refused'")
    assert [r.reply_to for r in refusal] == ["hers"]
    assert "eve@example.org" not in world.everything_kept()


BAD = {
    "not JSON": (b"{", Refusal.MALFORMED),
    "empty": (b"", Refusal.MALFORMED),
    "a list": (b"[]", Refusal.MALFORMED),
    "not UTF-8": (b"\xff\xfe\x00", Refusal.MALFORMED),
    "ten megabytes": (b'{"a": "' + b"x" * 10_000_000 + b'"}', Refusal.TOO_LARGE),
    "an unknown right": (delivery("oblivion", "a@example.org").body, Refusal.UNKNOWN_RIGHT),
    "an unknown source": (delivery("access", "a@example.org", source="urn:other").body, Refusal.UNKNOWN_SOURCE),
    "no identity": (delivery("access", "a@example.org", subject={"identities": []}).body, Refusal.MISSING_IDENTITY),
    "an unknown type": (delivery("access", "a@example.org", type="other.v1").body, Refusal.UNSUPPORTED_VERSION),
    "an unknown regulation": (delivery("access", "a@example.org", regulation="moon").body, Refusal.UNKNOWN_REGULATION),
    "an unknown system": (
        delivery("access", "a@example.org", scope={"systems": ["nowhere"]}).body,
        Refusal.UNKNOWN_SYSTEM,
    ),
    "a NUL in a name": (
        delivery("access", "a@example.org", message_id="\x00").body,
        Refusal.MALFORMED,
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_message_is_refused_with_its_reason_kept_sealed_and_stops_nobody(
    make_world: MakeWorld, kind: str
) -> None:
    body, reason = BAD[kind]
    world = make_world(system("crm"))
    bad = dataclasses.replace(delivery("access", "x@example.org"), body=body)
    admitted = world.admit(delivery("access", "one@example.org"), bad, delivery("access", "two@example.org"))
    assert [e.reason for e in admitted.refused] == [reason]
    assert len(admitted.accepted) == 2
    [row] = world.rows("SELECT * FROM quarantine")
    assert (row.reason, row.bytes) == (reason, len(body))
    with world.runtime.database.transaction() as tx:
        assert world.runtime.quarantine.open(tx, row.id).body == body
    [event] = world.rows("SELECT body FROM outbox WHERE kind = 'refused'")
    assert json.loads(bytes(event.body))["data"]["reason"] == reason


def test_a_message_that_meets_a_defect_is_set_aside_and_the_batch_goes_on(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(system("crm"))
    plan = Planner.plan

    def defective(self: Planner, request: object) -> object:
        if "poison" in str(getattr(request, "message_id", "")):
            raise ZeroDivisionError
        return plan(self, request)  # type: ignore[arg-type]

    monkeypatch.setattr(Planner, "plan", defective)
    messages = [
        delivery("access", f"p{n}@example.org", message_id=f"{'poison' if n == 2 else 'm'}{n}") for n in range(5)
    ]
    admitted = world.admit(*messages)
    assert len(admitted.accepted) == 4
    assert [e.reason for e in admitted.refused] == [Refusal.UNPROCESSABLE]
    assert world.one("SELECT reason FROM quarantine") == "unprocessable"


def test_a_request_for_which_nothing_can_be_done_closes_at_once_and_says_why(make_world: MakeWorld) -> None:
    world = make_world(system("crm", actions=["access"]))
    request = world.ask("erasure", "ada@example.org")
    assert world.resolution(request) == "completed_with_exceptions"
    assert world.told(request) == ["accepted", "completed"]
    assert world.steps(request)["erase@crm"].result["note"] == "crm has no way to erase"


def test_a_message_that_comes_again_to_a_database_which_lost_it_asks_the_systems_under_the_same_keys(
    make_world: MakeWorld,
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    message = delivery("erasure", "ada@example.org", message_id="m-1")
    world.admit(message, delivery("erasure", "bob@example.org", message_id="m-2"))
    world.work()
    world.rows("TRUNCATE inbox, request, step CASCADE")  # what a restore of an older backup comes to
    world.admit(message)
    world.work()
    keys = [
        [t.key for t in batch if ("ada@example.org") in {i.value for i in t.identities}]
        for batch in world.connector("crm").calls
    ]
    [first], [again] = keys
    assert first == again
    assert len(set(world.connector("crm").effects)) == 2, "others have keys of their own"
