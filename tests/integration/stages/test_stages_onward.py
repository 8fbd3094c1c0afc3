"""Going on: what a settle makes ready is taken at once, and nobody is the worse for it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from connectors.contract import Done, Identity, Outcome, Retryable, Task
from orchestrator.broker import tasks
from orchestrator.broker.bell import Bell
from orchestrator.core.model import Identity as Person
from orchestrator.errors import Unavailable
from orchestrator.stages import operate
from tests.model.acts import Cut
from tests.support.scripted import system
from tests.support.worlds import MakeWorld, World, counts, delivery

STEPS = [
    {"id": "discover", "action": "discover", "systems": ["crm"]},
    {"id": "erase", "action": "erase", "systems": ["mail"], "needs": ["discover"]},
    {"id": "last", "action": "erase", "systems": ["crm"], "needs": ["erase"]},
]
CHAIN: dict[str, Any] = {"workflow": "erasure", "version": 1, "right": "erasure", "steps": STEPS}
SERVED = {"crm", "mail"}


def chain(make_world: MakeWorld, **of_mail: Any) -> World:
    """Three links, in two systems that have shown that they are quick."""
    world = make_world(
        system("crm", discovers=["user_id"]), system("mail", identified_by=["user_id"], **of_mail), workflows=[CHAIN]
    )
    admitted(world, 5, start=1000)
    if "gather_seconds" in of_mail:
        world.work("crm")
        time.sleep(of_mail["gather_seconds"])
    world.work()
    for name in SERVED:
        world.connector(name).calls.clear()
    return world


def admitted(world: World, n: int, start: int = 0) -> None:
    world.admit(*(delivery("erasure", f"p{i}@example.org") for i in range(start, start + n)))


def states(world: World) -> dict[object, int]:
    """Of the steps in ``mail``."""
    return counts(world.rows("SELECT state FROM step WHERE system = 'mail'"))


def test_one_round_leads_quick_requests_to_their_end(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 20)
    worked = world.runtime.execute.work("crm", served=SERVED)
    assert worked.claimed == 60
    assert len(worked.advanced.closed) == 20
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 25}
    assert {r[0] for r in world.rows("SELECT DISTINCT attempt FROM step")} == {1}
    assert world.broken_links() == {}
    assert world.one("SELECT count(*) FROM ledger") == 50, "the addresses, and what was found of each"


def test_what_was_found_a_moment_ago_is_known_to_the_next(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 1)
    world.runtime.execute.work("crm", served=SERVED)
    [[task]] = world.connector("mail").calls
    assert task.values("user_id") == ("user_id-of-p0@example.org",)


def test_what_another_worker_found_meanwhile_is_known_to_the_next(make_world: MakeWorld) -> None:
    discover = {"id": "discover", "action": "discover", "systems": ["crm", "shop"]}
    flow = {**CHAIN, "steps": [discover, {**STEPS[1], "needs": ["discover"]}]}
    world = make_world(
        system("crm", discovers=["user_id"]),
        system("shop", discovers=["phone"]),
        system("mail", identified_by=["user_id", "phone"]),
        workflows=[flow],
    )
    admitted(world, 3, start=1000)
    world.work()
    world.connector("mail").calls.clear()
    admitted(world, 1)
    other = world.another()

    def meanwhile(_: Sequence[Task]) -> None:
        """After our claim has read what is known."""
        assert other.execute.work("shop").claimed == 1

    phone = Done(Outcome.EXECUTED, found=(Identity("phone", "+4930123456"),))
    other_shop: Any = other.definitions.connectors["shop"]
    other_shop.on("p0@example.org", phone)
    world.connector("crm").during = meanwhile
    world.runtime.execute.work("crm", served={"crm", "mail"})
    other.close()
    [[task]] = world.connector("mail").calls
    assert {i.type for i in task.identities} == {"email", "user_id", "phone"}


def test_the_next_step_is_under_a_lease_before_its_system_is_touched(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 2)
    other = world.another()
    seen: list[tuple[object, ...]] = []

    def look(_: Sequence[Task]) -> None:
        with other.database.transaction() as tx:
            query = """SELECT state, attempt, token IS NOT NULL, lease_until BETWEEN now() AND now() + interval '11 s'
                       FROM step WHERE system = 'mail' AND state <> 'done'"""
            seen.extend(tuple(r) for r in tx.exec_driver_sql(query))

    world.connector("mail").during = look
    world.runtime.execute.work("crm", served=SERVED)
    other.close()
    assert seen == [("running", 1, True, True)] * 2


def test_nobody_who_stands_before_is_passed_by(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 2)
    world.work("crm")  # these wait for mail
    admitted(world, 3, start=10)
    worked = world.runtime.execute.work("crm", served=SERVED)
    assert worked.claimed == 3
    assert worked.advanced.rings["mail"] == 3
    assert states(world) == {"done": 5, "ready": 5}
    assert world.connector("mail").calls == []


def test_of_those_who_stand_equal_the_older_comes_first(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 1)
    world.work("crm")
    admitted(world, 2, start=10)
    world.rows("UPDATE step SET rank = (SELECT min(rank) FROM step WHERE state = 'ready') WHERE state <> 'done'")
    assert world.runtime.execute.work("crm", served=SERVED).claimed == 2
    assert states(world) == {"done": 5, "ready": 3}


def test_who_comes_later_keeps_nobody_waiting(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 2)
    world.work("crm")
    world.rows("UPDATE step SET rank = rank + interval '1 day' WHERE state IN ('ready', 'waiting')")
    admitted(world, 3, start=10)
    assert len(world.runtime.execute.work("crm", served=SERVED).advanced.closed) == 3
    assert states(world) == {"done": 8, "ready": 2}


@pytest.mark.parametrize(
    "state",
    [
        "paused = true",
        "breaker_until = now() + interval '1 min'",
        "breaker_until = now() - interval '1 min'",
    ],
)
def test_a_system_that_takes_nothing_is_not_gone_on_to(make_world: MakeWorld, state: str) -> None:
    world = chain(make_world)
    world.rows(f"UPDATE connector_state SET {state} WHERE system = 'mail'")
    admitted(world, 3)
    assert world.runtime.execute.work("crm", served=SERVED).claimed == 3
    assert states(world) == {"done": 5, "ready": 3}


def test_a_system_that_somebody_elses_step_was_lost_in_is_not_gone_on_to(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 1)
    world.work("crm")
    world.rows("UPDATE step SET crashes = 1 WHERE system = 'mail' AND state = 'ready'")
    admitted(world, 3, start=10)
    assert world.runtime.execute.work("crm", served=SERVED).claimed == 3


@pytest.mark.parametrize("limits", [{"rate": {"per_second": 1000}}, {"concurrency": 2}, {"gather_seconds": 1}])
def test_a_system_with_limits_is_claimed_from(make_world: MakeWorld, limits: dict[str, Any]) -> None:
    world = chain(make_world, **limits)
    admitted(world, 3)
    assert world.runtime.execute.work("crm", served=SERVED).claimed == 3


def test_a_slow_system_and_one_that_others_serve_are_left_to_others(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 3)
    worked = world.runtime.execute.work("crm", served={"crm"})
    assert (worked.claimed, worked.advanced.rings["mail"]) == (3, 3)
    world.connector("mail").during = lambda _: time.sleep(0.9)
    world.work("mail")
    world.work()
    admitted(world, 3, start=10)
    assert world.runtime.execute.work("crm", served=SERVED).claimed == 3


def test_no_more_is_taken_than_one_call_may_hold(make_world: MakeWorld) -> None:
    world = chain(make_world, batch=2)
    admitted(world, 5)
    worked = world.runtime.execute.work("crm", served=SERVED)
    assert max(len(call) for call in world.connector("mail").calls) == 2
    assert worked.advanced.rings["mail"] == 3
    ranks = """SELECT max(rank) FILTER (WHERE state = 'done') <= min(rank) FILTER (WHERE state <> 'done')
               FROM step WHERE request_id > (SELECT id FROM request ORDER BY id OFFSET 4 LIMIT 1) AND system = 'mail'"""
    assert world.one(ranks)


def test_a_system_that_failed_is_left_to_its_circuit_breaker(make_world: MakeWorld) -> None:
    flow = {**CHAIN, "steps": [*STEPS[:2], {**STEPS[2], "needs": ["discover"], "systems": ["crm"]}]}
    world = make_world(
        system("crm", discovers=["user_id"]), system("mail", identified_by=["user_id"]), workflows=[flow]
    )
    admitted(world, 3, start=1000)
    world.work()
    admitted(world, 2)
    world.connector("crm").on("p0@example.org", Retryable("down"))
    worked = world.runtime.execute.work("crm", served=SERVED)
    assert worked.claimed == 3, "two in crm, one in mail; none in crm again"


def test_a_request_that_was_paused_or_cancelled_meanwhile_does_not_go_on(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 3)
    ids = [r[0] for r in world.rows("SELECT id FROM request WHERE resolution IS NULL ORDER BY id")]
    other = world.another()

    def meanwhile(_: Sequence[Task]) -> None:
        world.connector("crm").during = lambda _: None
        actor = operate.Operate(other.database, other.advance)
        actor.pause(ids[0], "op", "wait")
        actor.cancel(ids[1], "op", "a mistake")

    world.connector("crm").during = meanwhile
    world.runtime.execute.work("crm", served=SERVED)
    other.close()
    assert states(world) == {"done": 7, "parked": 1}
    assert world.resolution(ids[1]) == "cancelled"
    assert world.resolution(ids[2]) == "completed"
    assert len(world.connector("mail").calls) == 1


def test_a_hold_that_was_placed_meanwhile_holds_back_what_follows(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 2)
    other = world.another()

    def meanwhile(_: Sequence[Task]) -> None:
        with other.database.transaction() as tx:
            other.holds.place(tx, [Person("email", "p1@example.org")], "case-7", "counsel")

    world.connector("crm").during = meanwhile
    world.runtime.execute.work("crm", served=SERVED)
    other.close()
    assert states(world) == {"done": 6, "parked": 1}
    [[task]] = world.connector("mail").calls
    assert task.values("email") == ("p0@example.org",)


def test_a_settle_whose_commit_nobody_heard_of_keeps_what_it_took(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 4)
    cut = Cut(world.runtime.database.url.render_as_string(hide_password=False))
    world.runtime.execute._settle._database = cut

    def cut_off(_: Sequence[Task]) -> None:
        cut.silent_commits = 1

    world.connector("crm").during = cut_off
    worked = world.runtime.execute.work("crm", served=SERVED)
    cut.close()
    assert worked.claimed == 12
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 9}
    assert [len(call) for call in world.connector("mail").calls] == [4], "nobody was done twice"
    assert world.one("SELECT sum(crashes) FROM step") == 0


def test_a_worker_that_is_lost_on_its_way_leaves_the_step_to_the_sweep(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 2)

    class Lost(BaseException):
        pass

    def lost(_: Sequence[Task]) -> None:
        raise Lost

    world.connector("mail").during = lost
    with pytest.raises(Lost):
        world.runtime.execute.work("crm", served=SERVED)
    assert states(world) == {"done": 5, "running": 2}
    world.connector("mail").during = lambda _: None
    world.later(timedelta(seconds=11))
    world.tick()
    world.work()
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 7}


def test_a_run_that_somebody_else_changed_is_read_again(make_world: MakeWorld) -> None:
    both = [STEPS[0], {**STEPS[1], "systems": ["mail", "shop"]}, STEPS[2]]
    world = make_world(
        system("crm", discovers=["user_id"]),
        system("mail", identified_by=["user_id"]),
        system("shop", identified_by=["user_id"]),
        workflows=[{**CHAIN, "steps": both}],
    )
    admitted(world, 3, start=1000)
    world.work()
    admitted(world, 1)
    other = world.another()

    def meanwhile(_: Sequence[Task]) -> None:
        assert other.execute.work("shop").claimed == 1

    world.connector("mail").during = meanwhile
    worked = world.runtime.execute.work("crm", served={"crm", "mail"})
    other.close()
    assert worked.claimed == 3, "the last step was released by us, who had not seen shop's end"
    assert counts(world.rows("SELECT resolution FROM request")) == {"completed": 4}
    assert world.broken_links() == {}


class Interrupted(Cut):
    """Time passes between a commit that nobody heard of and the next attempt."""

    def __init__(self, world: World, meanwhile: Callable[[], object]) -> None:
        super().__init__(world.runtime.database.url.render_as_string(hide_password=False))
        self._meanwhile = meanwhile
        world.runtime.execute._settle._database = self

        def cut_off(_: Sequence[Task]) -> None:
            world.connector("crm").during = lambda _: None
            self.silent_commits = 1

        world.connector("crm").during = cut_off

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        try:
            with super().transaction() as tx:
                yield tx
        except Unavailable:
            self._meanwhile()
            raise


def test_a_hold_holds_back_what_was_taken_unheard_of_even_if_its_system_was_paused_since(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 2)
    other = world.another()

    def meanwhile() -> None:
        assert states(world) == {"done": 5, "running": 2}, "taken by the first attempt"
        other.operate.pause_system("mail", "op", "maintenance")
        with other.database.transaction() as tx:
            other.holds.place(tx, [Person("email", "p1@example.org")], "case-7", "counsel")

    cut = Interrupted(world, meanwhile)
    world.runtime.execute.work("crm", served=SERVED)
    cut.close()
    other.close()
    assert [t.values("email") for call in world.connector("mail").calls for t in call] == [("p0@example.org",)]
    assert states(world) == {"done": 6, "parked": 1}


def test_what_was_taken_unheard_of_has_a_whole_lease_when_its_system_is_called(make_world: MakeWorld) -> None:
    world = chain(make_world)
    admitted(world, 2)
    other = world.another()
    seen: list[bool] = []

    def look(_: Sequence[Task]) -> None:
        with other.database.transaction() as tx:
            query = "SELECT lease_until > now() + interval '8 s' FROM step WHERE system = 'mail' AND state = 'running'"
            seen.extend(tx.exec_driver_sql(query).scalars())

    world.connector("mail").during = look
    late = "UPDATE step SET lease_until = now() + interval '1 s' WHERE state = 'running'"
    cut = Interrupted(world, lambda: world.rows(late))
    world.runtime.execute.work("crm", served=SERVED)
    cut.close()
    other.close()
    assert seen == [True, True]


def test_no_more_is_taken_than_one_call_may_hold_where_a_request_has_several_steps_in_a_system(
    make_world: MakeWorld,
) -> None:
    several = [{"id": a, "action": a, "systems": ["mail"], "needs": ["discover"]} for a in ("erase", "suppress")]
    world = make_world(
        system("crm", discovers=["user_id"]),
        system("mail", identified_by=["user_id"], batch=3),
        workflows=[{**CHAIN, "steps": [STEPS[0], *several]}],
    )
    admitted(world, 3, start=1000)
    world.work()
    admitted(world, 4)
    taken: list[int] = []
    other = world.another()

    def look(_: Sequence[Task]) -> None:
        with other.database.transaction() as tx:
            query = "SELECT count(*) FROM step WHERE system = 'mail' AND state = 'running'"
            taken.append(tx.exec_driver_sql(query).scalar_one())

    world.connector("mail").during = look
    world.runtime.execute.work("crm", served=SERVED)
    other.close()
    assert taken
    assert max(taken) == 3


class Noted(Bell):
    """Whom it was rung for."""

    def __init__(self) -> None:
        self.rung: Counter[str] = Counter()

    def ring(self, systems: Mapping[str, int]) -> None:
        self.rung.update(systems)


def test_a_doorbell_whose_time_is_up_goes_on_to_nothing_and_leaves_it_to_the_next(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = chain(make_world)
    admitted(world, 3)
    monkeypatch.setattr(tasks, "SHARE", -1.0)
    bell = Noted()
    tasks.answer(world.runtime, bell, "crm", SERVED)
    assert states(world) == {"done": 5, "ready": 3}
    assert bell.rung["mail"] == 3


def test_who_has_work_by_it_is_rung_for_before_it_goes_on(make_world: MakeWorld) -> None:
    both = [STEPS[0], {**STEPS[1], "systems": ["mail", "shop"]}]
    world = make_world(
        system("crm", discovers=["user_id"]), system("mail"), system("shop"), workflows=[{**CHAIN, "steps": both}]
    )
    admitted(world, 3, start=1000)
    world.work()
    admitted(world, 2)
    bell = Noted()
    heard: list[int] = []
    world.connector("mail").during = lambda _: heard.append(bell.rung["shop"])
    tasks.answer(world.runtime, bell, "crm", SERVED)
    assert heard == [2]
    assert bell.rung == {"shop": 2 + 2}, "each of whose requests was settled again is told once more"
