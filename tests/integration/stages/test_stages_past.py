"""Requests closed long ago: their steps go into the audit trail, and everything said of them stays true."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from connectors.contract import Done, Outcome, Residue, Retention
from orchestrator.cli.why import explain
from orchestrator.core import events as ev
from orchestrator.core import model
from orchestrator.core import vocabulary as words
from orchestrator.errors import Conflict
from orchestrator.privacy.audit import public_keys
from orchestrator.stages import sweep
from orchestrator.stages.advance import Happening
from orchestrator.store import queries, trail
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, delivery, said

LONG = timedelta(days=100)
RETAINED = Retention("invoices", "to be kept by law", "GDPR Art. 17(3)(b)", 3, date(2031, 1, 1))
RICH = Done(
    Outcome.RETAINED,
    {"orders": 2, "profile": 1},
    retained=(RETAINED, Retention("notes", "a claim is pending", "GDPR Art. 17(3)(e)", 1)),
    residues=(Residue("nightly backup", date(2027, 1, 31)),),
    evidence={"job": "x-1", "seconds": 0.1 + 0.2, "large": 1e22, "tiny": 1e-7, "none": None, "text": "ü\\ \"'\n"},
    note="kept: see the reasons",
)


def look(world: World, request: UUID) -> queries.Detail:
    with world.runtime.database.transaction() as tx:
        return queries.detail(tx, request)


def told(detail: queries.Detail) -> list[Any]:
    """What is shown of each step."""
    return [(s.ordinal, s.name, s.system, s.action, s.state, s.attempt, s.result) for s in detail.run.steps]


def faults(world: World) -> list[str]:
    """Of all chains and all signed checkpoints."""
    with world.runtime.database.transaction() as tx:
        chains = [v.fault for v in trail.verify(tx)]
        checkpoints = [c.fault for c in trail.checkpoints(tx, public_keys(world.runtime.masters))]
    assert chains
    return [f for f in chains + checkpoints if f]


def age(world: World) -> None:
    """What is due after a long time is due, first its sealed data and then its steps; what is signed keeps its date."""
    world.rows("UPDATE request SET shred_at = now() WHERE shred_at IS NOT NULL")
    world.runtime.sweep.purge()
    world.rows("UPDATE request SET fold_at = now() WHERE fold_at IS NOT NULL")
    world.runtime.sweep.purge()


def test_what_is_shown_of_an_old_request_is_what_was_shown_before_its_steps_were_folded(make_world: MakeWorld) -> None:
    world = make_world(system("crm", discovers=["user_id"]), system("shop"))
    world.connector("shop").on("ada@example.org", Done(Outcome.EXECUTED, evidence={}), RICH)
    request = world.ask("erasure", "ada@example.org")
    world.work()
    before = look(world, request)
    assert any(s.result is not None and len(s.result.retained) == 2 for s in before.run.steps)
    age(world)
    assert world.one("SELECT count(*) FROM step") == 0
    after = look(world, request)
    assert told(after) == told(before)
    for ordinal, times in before.times.items():
        assert abs(after.times[ordinal].changed_at - times.changed_at) < timedelta(seconds=2)
    with world.runtime.database.transaction() as tx:
        assert "completed" in explain(tx, request, dict(world.runtime.definitions.systems)).summary
        assert [r.id for r in queries.requests(tx).requests] == [request]


def test_steps_of_a_cancelled_request_that_never_ran_are_told_of_too(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop"))
    request = world.ask("erasure", "ada@example.org")
    world.runtime.operate.apply(request, ev.CancelAsked("eve", "asked twice"))
    before = look(world, request)
    assert {s.result.outcome for s in before.run.steps if s.result} == {words.Outcome.SKIPPED}
    age(world)
    assert told(look(world, request)) == told(before)


def test_a_step_whose_chain_says_something_else_is_told_of_as_its_row_was(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", RICH)
    request = world.ask("erasure", "ada@example.org")
    world.work()
    world.rows("UPDATE step SET result = result - 'note' - 'evidence', name = 'forget', attempt = 3")
    before = look(world, request)
    age(world)
    assert told(look(world, request)) == told(before)


def test_the_chain_and_its_checkpoints_hold_before_and_after_and_a_forged_past_shows(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    age(world)
    assert faults(world) == []
    [last] = world.rows("SELECT what FROM audit WHERE request_id = :id ORDER BY seq DESC LIMIT 1", id=request)
    assert last.what == "folded"
    world.rows("UPDATE audit SET facts = replace(facts::text, 'crm', 'shop')::jsonb WHERE what = 'folded'")
    assert len(faults(world)) == 1


def test_a_checkpoint_signed_before_holds_after_and_the_next_covers_what_was_folded(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SETTLED", timedelta(0))
    world = make_world(system("crm"))
    world.ask("erasure", "ada@example.org")
    world.work()
    assert world.runtime.sweep.checkpoint() > 1
    age(world)
    assert world.runtime.sweep.checkpoint() == 1
    assert faults(world) == []
    world.rows("DELETE FROM audit WHERE what = 'folded'")
    assert len(faults(world)) == 2  # the chain's head, and the checkpoint


def test_steps_stay_as_long_as_the_setting_says_and_no_shorter_than_the_sealed_data(make_world: MakeWorld) -> None:
    short = {**ONE_STEP, "keep_days": 10}
    world = make_world(system("crm"), workflows=[short], steps_keep_days=20)
    world.ask("erasure", "ada@example.org")
    world.work()
    for days, steps in ((11, 1), (8, 1), (2, 0)):
        world.later(timedelta(days=days))
        world.runtime.sweep.purge()
        assert world.one("SELECT count(*) FROM step") == steps


def test_where_sealed_data_is_kept_longer_steps_go_with_it(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[{**ONE_STEP, "keep_days": 30}], steps_keep_days=0)
    world.ask("erasure", "ada@example.org")
    world.work()
    world.later(timedelta(days=29))
    world.runtime.sweep.purge()
    assert world.one("SELECT count(*) FROM step") == 1
    world.later(timedelta(days=2))
    purged = world.runtime.sweep.purge()
    assert (purged.requests, purged.folded) == (1, 1)
    assert world.one("SELECT count(*) FROM step") == 0


def test_an_open_request_keeps_its_steps_however_old_it_is(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    world.later(timedelta(days=1000))
    world.rows("UPDATE request SET fold_at = now() - interval '1 day'")  # nothing writes that
    assert world.runtime.sweep.purge().folded == 0
    assert world.one("SELECT count(*) FROM step") == 1


def test_a_flood_is_folded_a_batch_at_a_time(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for n in range(5):
        world.ask("erasure", f"p{n}@example.org")
    world.work()
    world.later(LONG)
    while world.runtime.sweep.purge().more:
        pass
    world.rows("UPDATE request SET fold_at = now()")
    monkeypatch.setattr(sweep, "FOLD", 2)
    assert [world.runtime.sweep.purge().folded for _ in range(4)] == [2, 2, 1, 0]
    assert world.broken_links() == {}


def test_a_message_that_comes_again_after_all_that_time_is_known(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org", message_id="m-1")
    world.work()
    age(world)
    assert world.admit(delivery("erasure", "ada@example.org", message_id="m-1")).repeated == [request]
    other = world.admit(delivery("erasure", "bob@example.org", message_id="m-1"))
    assert [str(r.reason) for r in other.refused] == ["conflicting_replay"]
    assert len(world.connector("crm").calls) == 1


def test_a_worker_that_wakes_up_after_all_that_time_changes_nothing_and_stops_nobody(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    [late] = world.claim("crm")
    world.later(timedelta(minutes=1))
    world.tick()
    world.work()
    age(world)
    fresh = world.ask("erasure", "bob@example.org")
    [one] = world.claim("crm")
    done = model.Result(words.Outcome.EXECUTED)
    happenings = [Happening(c.request, ev.Finished(c.step.ordinal, c.token, done)) for c in (late, one)]
    advanced = world.runtime.settle.settle(said(world.runtime, "crm", happenings))
    assert [h.request for h in advanced.fenced] == [request]
    assert world.resolution(fresh) == "completed"
    with pytest.raises(Conflict, match="closed"):
        world.runtime.operate.apply(request, ev.RetryAsked(0, "eve"))
    assert faults(world) == []
