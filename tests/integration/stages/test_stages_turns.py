"""Fair turns: a source that floods must not keep the others waiting."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.store import turns
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, SOURCE, MakeWorld, World, delivery, write

QUIET = "urn:test:quiet"


def two_sources(make_world: MakeWorld) -> World:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    known = {"unsigned": "allowed", "trusted_to_verify": True, "regulation": "gdpr"}
    write(world.folder / "sources.yaml", {"sources": [{"source": s, **known} for s in (SOURCE, QUIET)]})
    return world


def test_one_request_of_a_quiet_source_is_served_before_the_tail_of_a_flood(make_world: MakeWorld) -> None:
    world = two_sources(make_world)
    world.admit(*(delivery("erasure", f"p{i}@example.org") for i in range(200)))
    [quiet] = world.admit(delivery("erasure", "q@example.org", source=QUIET)).accepted
    assert quiet in {c.request for c in world.claim("crm", 10)}


def test_within_a_source_the_order_is_that_of_arrival(make_world: MakeWorld) -> None:
    world = two_sources(make_world)
    asked = world.admit(*(delivery("erasure", f"p{i}@example.org") for i in range(30))).accepted
    asked += world.admit(*(delivery("erasure", f"r{i}@example.org") for i in range(30))).accepted
    served = [c.request for _ in range(6) for c in world.claim("crm", 10)]
    assert [set(asked[n : n + 10]) for n in range(0, 60, 10)] == [set(served[n : n + 10]) for n in range(0, 60, 10)]


def test_no_request_stands_back_by_more_than_a_day(make_world: MakeWorld) -> None:
    world = two_sources(make_world)
    with world.runtime.database.transaction() as tx:
        for _ in range(3):
            turns.take(tx, {SOURCE: 100_000})
    request = world.ask("erasure", "p@example.org")
    [row] = world.rows("SELECT rank - deadline AS back FROM step WHERE request_id = :id", id=request)
    assert timedelta(hours=23) < row.back <= turns.FURTHEST


def test_a_source_that_rests_gets_its_turns_back(make_world: MakeWorld) -> None:
    world = two_sources(make_world)
    world.admit(*(delivery("erasure", f"p{i}@example.org") for i in range(100)))
    world.rows("UPDATE turn SET taken_until = taken_until - interval '10 minutes'")
    request = world.ask("erasure", "later@example.org")
    assert world.one("SELECT rank - deadline FROM step WHERE request_id = :id", id=request) == timedelta()
