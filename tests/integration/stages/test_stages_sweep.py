"""What time brings: timers, lost workers, lost doorbells, shredding, checkpoints; and the end of legal holds."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import pytest
from sqlalchemy import text

from connectors.contract import Call, Done, Outcome, Pending, Result, Task
from orchestrator.core.model import Identity
from orchestrator.errors import NotFound
from orchestrator.privacy.audit import public_keys, verify_checkpoint
from orchestrator.stages import sweep
from orchestrator.stages.heartbeat import Heartbeat
from orchestrator.store import claims, trail
from tests.support.deployment import eventually
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, delivery

# Leases. -------------------------------------------------------------------------------------------------------------


def test_a_heartbeat_extends_the_lease_while_the_work_goes_on(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    [one] = world.claim("crm", lease=timedelta(seconds=1))
    first = world.one("SELECT lease_until FROM step")
    with Heartbeat(world.runtime.database, timedelta(seconds=0.3)).holding(one.token):
        eventually(lambda: world.one("SELECT lease_until FROM step") != first, "the lease is extended")
    with world.runtime.database.transaction() as tx:
        assert claims.extend(tx, [one.token], timedelta(hours=1)) == 1
        assert claims.extend(tx, [uuid4()], timedelta(hours=1)) == 0
    assert world.tick().rings == {}


def test_a_step_whose_worker_is_lost_comes_back_alone_and_wants_attention_after_the_last_time(
    make_world: MakeWorld,
) -> None:
    world = make_world(system("crm", retry={"crashes": 3}), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    for crashes in (1, 2):
        assert len(world.claim("crm")) == 1
        world.later(timedelta(minutes=1))
        assert world.tick().rings["crm"] >= 1
        row = world.steps(request)["erase@crm"]
        assert (row.state, row.crashes, row.token) == ("ready", crashes, None)
    world.claim("crm")
    world.later(timedelta(minutes=1))
    world.tick()
    row = world.steps(request)["erase@crm"]
    assert (row.state, row.crashes, row.failure) == ("attention", 3, "crashed")
    assert world.told(request) == ["accepted", "waiting"]
    assert world.broken_links() == {}


def test_a_lease_in_force_is_left_alone(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    world.claim("crm", lease=timedelta(seconds=30))
    world.later(timedelta(seconds=20))
    assert world.tick().rings == {}
    assert world.one("SELECT state FROM step") == "running"


# Timers and doorbells. -----------------------------------------------------------------------------------------------


def test_a_due_timer_of_a_paused_request_waits_for_the_resume(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", Pending({"job": 1}, timedelta(hours=1)))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    world.runtime.operate.pause(request, "ops", "asked by legal")
    world.later(timedelta(hours=2))
    assert world.tick().rings == {}
    row = world.steps(request)["erase@crm"]
    assert (row.state, row.parked_for) == ("parked", "pause")
    assert world.runtime.operate.resume(request, "ops").rings == {"crm": 1}
    world.work()
    assert world.resolution(request) == "completed"


def test_a_timer_never_overtakes_a_pause_that_is_being_written(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", Pending({"job": 1}, timedelta(hours=1)))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    world.later(timedelta(hours=2))
    with world.another().database.transaction() as operator:
        operator.execute(text("UPDATE request SET paused = true WHERE id = :id"), {"id": request})
        assert world.tick().rings == {}
    assert world.states(request) == {"erase@crm": "parked"}


def test_a_lost_doorbell_is_rung_again(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    assert world.tick().rings == {"crm": 1, "shop": 1}
    world.work("crm")
    assert world.tick().rings == {"shop": 1}


# Retention. ----------------------------------------------------------------------------------------------------------


def test_a_system_that_is_gone_is_not_rung_for(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    world.rows("UPDATE step SET system = 'gone'")
    world.rows("INSERT INTO connector_state (system) VALUES ('gone')")
    assert world.tick().rings == {}


def test_a_round_of_the_clock_is_planned_once_and_not_each_time(make_world: MakeWorld) -> None:
    """With millions of steps a plan for the values of the day can look cheaper, and takes longer than to answer."""
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for _ in range(20):
        world.tick()
    asked = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '% step%'"
    plans = [(row.generic_plans, row.custom_plans) for row in world.rows(asked)]
    assert len(plans) == 3, "timers, leases, doorbells"
    assert all(general >= 10 and special == 0 for general, special in plans), plans


def test_past_its_keeping_a_request_can_no_longer_be_read_and_its_files_are_gone(make_world: MakeWorld) -> None:
    world = make_world(system("crm", discovers=["user_id"]))

    def much(task: Task, call: Call) -> Result:
        call.sink(task).attach("portrait", [os.urandom(400_000)])
        return Done(Outcome.EXECUTED)

    world.connector("crm").on("ada@example.org", Done(Outcome.NO_MATCH), much)
    request = world.ask("access", "ada@example.org")
    world.work()
    assert world.resolution(request) == "completed"
    folder = world.folder / "artifacts"
    assert len(list(folder.iterdir())) == 2
    world.later(timedelta(days=29))
    assert world.runtime.sweep.purge().requests == 0
    world.later(timedelta(days=2))
    assert world.runtime.sweep.purge().requests == 1
    assert world.runtime.sweep.purge().requests == 0
    assert list(folder.iterdir()) == []
    for table in ("request_secret", "finding", "artifact"):
        assert world.one(f"SELECT count(*) FROM {table}") == 0
    assert world.one("SELECT count(*) FROM request") == 1
    assert world.broken_links() == {}


def test_a_flood_is_purged_a_batch_at_a_time_so_that_nothing_waits_for_the_end_of_it(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for n in range(5):
        world.ask("erasure", f"p{n}@example.org")
    world.admit(*(delivery("oblivion", f"p{n}@example.org") for n in range(3)))
    world.work()
    world.rows("DELETE FROM unpublished")
    world.later(timedelta(days=31))
    monkeypatch.setattr(sweep, "BATCH", 2)
    rounds = []
    while True:
        rounds.append(world.runtime.sweep.purge())
        left = [world.one(f"SELECT count(*) FROM {t}") for t in ("request_secret", "outbox", "quarantine")]
        if not rounds[-1].more:
            break
    assert [r.requests for r in rounds] == [2, 2, 1, 0, 0, 0, 0]  # 13 events take the longest
    assert left == [0, 0, 0]


def test_a_step_of_a_shredded_request_is_never_tried(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    world.rows("DELETE FROM request_secret")
    world.work()
    assert world.connector("crm").calls == []
    row = world.steps(request)["erase@crm"]
    assert (row.state, row.failure) == ("attention", "fatal")
    assert "shredded" in row.error


def test_partial_files_of_killed_workers_go_after_a_day(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    folder = world.folder / "artifacts"
    folder.mkdir()
    old, young = folder / "a.sealed.part", folder / "b.sealed.part"
    for path in (old, young):
        path.write_bytes(b"x")
    yesterday = time.time() - 100_000
    os.utime(old, (yesterday, yesterday))
    world.runtime.sweep.purge()
    assert list(folder.iterdir()) == [young]


def test_published_events_and_refused_messages_go_after_their_keeping(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    world.ask("access", "ada@example.org")
    world.admit(delivery("oblivion", "eve@example.org"))
    world.rows("DELETE FROM unpublished USING outbox o WHERE o.id = unpublished.id AND kind = 'accepted'")
    world.later(timedelta(days=8))
    world.runtime.sweep.purge()
    assert [r.kind for r in world.rows("SELECT kind FROM outbox")] == ["refused"]  # it was never published
    assert world.one("SELECT count(*) FROM quarantine") == 1
    world.later(timedelta(days=25))
    world.runtime.sweep.purge()
    assert world.one("SELECT count(*) FROM quarantine") == 0


# The audit. ----------------------------------------------------------------------------------------------------------

FORGERIES = {
    "an entry changed": "UPDATE audit SET facts = '{\"outcome\": \"verified\"}' WHERE what = 'settled' AND ordinal = 0",
    "a time changed": "UPDATE audit SET at = at + interval '1 s' WHERE seq = 2",
    "an entry dropped": "DELETE FROM audit WHERE seq = 2",
    "two entries swapped": "UPDATE audit SET seq = 5 - seq WHERE seq IN (2, 3)",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_the_audit_chain_holds_and_every_forgery_breaks_it(make_world: MakeWorld, forgery: str) -> None:
    world = make_world(system("crm"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    assert world.broken_links() == {}
    if "swapped" in forgery:
        world.rows("ALTER TABLE audit DROP CONSTRAINT audit_pkey")
    world.rows(FORGERIES[forgery])
    assert list(world.broken_links()) == [request]


def test_the_head_of_the_chain_stands_in_the_request_so_that_a_dropped_end_shows(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    world.ask("erasure", "ada@example.org")
    world.work()
    [head] = world.rows("SELECT audit_seq, audit_head FROM request")
    [last] = world.rows("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    assert tuple(head) == tuple(last)


def test_checkpoints_are_signed_chained_and_cover_what_is_new(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    world.ask("erasure", "ada@example.org")
    assert world.runtime.sweep.checkpoint() == 0  # not yet settled
    world.rows("UPDATE audit SET at = at - interval '2 minutes'")
    assert world.runtime.sweep.checkpoint() == world.one("SELECT count(*) FROM audit")
    assert world.runtime.sweep.checkpoint() == 0
    world.ask("access", "bob@example.org")
    world.rows("UPDATE audit SET at = at - interval '1 minute' WHERE at > now() - interval '1 minute'")
    world.rows("UPDATE audit_checkpoint SET facts = facts")
    world.runtime.sweep.checkpoint()
    checkpoints = world.rows("SELECT facts, signature FROM audit_checkpoint ORDER BY id")
    keys = public_keys(world.runtime.masters)
    for row in checkpoints:
        assert verify_checkpoint(row.facts, bytes(row.signature), keys[row.facts["key"]])
        assert not verify_checkpoint({**row.facts, "entries": 99}, bytes(row.signature), keys[row.facts["key"]])
    for before, after in pairwise(checkpoints):
        assert after.facts["previous"] == bytes(before.signature).hex()


def test_more_than_one_checkpoint_covers_is_covered_by_the_next(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for n in range(4):
        world.ask("erasure", f"p{n}@example.org")
    world.rows("UPDATE audit SET at = at - interval '2 minutes'")
    entries = world.one("SELECT count(*) FROM audit")
    monkeypatch.setattr(sweep, "COVERED", 3)
    covered = []
    while n := world.runtime.sweep.checkpoint():
        covered.append(n)
    assert sum(covered) == entries
    assert len(covered) > 1
    with world.runtime.database.transaction() as tx:
        assert [c.fault for c in trail.checkpoints(tx, public_keys(world.runtime.masters))] == [""] * len(covered)


# The ledger and legal holds. -----------------------------------------------------------------------------------------


def test_the_ledger_remembers_who_was_erased_and_nobody_else(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    world.ask("access", "bob@example.org")
    world.connector("crm").on("eve@example.org", Done(Outcome.NO_MATCH))
    world.ask("erasure", "eve@example.org")
    world.work()
    hashes = {bytes(r.hash) for r in world.rows("SELECT hash FROM ledger")}
    assert hashes == {world.runtime.ledger.hash(Identity("email", "ada@example.org"))}


def held(world: World, person: str = "ada@example.org", case: str = "case-7") -> None:
    with world.runtime.database.transaction() as tx:
        world.runtime.holds.place(tx, [Identity("email", person)], case, "legal")


def release(world: World, case: str = "case-7") -> None:
    with world.runtime.database.transaction() as tx:
        world.runtime.holds.release(tx, case)


def test_a_legal_hold_keeps_data_from_being_erased_until_it_is_released(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    held(world)
    ada, bob = world.ask("erasure", "ada@example.org"), world.ask("erasure", "bob@example.org")
    world.work()
    assert (world.resolution(ada), world.resolution(bob)) == (None, "completed")
    row = world.steps(ada)["erase@crm"]
    assert (row.state, row.waiting_on) == ("parked", "the end of legal hold case-7")
    for _ in range(3):
        world.later(timedelta(days=2))
        world.tick()
        world.work()
    assert world.told(ada) == ["accepted", "waiting"]
    assert not any("ada@example.org" in people for people in world.connector("crm").people())
    release(world)
    assert world.tick().rings["crm"] >= 1
    world.work()
    assert world.resolution(ada) == "completed"
    assert world.connector("crm").calls[-1][0].handle is None


def test_a_hold_between_two_calls_loses_neither_the_handle_nor_the_report(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", Pending({"job": 7}, None, "the archive"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    held(world)
    world.runtime.operate.report(request, 0, {"decision": "done", "actor": "archivist"})
    world.work()
    assert world.states(request) == {"erase@crm": "parked"}
    release(world)
    world.tick()
    world.work()
    task = world.connector("crm").calls[-1][0]
    assert (task.handle, task.signal) == ({"job": 7}, {"decision": "done", "actor": "archivist"})


def test_a_hold_that_is_not_there_cannot_be_released(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    with pytest.raises(NotFound, match="no hold is in force"):
        release(world)


def test_a_hold_stops_no_access(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    held(world)
    request = world.ask("access", "ada@example.org")
    world.work()
    assert world.resolution(request) == "completed"


def test_a_finished_file_that_no_row_knows_is_removed_after_a_day_and_others_stay(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    folder = world.settings.artifacts
    folder.mkdir()
    orphan, fresh, strange = (folder / name for name in (f"{'a' * 32}.sealed", f"{'b' * 32}.sealed", "notes.sealed"))
    for path in (orphan, fresh, strange):
        path.write_bytes(b"x")
    for path in (orphan, strange):
        os.utime(path, (0, 0))
    world.runtime.sweep.purge()
    assert sorted(p.name for p in folder.iterdir()) == sorted([fresh.name, strange.name])
