"""Execute and settle: what connectors say becomes what is stored, once, and only under a lease in force."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from connectors.contract import (
    Call,
    Declined,
    Done,
    Fatal,
    Outcome,
    Pending,
    RateLimited,
    Result,
    Retryable,
    Task,
    Unauthorised,
)
from orchestrator import logs
from orchestrator.core import events as ev
from orchestrator.core.model import Result as CoreResult
from orchestrator.core.vocabulary import Outcome as CoreOutcome
from orchestrator.errors import Unavailable
from orchestrator.stages.advance import Happening
from orchestrator.stages.settle import Settle
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, counts, delivery, said


def finished(claimed: object) -> Happening:
    one = claimed
    return Happening(one.request, ev.Finished(one.step.ordinal, one.token, CoreResult(CoreOutcome.EXECUTED)))  # type: ignore[attr-defined]


def kept(world: World) -> list[object]:
    return [world.rows(f"SELECT * FROM {table}") for table in ("step", "request", "audit", "outbox", "ledger")]


def settle(world: World, *happenings: Happening) -> object:
    runtime = world.runtime
    return Settle(runtime.database, runtime.advance, patience=1.0).settle(said(runtime, "crm", happenings))


def test_a_request_is_carried_out_to_its_end(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop", discovers=["user_id"]), system("ads", identified_by=["user_id"]))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    assert world.resolution(request) == "completed"
    assert world.told(request) == ["accepted", "completed"]
    [task] = world.connector("ads").calls[-1]
    assert task.values("user_id") == ("user_id-of-ada@example.org",)
    assert all(n == 1 for name in ("crm", "shop", "ads") for n in world.connector(name).effects.values())
    assert world.one("SELECT count(*) FROM ledger") == 2
    assert world.broken_links() == {}


def test_a_batch_of_people_goes_to_the_system_in_one_call(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(40)))
    world.work()
    assert [len(batch) for batch in world.connector("crm").calls] == [40]


def test_a_settle_with_a_stale_token_changes_nothing_and_is_counted(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    [late] = world.claim("crm")
    world.later(timedelta(minutes=1))
    world.tick()
    [current] = world.claim("crm")
    before = kept(world)
    advanced = settle(world, finished(late))
    assert len(advanced.fenced) == 1  # type: ignore[attr-defined]
    assert before == kept(world)
    assert world.one("SELECT fenced FROM connector_state WHERE system = 'crm'") == 1
    settle(world, finished(current))
    assert world.resolution(request) == "completed"
    settle(world, finished(current))
    assert world.told(request) == ["accepted", "completed"]
    assert world.one("SELECT fenced FROM connector_state WHERE system = 'crm'") == 2


def test_of_two_events_for_one_step_in_a_batch_the_first_counts(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    [one] = world.claim("crm")
    other = Happening(one.request, ev.Finished(0, one.token, CoreResult(CoreOutcome.SKIPPED)))
    settle(world, finished(one), other)
    assert world.resolution(request) == "completed"


def test_a_happening_of_a_request_that_is_not_there_is_fenced(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    stray = Happening(uuid4(), ev.Finished(0, uuid4(), CoreResult(CoreOutcome.EXECUTED)))
    assert settle(world, stray).fenced == [stray]  # type: ignore[attr-defined]


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_settle_whose_commit_is_cut_lands_exactly_once(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, *, after_commit: bool
) -> None:
    """The connection dies at COMMIT: before the server has it, or after, when only the answer is lost."""
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    [one] = world.claim("crm")
    cut: list[int] = []
    execute = psycopg.Connection.execute

    def cut_the_line(connection: psycopg.Connection, query: str, *values: object, **how: object) -> object:
        if cut or query != "COMMIT":
            return execute(connection, query, *values, **how)  # type: ignore[call-overload]
        cut.append(connection.info.backend_pid)
        if after_commit:
            execute(connection, query)
            with connection.pipeline():
                pass  # until it is done
        with world.another().database.transaction() as tx:
            tx.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": cut[0]})
        return None if after_commit else execute(connection, query)

    monkeypatch.setattr(psycopg.Connection, "execute", cut_the_line)
    advanced = settle(world, finished(one))
    assert len(cut) == 1
    assert len(advanced.fenced) == int(after_commit)  # type: ignore[attr-defined]
    assert world.resolution(request) == "completed"
    assert world.told(request) == ["accepted", "completed"]
    assert world.broken_links() == {}


def test_a_settle_keeps_no_claim_from_what_is_ready_in_the_same_runs(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop"))
    requests = world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(3))).accepted
    claimed = world.claim("crm")
    with world.runtime.database.transaction() as tx:
        world.runtime.advance.apply(tx, [finished(one) for one in claimed])
        assert len(world.claim("shop")) == 3
    world.later(timedelta(minutes=1))
    world.tick()
    world.work()
    assert {world.resolution(r) for r in requests} == {"completed"}


def test_what_a_claim_passed_over_while_an_operator_acted_is_rung_for_afterwards(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("shop"))
    request = world.ask("erasure", "ada@example.org")
    [crm] = [s.ordinal for name, s in world.steps(request).items() if name.endswith("@crm") and s.state == "ready"]
    with world.runtime.database.transaction() as tx:
        advanced = world.runtime.advance.apply(tx, [Happening(request, ev.SkipAsked(crm, "ops", "done on paper"))])
        assert len(world.claim("shop")) == 0, "what an operator may be stopping is not begun"
    assert advanced.rings["shop"] == 1


def test_a_settle_gives_up_when_the_database_stays_away_and_the_lease_brings_the_step_back(
    make_world: MakeWorld,
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    [one] = world.claim("crm")
    gone = world.runtime.database.url.set(port=1)
    world.runtime.database.close()
    url, world.runtime.database.url = world.runtime.database.url, gone
    with pytest.raises(Unavailable):
        settle(world, finished(one))
    world.runtime.database.close()
    world.runtime.database.url = url
    world.later(timedelta(minutes=1))
    assert world.tick().rings == {"crm": 2}


# What connectors may say. --------------------------------------------------------------------------------------------


def told_about(world: World, *behaviours: object) -> object:
    world.connector("crm").on("ada@example.org", *behaviours)  # type: ignore[arg-type]
    request = world.ask("erasure", "ada@example.org")
    world.runtime.execute.work("crm")
    return world.steps(request)["erase@crm"]


def test_a_retryable_failure_backs_off_and_is_tried_again_until_attention(make_world: MakeWorld) -> None:
    world = make_world(system("crm", retry={"attempts": 3}), workflows=[ONE_STEP])
    row = told_about(world, *[Retryable("try later", after=timedelta(minutes=7))] * 3)
    assert (row.state, row.parked_for, row.failures) == ("parked", "retry", 1)  # type: ignore[attr-defined]
    assert row.due > datetime.now(UTC) + timedelta(minutes=6)  # type: ignore[attr-defined]
    for expected in ("parked", "attention"):
        world.later(timedelta(hours=1))
        world.tick()
        world.work()
        assert world.one("SELECT state FROM step") == expected


def test_a_rate_limit_uses_up_no_attempt(make_world: MakeWorld) -> None:
    world = make_world(system("crm", retry={"attempts": 2}), workflows=[ONE_STEP])
    row = told_about(world, *[RateLimited("slow down")] * 5)
    for _ in range(4):
        world.later(timedelta(hours=1))
        world.tick()
        world.work()
    assert (row.failures, world.one("SELECT failures FROM step")) == (0, 0)  # type: ignore[attr-defined]
    world.later(timedelta(hours=1))
    world.tick()
    world.work()
    assert world.one("SELECT state FROM step") == "done"


@pytest.mark.parametrize("error", [Fatal("no such table"), Unauthorised("key expired")])
def test_what_cannot_get_better_by_itself_wants_an_operator_at_once(make_world: MakeWorld, error: Exception) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    row = told_about(world, error)
    assert (row.state, row.error) == ("attention", str(error))  # type: ignore[attr-defined]
    assert world.told(row.request_id) == ["accepted", "waiting"]  # type: ignore[attr-defined]


def test_a_connectors_defect_is_tried_again_alone_and_spares_the_others(make_world: MakeWorld) -> None:
    world = make_world(system("crm", retry={"base_seconds": 0}), workflows=[ONE_STEP])
    world.connector("crm").on("p1@example.org", *[KeyError("p1@example.org")] * 3)
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(3)))
    for _ in range(10):
        world.tick()
        world.work()
    assert [len(b) for b in world.connector("crm").calls] == [3, 1, 1, 1, 1]
    assert counts(world.rows("SELECT state FROM step")) == {"done": 2, "attention": 1}
    assert world.one("SELECT error FROM step WHERE state = 'attention'") == "the connector has a defect: KeyError"


@pytest.mark.parametrize("nonsense", [None, "done", 42])
def test_a_result_that_is_none_is_that_items_defect_alone(make_world: MakeWorld, nonsense: object) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("p1@example.org", lambda _task, _call: nonsense)  # type: ignore[arg-type,return-value]
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(3)))
    world.runtime.execute.work("crm")
    rows = world.rows("SELECT state, failure FROM step ORDER BY state")
    assert [tuple(r) for r in rows] == [("done", None), ("done", None), ("parked", "crashed")]


def test_evidence_that_json_does_not_know_is_told_in_words(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    evidence = {
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "share": float("nan"),
        "size": 1e22,
        "raw": "a\x00b\ud800",
        "n": -0.0,
    }
    row = told_about(world, Done(Outcome.EXECUTED, evidence=evidence))
    assert row.state == "done"  # type: ignore[attr-defined]
    assert row.result["evidence"]["at"].startswith("2026-01-01")  # type: ignore[attr-defined]
    assert world.broken_links() == {}


def test_a_pending_step_holds_no_worker_and_gets_its_handle_back(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    row = told_about(world, Pending({"job": 7}, timedelta(hours=2), "the vendor"))
    assert (row.state, row.waiting_on, row.token, row.lease_until) == ("parked", "the vendor", None, None)  # type: ignore[attr-defined]
    assert world.tick().rings == {}
    world.later(timedelta(hours=3))
    assert world.tick().rings == {"crm": 2}
    world.work()
    assert world.connector("crm").calls[-1][0].handle == {"job": 7}
    assert world.told(row.request_id) == ["accepted", "waiting", "completed"]  # type: ignore[attr-defined]


def test_a_gate_that_says_no_ends_the_request_and_nothing_more_begins(make_world: MakeWorld) -> None:
    flow = {
        **ONE_STEP,
        "steps": [{"id": "look", "action": "discover"}, {"id": "erase", "action": "erase", "needs": ["look"]}],
    }
    world = make_world(system("crm"), workflows=[flow])
    world.connector("crm").on("ada@example.org", Declined("suspected_fraud"))
    request = world.ask("erasure", "ada@example.org")
    world.work()
    assert world.resolution(request) == "denied"
    assert world.one("SELECT stop_reason FROM request") == "suspected_fraud"
    assert not world.connector("crm").effects


# What must never be written. -----------------------------------------------------------------------------------------


def leaky(task: Task, _call: Call) -> Result:
    return Fatal("no rows for Ada@Example.org in https://crm.example/?q=ada%40example.org&other=bob@example.org")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, as it would be written in production."""
    before = logging.getLogger().handlers[:], logging.getLogger().level
    written = io.StringIO()
    logs.configure("json", "DEBUG", written)
    yield written
    logging.captureWarnings(capture=False)
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)


