"""A rate holds at the moment of the call: what has not begun keeps its room, and what may not begin is handed back."""

from __future__ import annotations

import time
from typing import Any, cast

from sqlalchemy import text

from orchestrator.core.model import Identity
from tests.support.deployment import eventually
from tests.support.one_by_one import OneByOne
from tests.support.worlds import ONE_STEP, MakeWorld, World, delivery

BURST = 10


def of_one_by_one(
    make_world: MakeWorld, per_second: float, batch: int = 100, **settings: Any
) -> tuple[World, OneByOne]:
    """A world that was at rest for a while."""
    entry = {"name": "crm", "connector": "tests.support.one_by_one:OneByOne", "batch": batch}
    others = dict.fromkeys(("access", "rectify", "restrict", "suppress"), "it only forgets")
    entry |= {"cannot": others, "rate": {"per_second": per_second, "burst": BURST}}
    world = make_world(entry, workflows=[ONE_STEP], **settings)
    world.rows("UPDATE connector_state SET tokens = :n", n=BURST)
    return world, cast("OneByOne", world.runtime.definitions.connectors["crm"])


def people(world: World, n: int) -> list[str]:
    names = [f"p{i}@example.org" for i in range(n)]
    world.admit(*(delivery("erasure", name) for name in names))
    return names


def test_what_was_claimed_and_has_not_begun_keeps_its_room_in_the_bucket(make_world: MakeWorld) -> None:
    world, connector = of_one_by_one(make_world, per_second=9, batch=5)
    people(world, 30)
    free: list[float] = []
    other = world.another()

    def look(call: int) -> None:
        if call == 2:
            began = time.monotonic()
            eventually(lambda: time.monotonic() - began > 1, "there was time to fill it")
            free.append(sum(len(world.claim("crm", 5)) for _ in range(4)))

    connector.during = look
    assert world.runtime.execute.work("crm").claimed == 5
    other.close()
    assert free == [BURST - 3], "three of five had not begun"


def test_tokens_of_what_was_not_called_are_free_again(make_world: MakeWorld) -> None:
    world, connector = of_one_by_one(make_world, per_second=0.001)
    names = people(world, 4)
    with world.runtime.database.transaction() as tx:
        world.runtime.holds.place(tx, [Identity("email", name) for name in names[1:]], "case-7", "ops")
    assert world.runtime.execute.work("crm").claimed == 4
    assert connector.called == names[:1]
    [row] = world.rows("SELECT floor(tokens) AS tokens, permits FROM connector_state WHERE system = 'crm'")
    assert (row.tokens, row.permits) == (BURST - 1, {})


def test_what_wakes_up_after_its_permit_is_handed_back_and_called_later(make_world: MakeWorld) -> None:
    world, connector = of_one_by_one(make_world, per_second=100, lease_seconds=1)
    names = people(world, 5)
    other = world.another()

    def stand_still(call: int) -> None:
        if call == 2:  # nobody can say that the permit is to last
            with other.database.transaction() as tx:
                tx.execute(text("SELECT 1 FROM connector_state FOR UPDATE"))
                began = time.monotonic()
                eventually(lambda: time.monotonic() - began > 1.2, "the permit has run out")

    connector.during = stand_still
    assert world.runtime.execute.work("crm").claimed == 5
    assert len(connector.called) == 2
    assert world.one("SELECT count(*) FROM step WHERE state = 'ready' AND failures = 0 AND crashes = 0") == 3
    eventually(lambda: world.work() and len(connector.called) == 5, "the others have their turn")
    other.close()
    assert sorted(connector.called) == names
