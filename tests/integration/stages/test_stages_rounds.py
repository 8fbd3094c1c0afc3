"""Rounds of several systems: who shares one, and that nobody is the worse for it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import pytest

from connectors.contract import Call, Done, Outcome, Retryable, Task
from orchestrator.broker import tasks
from orchestrator.stages import execute
from tests.support.scripted import system
from tests.support.worlds import MakeWorld, World, counts, delivery

ERASE = {"id": "erase", "action": "erase", "systems": ["crm", "mail", "shop"]}
FLOW: dict[str, Any] = {"workflow": "erasure", "version": 1, "right": "erasure", "steps": [ERASE]}
LAST = "(SELECT max(id::text)::uuid FROM request)"


class Silent:
    """A bell that remembers."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, systems: Mapping[str, int]) -> None:
        """Note for whom."""
        self.rung += sorted(systems)


def three(make_world: MakeWorld, **of_mail: Any) -> World:
    return make_world(system("crm"), system("mail", **of_mail), system("shop"), workflows=[FLOW])


def admitted(world: World, n: int, start: int = 0) -> None:
    world.admit(*(delivery("erasure", f"p{i}@example.org") for i in range(start, start + n)))


def measured(world: World) -> None:
    """Let every system show how quick it is."""
    admitted(world, 20, start=1000)
    world.work()
    for name in ("crm", "mail", "shop"):
        world.connector(name).calls.clear()


def settles(world: World) -> int:
    """In how many transactions everything was settled."""
    return int(str(world.one("SELECT count(DISTINCT at) FROM audit WHERE what = 'settled'")))


def test_a_system_shares_no_round_before_it_has_shown_that_it_is_quick(make_world: MakeWorld) -> None:
    world = three(make_world)
    assert world.runtime.execute.together(["crm", "mail", "shop"]) == ["crm"]
    measured(world)
    assert world.runtime.execute.together(["crm", "shop", "mail"]) == ["crm", "mail", "shop"]


def test_requests_in_three_quick_systems_are_settled_once(make_world: MakeWorld) -> None:
    world = three(make_world)
    measured(world)
    before = settles(world)
    admitted(world, 50)
    worked = world.runtime.execute.work("crm", "mail", "shop")
    assert worked.claimed == 150
    assert len(worked.advanced.closed) == 50
    assert settles(world) == before + 1
    assert [len(world.connector(name).calls) for name in ("crm", "mail", "shop")] == [1, 1, 1]
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 70}
    assert world.broken_links() == {}


def test_a_slow_system_is_worked_on_alone(make_world: MakeWorld) -> None:
    world = three(make_world)
    world.connector("mail").during = lambda _: time.sleep(0.3)
    admitted(world, 1)
    world.work()
    together = world.runtime.execute.together
    assert together(["mail", "crm", "shop"]) == ["mail"]
    assert "mail" not in together(["crm", "mail", "shop"])


@pytest.mark.parametrize("limits", [{"rate": {"per_second": 1000}}, {"concurrency": 2}, {"gather_seconds": 1}])
def test_a_system_with_limits_is_worked_on_alone(make_world: MakeWorld, limits: dict[str, Any]) -> None:
    world = three(make_world, **limits)
    admitted(world, 20)
    for name in ("crm", "shop"):
        world.work(name)
    if "gather_seconds" in limits:
        time.sleep(1)
    world.work("mail")
    together = world.runtime.execute.together
    assert together(["mail", "crm", "shop"]) == ["mail"]
    assert together(["crm", "mail", "shop"]) == ["crm", "shop"]


def test_what_was_lost_before_is_claimed_without_company_and_is_no_company(make_world: MakeWorld) -> None:
    world = three(make_world)
    measured(world)
    admitted(world, 5)
    world.rows(f"UPDATE step SET crashes = 1 WHERE system = 'mail' AND request_id = {LAST}")
    worked = world.runtime.execute.work("crm", "mail", "shop")
    assert worked.claimed == 10, "crm and shop, and nothing of mail"
    assert world.connector("mail").calls == []
    worked = world.runtime.execute.work("mail", "crm", "shop")
    assert (worked.claimed, worked.full) == (1, ("mail",))
    assert world.runtime.execute.work("mail").claimed == 4


def test_a_system_that_rests_is_not_probed_in_company(make_world: MakeWorld) -> None:
    world = three(make_world, breaker={"failures": 1, "rest_seconds": 60})
    measured(world)
    world.rows("UPDATE connector_state SET failures = 1, breaker_until = now() - interval '1 s' WHERE system = 'mail'")
    admitted(world, 3)
    assert world.runtime.execute.work("crm", "mail").claimed == 3
    assert world.connector("mail").calls == []
    assert world.runtime.execute.work("mail").claimed == 1