def test_an_error_that_names_people_of_the_batch_never_reaches_a_row_the_audit_or_the_log(
    make_world: MakeWorld, log: io.StringIO
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("ada@example.org", leaky)
    world.connector("crm").on("bob@example.org", leaky)
    world.connector("crm").on("eve@example.org", KeyError("eve@example.org and bob@example.org"))
    world.admit(delivery("erasure", "ada@example.org"), delivery("erasure", "bob@example.org"))
    world.work()
    world.ask("erasure", "eve@example.org")
    world.work()
    assert "connector.crashed" in log.getvalue()
    kept = (world.everything_kept() + log.getvalue()).lower()
    for secret in ("ada@example", "ada%40example", "bob@example", "eve@example"):
        assert secret not in kept
    assert "[identity]" in world.one("SELECT string_agg(error, ' ') FROM step")


def test_an_identity_at_the_cut_of_a_long_error_is_not_left_in_half(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    row = told_about(world, Fatal("x" * 490 + " ada@example.org"))
    assert "ada" not in row.error  # type: ignore[attr-defined]


def test_gathered_data_is_sealed_in_the_database_and_on_disk(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))

    def much(task: Task, call: Call) -> Result:
        for n in range(3000):
            call.sink(task).write("letters", {"n": n, "text": f"Dear Ada, {uuid4()}"})
        call.sink(task).attach("portrait", [os.urandom(400_000)])
        return Done(Outcome.EXECUTED, counts={"letters": 3000})

    world.connector("crm").on("ada@example.org", Done(Outcome.NO_MATCH), much)
    request = world.ask("access", "ada@example.org")
    world.work()
    assert world.resolution(request) == "completed"
    files = list((world.folder / "artifacts").iterdir())
    assert files
    assert all(b"Dear Ada" not in f.read_bytes() for f in files)
    assert "Dear Ada" not in world.everything_kept()


def test_a_fenced_result_leaves_no_artifact_behind(make_world: MakeWorld) -> None:
    world = make_world(system("crm"))

    def lost(task: Task, call: Call) -> Result:
        call.sink(task).attach("portrait", [os.urandom(400_000)])
        world.rows("UPDATE step SET token = gen_random_uuid() WHERE state = 'running'")
        return Done(Outcome.EXECUTED)

    world.connector("crm").on("ada@example.org", Done(Outcome.NO_MATCH), lost)
    world.ask("access", "ada@example.org")
    world.work()
    assert world.one("SELECT count(*) FROM artifact") == 0
    assert list((world.folder / "artifacts").iterdir()) == []
