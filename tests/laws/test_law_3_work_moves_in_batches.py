"""Law 3: a batch costs a handful of statements, whatever its size."""

from __future__ import annotations

import pytest

from tests.support.scripted import system
from tests.support.statements import sent
from tests.support.worlds import ONE_STEP, MakeWorld, World, delivery

CEILING = {"admit": 12, "work": 30}
"""The most statements that one batch may take, in one step of its way."""


def kind(statement: str) -> str:
    """A statement by its beginning: how its values go over the wire is not what is counted."""
    return " ".join(statement.split())[:25]


def cost(world: World, people: range, right: str) -> dict[str, list[str]]:
    engine = world.runtime.database.engine
    with sent(engine) as admitting:
        world.admit(*(delivery(right, f"p{n}@example.org") for n in people))
    with sent(engine) as working:
        assert world.runtime.execute.work("crm").claimed == len(people)
    return {"admit": [s for s, _ in admitting], "work": [s for s, _ in working]}


@pytest.mark.parametrize("right", ["erasure", "access"])
def test_admitting_claiming_and_settling_a_hundred_costs_what_ten_cost(make_world: MakeWorld, right: str) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    cost(world, range(1000, 1002), right)  # the first use of a connection asks for this and that
    world.rows("UPDATE step SET state = 'done'")
    ten = cost(world, range(10), right)
    world.rows("UPDATE step SET state = 'done'")
    hundred = cost(world, range(100, 200), right)
    for stage, ceiling in CEILING.items():
        assert sorted(map(kind, hundred[stage])) == sorted(map(kind, ten[stage])), stage
        assert len(hundred[stage]) <= ceiling, "\n".join(hundred[stage])


def test_the_sweep_wakes_a_hundred_with_one_statement(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(100)))
    world.rows("UPDATE step SET state = 'parked', parked_for = 'retry', due = now() - interval '1 s'")
    with sent(world.runtime.database.engine) as seen:
        world.tick()
    assert sum("UPDATE step" in s for s, _ in seen) == 1
    assert world.one("SELECT count(*) FROM step WHERE state = 'ready'") == 100


def test_a_system_is_called_once_for_all_who_are_ready(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(100)))
    world.work()
    assert [len(batch) for batch in world.connector("crm").calls] == [100]
