"""Law 4: a worker that was paused, killed or cut off can never overwrite what its successor did."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

from connectors.contract import Done, Outcome, Task
from tests.support.scripted import Scripted, system
from tests.support.worlds import ONE_STEP, MakeWorld, counts


def test_the_result_of_a_worker_that_lost_its_lease_is_not_taken(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    slow, quick = world.runtime, world.another()
    quick.register_systems()
    connector = quick.definitions.connectors["crm"]
    assert isinstance(connector, Scripted)
    connector.on("ada@example.org", Done(Outcome.EXECUTED, note="the successor"))

    def overtaken(_: Sequence[Task]) -> None:
        """While the slow worker hangs in its call, its lease runs out and another takes the step to its end."""
        world.later(timedelta(hours=1))
        slow.sweep.tick()
        assert quick.execute.work("crm").claimed == 1

    world.connector("crm").during = overtaken
    world.connector("crm").on("ada@example.org", Done(Outcome.NO_MATCH, note="too late"))
    worked = slow.execute.work("crm")
    quick.close()
    assert len(worked.advanced.fenced) == 1
    assert world.steps(request)["erase@crm"].result["note"] == "the successor"
    assert world.told(request) == ["accepted", "completed"]
    assert world.one("SELECT fenced FROM connector_state WHERE system = 'crm'") == 1
    keys = {t.key for t in (*connector.calls[0], *world.connector("crm").calls[0])}
    assert len(keys) == 1, "the idempotency key is the same on every attempt"


def test_the_claim_is_committed_before_the_system_is_touched(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    seen: list[tuple[object, ...]] = []
    other = world.another()

    def look(_: Sequence[Task]) -> None:
        """From another session: only what is committed shows."""
        with other.database.transaction() as tx:
            rows = tx.exec_driver_sql("SELECT state, attempt, token IS NOT NULL, lease_until > now() FROM step")
            seen.extend(tuple(r) for r in rows)

    world.connector("crm").during = look
    world.work()
    other.close()
    assert seen == [("running", 1, True, True)]


def test_every_claim_has_a_token_of_its_own(make_world: MakeWorld) -> None:
    world = make_world(system("crm", batch=1), workflows=[ONE_STEP])
    for n in range(20):
        world.ask("erasure", f"p{n}@example.org")
    assert len({world.claim("crm")[0].token for _ in range(20)}) == 20


def test_of_two_workers_that_settle_the_same_step_at_once_exactly_one_counts(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    meet = threading.Barrier(2, timeout=20)
    fenced: list[int] = []

    def together(_: Sequence[Task]) -> None:
        meet.wait()

    def worker() -> None:
        runtime = world.another()
        connector = runtime.definitions.connectors["crm"]
        assert isinstance(connector, Scripted)
        connector.during = together
        fenced.append(len(runtime.execute.work("crm").advanced.fenced))
        runtime.close()

    first = threading.Thread(target=worker)
    first.start()
    while not world.rows("SELECT 1 FROM step WHERE state = 'running'"):
        pass
    world.rows("UPDATE step SET state = 'ready', token = NULL, lease_until = NULL")
    second = threading.Thread(target=worker)
    second.start()
    first.join()
    second.join()
    assert sorted(fenced) == [0, 1]
    assert counts(world.rows("SELECT kind FROM outbox")) == {"accepted": 1, "completed": 1}
