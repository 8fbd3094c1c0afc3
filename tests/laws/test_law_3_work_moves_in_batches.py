"""Law 3: a batch costs a handful of statements, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, delivery


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    engine = world.runtime.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


CEILING = {"admit": 12, "work": 30}
"""The most statements that one batch may take, in one step of its way."""


def kind(statement: str) -> str:
    """A statement by its beginning: how its values go over the wire is not what is counted."""
    return " ".join(statement.split())[:25]


def cost(world: World, people: range, right: str) -> dict[str, list[str]]:
    with statements(world) as admitting:
        world.admit(*(delivery(right, f"p{n}@example.org") for n in people))
    with statements(world) as working:
        assert world.runtime.execute.work("crm").claimed == len(people)
    return {"admit": admitting, "work": working}


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
    with statements(world) as seen:
        world.tick()
    assert sum("UPDATE step" in s for s in seen) == 1
    assert world.one("SELECT count(*) FROM step WHERE state = 'ready'") == 100


def test_a_system_is_called_once_for_all_who_are_ready(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(100)))
    world.work()
    assert [len(batch) for batch in world.connector("crm").calls] == [100]