def test_each_system_is_judged_by_its_own_answers(make_world: MakeWorld) -> None:
    world = three(make_world, breaker={"failures": 3, "rest_seconds": 60})
    measured(world)
    world.rows("UPDATE connector_state SET failures = 1 WHERE system IN ('crm', 'shop')")
    admitted(world, 3)
    for n in range(3):
        world.connector("mail").on(f"p{n}@example.org", Retryable("down"))
    world.runtime.execute.work("crm", "mail", "shop")
    rows = world.rows("SELECT system, failures, breaker_until IS NOT NULL FROM connector_state ORDER BY system")
    assert {(r[0], r[1], r[2]) for r in rows} >= {("crm", 0, False), ("mail", 3, True), ("shop", 0, False)}


def test_a_request_whose_sealed_facts_are_damaged_stops_itself_and_nobody_else(make_world: MakeWorld) -> None:
    world = three(make_world)
    measured(world)
    admitted(world, 5)
    world.rows(f"UPDATE request_secret SET payload = payload || '\\x00'::bytea WHERE request_id = {LAST}")
    world.runtime.execute.work("crm", "mail", "shop")
    assert counts(world.rows("SELECT state FROM step WHERE system = 'crm'")) == {"done": 24, "attention": 1}
    assert counts(world.rows("SELECT coalesce(resolution, 'open') FROM request")) == {"completed": 24, "open": 1}


def test_a_doorbell_leads_through_a_request_with_one_settle_for_what_is_side_by_side(make_world: MakeWorld) -> None:
    discover = {"id": "discover", "action": "discover", "systems": ["crm"]}
    flow = {**FLOW, "steps": [discover, {**ERASE, "needs": ["discover"]}]}
    world = make_world(system("crm", discovers=["user_id"]), system("mail"), system("shop"), workflows=[flow])
    measured(world)
    before = settles(world)
    admitted(world, 30)
    bell = Silent()
    tasks.answer(world.runtime, bell, "crm", served={"crm", "mail", "shop"})
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 50}
    assert settles(world) == before + 2
    assert not {"mail", "shop"} & set(bell.rung)


def test_a_result_that_is_the_same_for_all_and_one_that_differs_are_both_kept(make_world: MakeWorld) -> None:
    world = three(make_world)
    measured(world)
    admitted(world, 20)
    world.connector("mail").on("p7@example.org", Done(Outcome.RESIDUAL, counts={"rows": 7}, note="in a backup"))
    world.runtime.execute.work("crm", "mail", "shop")
    results = world.rows("SELECT result ->> 'note', count(*) FROM step WHERE system = 'mail' GROUP BY 1")
    assert {(r[0], r[1]) for r in results} == {("in a backup", 1), (None, 39)}
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 39, "completed_with_exceptions": 1}
    assert world.broken_links() == {}


def test_what_the_last_step_finds_is_remembered_with_all_that_was_erased(make_world: MakeWorld) -> None:
    discover = {"id": "discover", "action": "discover", "systems": ["shop"]}
    flow = {**FLOW, "steps": [{**ERASE, "systems": ["crm"]}, discover]}
    world = make_world(system("crm"), system("shop", discovers=["user_id"]), workflows=[flow])
    request = world.ask("erasure", "ada@example.org")
    world.work("crm")
    assert world.resolution(request) is None
    world.work("shop")
    assert world.resolution(request) == "completed"
    assert world.one("SELECT count(*) FROM ledger") == 2, "the address, and the user_id that was found last"


def test_much_gathered_data_is_settled_piece_by_piece(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    gather = {"id": "gather", "action": "access", "systems": ["crm"]}
    flow = {"workflow": "access", "version": 1, "right": "access", "steps": [gather]}
    world = make_world(system("crm"), workflows=[flow])
    monkeypatch.setattr(execute, "FLUSH_BYTES", 100_000)

    def much(task: Task, call: Call) -> Done:
        call.sink(task).write("rows", {"noise": secrets.token_hex(20_000)})
        return Done(Outcome.EXECUTED, counts={"rows": 1})

    people = [f"p{n}@example.org" for n in range(20)]
    for person in people:
        world.connector("crm").on(person, much)
    world.admit(*(delivery("access", person) for person in people))
    assert world.runtime.execute.work("crm").claimed == 20
    assert settles(world) > 2, "some 20 kB each"
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 20}
