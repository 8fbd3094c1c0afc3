"""Law 1: PostgreSQL is the truth; broker messages are doorbells. Losing one, or getting it twice, changes nothing."""

from __future__ import annotations

from datetime import timedelta

from tests.support.scripted import system
from tests.support.worlds import MakeWorld, World, delivery


def outcome(world: World) -> list[tuple[object, ...]]:
    steps = "SELECT name, system, state, result->>'outcome' FROM step ORDER BY 1, 2, 3, 4"
    return [tuple(r) for r in world.rows(steps)]


def test_when_every_doorbell_is_lost_the_sweep_alone_brings_all_to_the_end(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop", discovers=["user_id"]), system("ads", identified_by=["user_id"]))
    world.admit(*(delivery("erasure", f"p{n}@example.org", verified=n != 0) for n in range(6)))
    for _ in range(40):
        # What admitting and settling would have rung for is dropped; only what the sweep rings for is answered.
        for name in world.tick().rings:
            world.runtime.execute.work(name)
        if not world.rows("SELECT 1 FROM step WHERE state = 'ready'"):
            break
    assert world.one("SELECT count(*) FROM request WHERE resolution = 'completed'") == 5
    assert world.one("SELECT count(*) FROM step WHERE waiting_on <> ''") == 1


def test_a_doorbell_that_comes_too_often_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(3)))
    for _ in range(10):
        world.runtime.execute.work("crm")
    assert world.one("SELECT count(*) FROM request WHERE resolution = 'completed'") == 3
    assert set(world.connector("crm").effects.values()) == {1}


def test_timers_and_retries_are_rows_and_not_messages(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    request = world.ask("erasure", "ada@example.org", verified=False)
    world.work()
    [parked] = world.rows("SELECT * FROM step WHERE state = 'parked'")
    assert parked.due - parked.changed_at > timedelta(days=29)
    # Everything that the processes knew is forgotten; a new process finds it all in the database.
    world.runtime.close()
    world.runtime = world.another()
    world.runtime.operate.decide(request, "approve", "ops")
    world.work()
    assert world.resolution(request) == "completed"
