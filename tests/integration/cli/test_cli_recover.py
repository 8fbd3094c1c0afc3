"""``habeas recover`` and ``habeas ledger export``, on a small engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core import events as ev
from orchestrator.core.model import Result
from orchestrator.core.vocabulary import Outcome
from orchestrator.runtime import Runtime
from orchestrator.stages.advance import Happening
from orchestrator.stages.settle import Settle
from tests.support.command_line import MakeCommandLine
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World, said


def settled(world: World, claimed: list[Any]) -> int:
    """A worker settles what it claimed; how many came too late."""
    runtime = world.runtime
    events = [Happening(c.request, ev.Finished(c.step.ordinal, c.token, Result(Outcome.EXECUTED))) for c in claimed]
    return len(Settle(runtime.database, runtime.advance).settle(said(runtime, "crm", events)).fenced)


def test_a_worker_from_before_the_restore_can_settle_nothing_and_its_step_is_not_blamed(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", "ada@example.org")
    held = world.claim("crm")
    told = habeas(world).json("recover", "--as", "ops")
    assert told["found"]["leases"] == 1
    assert settled(world, held) == 1
    step = world.steps(request)["erase@crm"]
    assert (step.state, step.crashes, step.token) == ("ready", 0, None)
    assert settled(world, world.claim("crm")) == 0
    assert world.resolution(request) == "completed"
    assert world.broken_links() == {}


def test_it_tells_by_system_what_may_have_been_done_and_notes_it_in_each_open_request(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), system("pay", erase_after=["crm"]))
    done = world.ask("erasure", "done@example.org")
    world.work()
    request = world.ask("erasure", "ada@example.org")
    told = habeas(world).json("recover", "--as", "ops")["found"]
    assert told["maybe_done"] == [
        {"system": "crm", "action": "erase", "running": 0, "ready": 0, "parked": 0, "attention": 0, "waiting": 1},
        {"system": "pay", "action": "erase", "running": 0, "ready": 0, "parked": 0, "attention": 0, "waiting": 1},
    ]
    assert told["open_requests"] == 1
    rows = world.rows("SELECT request_id, facts FROM audit WHERE what = 'recovered' AND facts ? 'maybe_done'")
    assert [r.request_id for r in rows] == [request]
    assert rows[0].facts["actor"] == "ops"
    assert len(rows[0].facts["maybe_done"]) == 2
    assert world.resolution(done) == "completed"


def test_breakers_close_and_rate_tokens_start_at_none(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm", rate={"per_second": 0.001, "burst": 5}), workflows=[ONE_STEP])
    world.rows("UPDATE connector_state SET tokens = 5, failures = 9, breaker_until = now() + interval '1 h'")
    world.ask("erasure", "ada@example.org")
    habeas(world)("recover", "--as", "ops")
    assert world.claim("crm") == []
    assert world.rows("SELECT failures, breaker_until FROM connector_state WHERE system = 'crm'") == [(0, None)]


def test_a_dry_run_changes_nothing(make_world: MakeWorld, habeas: MakeCommandLine, tmp_path: Path) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "gone@example.org")
    world.work()
    file = tmp_path / "ledger.jsonl"
    habeas(world)("ledger", "export", "--out", file)
    world.rows("DELETE FROM ledger")
    world.ask("erasure", "ada@example.org")
    world.claim("crm")
    before = world.everything_kept()
    told = habeas(world).json("recover", "--dry-run", "--ledger", file)
    assert (told["dry_run"], told["ledger"]["missing"]) == (True, 1)
    assert world.everything_kept() == before


def test_it_refuses_while_a_worker_is_connected(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"))
    worker = Runtime(world.settings, "habeas worker")
    worker.database.ping()
    assert "still connected: habeas worker" in habeas(world)("recover", "--as", "ops", code=1).stderr
    worker.close()
    habeas(world)("recover", "--as", "ops")


def test_erasures_that_the_backup_does_not_know_are_found_in_the_exported_ledger(
    make_world: MakeWorld, habeas: MakeCommandLine, tmp_path: Path
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    file = tmp_path / "ledger.jsonl"
    world.ask("erasure", "before@example.org")
    reopened = world.ask("erasure", "open@example.org")
    lost = world.ask("erasure", "lost@example.org", message_id="m-lost")
    world.work()
    habeas(world)("ledger", "export", "--out", file)
    habeas(world)("ledger", "export", "--out", file)
    assert "lost@example.org" not in file.read_text()
    forget(world, lost)
    world.rows("UPDATE request SET resolution = NULL, closed_at = NULL WHERE id = :id", id=reopened)
    world.rows("DELETE FROM ledger WHERE request_id IN (:a, :b)", a=lost, b=reopened)
    told = habeas(world).json("recover", "--ledger", file, "--as", "ops")["ledger"]
    [forgotten] = told["forgotten"]
    assert (forgotten["request"], forgotten["message_id"]) == (str(lost), "m-lost")
    assert told["open_again"] == [str(reopened)]
    kept = {r.request_id for r in world.rows("SELECT request_id FROM ledger")}
    assert {lost, reopened} <= kept
    assert len(kept) == 3


def test_since_leaves_out_what_the_ledger_held_before(
    make_world: MakeWorld, habeas: MakeCommandLine, tmp_path: Path
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    world.work()
    file, later = tmp_path / "ledger.jsonl", (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    habeas(world)("ledger", "export", "--out", file)
    assert len(file.read_text().splitlines()) == 1
    told = habeas(world).json("recover", "--dry-run", "--ledger", file, "--since", later)
    assert told["ledger"]["entries"] == 0
    habeas(world)("ledger", "export", "--out", tmp_path / "none", "--since", later)
    assert (tmp_path / "none").read_text() == ""


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", json.dumps({"hash": "zz", "request": "x", "at": "y"})])
def test_a_file_that_is_no_ledger_is_refused_by_its_line_and_nothing_changes(
    make_world: MakeWorld, habeas: MakeCommandLine, tmp_path: Path, line: str
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    world.claim("crm")
    file = tmp_path / "ledger.jsonl"
    file.write_text(f"\n{line}\n")
    assert "line 2 of the ledger file" in habeas(world)("recover", "--ledger", file, code=1).stderr
    assert world.one("SELECT count(*) FROM step WHERE state = 'running'") == 1


def test_the_table_says_what_only_the_operator_can_put_back(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", "ada@example.org")
    said = habeas(world)("recover", "--as", "ops").stdout
    assert "holds and pauses placed since" in said
    assert "may have been done since" in said
    assert "ada@example.org" not in said


def forget(world: World, request: object) -> None:
    """As if it had come after the backup."""
    for table in ("finding", "artifact", "request_secret", "step"):
        world.rows(f"DELETE FROM {table} WHERE request_id = :id", id=request)
    world.rows("DELETE FROM request WHERE id = :id", id=request)
