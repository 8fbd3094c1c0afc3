"""Claim: who may take what, in which order, and how much."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import text

from connectors.contract import Done, Outcome, Retryable
from orchestrator.store import claims
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, delivery


def admitted(world: World, n: int, right: str = "erasure") -> None:
    world.admit(*(delivery(right, f"p{i}@example.org") for i in range(n)))


def test_two_workers_never_get_the_same_step_and_never_wait_for_each_other(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    admitted(world, 30)
    limits = world.runtime.definitions.systems["crm"].limits
    lease = timedelta(seconds=10)
    with world.runtime.database.transaction() as one, world.runtime.database.transaction() as two:
        two.execute(text("SET LOCAL lock_timeout = '2s'"))
        first = claims.claim(one, "crm", limits, 20, uuid4(), lease)
        second = claims.claim(two, "crm", limits, 20, uuid4(), lease)
    assert (len(first), len(second)) == (20, 10)
    assert not {c.request for c in first} & {c.request for c in second}


def test_many_workers_at_once_share_the_steps_without_overlap(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP], database_pool=8)
    admitted(world, 120)
    start = threading.Barrier(6)

    def worker(_: int) -> list[object]:
        mine: list[object] = []
        start.wait()
        while got := world.claim("crm", 7):
            mine += [c.request for c in got]
        return mine

    with ThreadPoolExecutor(6) as pool:
        shares = list(pool.map(worker, range(6)))
    taken = [request for share in shares for request in share]
    assert len(taken) == len(set(taken)) == 120


def test_the_oldest_deadline_goes_first(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    ids = [world.ask("erasure", f"p{n}@example.org") for n in range(4)]
    for n, request in zip([3, 1, 4, 2], ids, strict=True):
        moment = datetime(2030, 1, n, tzinfo=UTC)
        world.rows("UPDATE step SET deadline = :d, rank = :d WHERE request_id = :id", d=moment, id=request)
    order = [world.claim("crm", 1)[0].request for _ in range(4)]
    assert order == [ids[1], ids[3], ids[0], ids[2]]


def test_a_claim_takes_no_more_than_the_batch(make_world: MakeWorld) -> None:
    world = make_world(system("crm", batch=4), workflows=[ONE_STEP])
    admitted(world, 10)
    assert [len(world.claim("crm")) for _ in range(4)] == [4, 4, 2, 0]


def test_a_step_that_was_lost_before_is_taken_alone(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    admitted(world, 5)
    poison = world.claim("crm", 1)[0].request
    world.later(timedelta(minutes=1))
    world.tick()
    alone = world.claim("crm")
    assert [c.request for c in alone] == [poison]
    assert len(world.claim("crm")) == 4


def test_nothing_is_taken_from_a_paused_system_until_it_is_resumed(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    admitted(world, 3)
    world.runtime.operate.pause_system("crm", "ops", "maintenance")
    assert world.claim("crm") == []
    assert world.tick().rings == {}
    assert world.runtime.operate.resume_system("crm").rings == {"crm": 1}
    assert len(world.claim("crm")) == 3


def test_a_system_without_its_row_of_state_is_left_alone(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    admitted(world, 1)
    world.rows("DELETE FROM connector_state")
    assert world.claim("crm") == []


def test_only_as_many_batches_are_under_way_as_the_system_bears(make_world: MakeWorld) -> None:
    world = make_world(system("crm", batch=2, concurrency=2), workflows=[ONE_STEP])
    admitted(world, 10)
    first, second = world.claim("crm"), world.claim("crm")
    assert (len(first), len(second)) == (2, 2)
    assert world.claim("crm") == []
    world.rows("UPDATE step SET state = 'done' WHERE token = :t", t=first[0].token)
    assert len(world.claim("crm")) == 2


def test_many_claimers_together_never_exceed_the_rate(make_world: MakeWorld) -> None:
    world = make_world(system("crm", rate={"per_second": 0.001, "burst": 25}), workflows=[ONE_STEP], database_pool=8)
    admitted(world, 80)
    world.later(timedelta(days=1))  # a long rest fills the bucket to its brim, and not beyond
    start = threading.Barrier(6)

    def worker(_: int) -> int:
        start.wait()
        return sum(len(world.claim("crm", 4)) for _ in range(10))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(worker, range(6))) == 25
    # Until their permits run out, what was claimed and never begun keeps its room in the bucket.
    world.later(timedelta(seconds=10))
    assert world.claim("crm") == []
    world.later(timedelta(seconds=3000))
    assert len(world.claim("crm")) == 3


def test_steps_are_gathered_until_the_batch_is_full_or_the_time_is_up(make_world: MakeWorld) -> None:
    world = make_world(system("crm", batch=5, gather_seconds=60), workflows=[ONE_STEP])
    admitted(world, 3)
    assert world.claim("crm") == []
    admitted(world, 2)
    assert len(world.claim("crm")) == 5
    admitted(world, 1)
    assert world.claim("crm") == []
    world.later(timedelta(seconds=61))
    assert len(world.claim("crm")) == 1


# The circuit breaker. ------------------------------------------------------------------------------------------------

FRAGILE = {"breaker": {"failures": 3, "rest_seconds": 30}, "retry": {"attempts": 20, "base_seconds": 0}}


def failing(world: World, n: int, times: int = 1) -> None:
    for i in range(n):
        world.connector("crm").on(f"p{i}@example.org", *[Retryable("the system is away")] * times)
    admitted(world, n)


def breaker(world: World) -> tuple[int, bool]:
    [row] = world.rows(
        "SELECT failures, breaker_until > clock_timestamp() AS open FROM connector_state WHERE system = 'crm'"
    )
    return row.failures, bool(row.open)


def test_the_breaker_opens_when_enough_steps_fail_one_after_another(make_world: MakeWorld) -> None:
    world = make_world(system("crm", batch=1, **FRAGILE), workflows=[ONE_STEP])
    failing(world, 3)
    for n in range(1, 4):
        world.runtime.execute.work("crm")
        assert breaker(world) == (n, n == 3)
    world.tick()
    assert world.claim("crm") == []


def test_a_success_between_keeps_the_breaker_closed(make_world: MakeWorld) -> None:
    world = make_world(system("crm", batch=1, **FRAGILE), workflows=[ONE_STEP])
    failing(world, 2)
    world.runtime.execute.work("crm")
    world.runtime.execute.work("crm")
    world.ask("erasure", "fine@example.org")
    world.runtime.execute.work("crm")
    assert breaker(world) == (0, False)


def test_after_its_rest_an_open_breaker_lets_one_probe_through(make_world: MakeWorld) -> None:
    world = make_world(system("crm", **FRAGILE), workflows=[ONE_STEP])
    failing(world, 5)
    world.runtime.execute.work("crm")
    assert breaker(world) == (5, True)
    world.later(timedelta(seconds=31))
    world.tick()
    assert len(world.claim("crm")) == 1
    assert world.claim("crm") == []


def test_a_probe_that_fails_keeps_the_door_shut_and_one_that_succeeds_opens_it(make_world: MakeWorld) -> None:
    world = make_world(system("crm", **FRAGILE), workflows=[ONE_STEP])
    failing(world, 5)
    world.runtime.execute.work("crm")
    for person in range(5):
        world.connector("crm").on(f"p{person}@example.org", Retryable("still away"))
    world.later(timedelta(seconds=31))
    world.tick()
    assert world.runtime.execute.work("crm").claimed == 1
    assert breaker(world) == (6, True)
    for person in range(5):
        world.connector("crm").script.pop(f"p{person}@example.org", None)
        world.connector("crm").on(f"p{person}@example.org", Done(Outcome.EXECUTED))
    world.later(timedelta(seconds=31))
    world.tick()
    assert world.runtime.execute.work("crm").claimed == 1
    assert breaker(world) == (0, False)
    world.work()
    assert world.one("SELECT count(*) FROM request WHERE resolution = 'completed'") == 5


def test_a_look_for_work_where_there_is_none_does_not_use_up_the_probe(make_world: MakeWorld) -> None:
    world = make_world(system("crm", **FRAGILE), workflows=[ONE_STEP])
    world.rows("UPDATE connector_state SET failures = 5, breaker_until = clock_timestamp() - interval '1 s'")
    assert world.claim("crm") == []
    world.ask("erasure", "ada@example.org")
    assert len(world.claim("crm")) == 1
