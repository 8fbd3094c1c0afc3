"""The audit trail is proven from the command line, and every way of tampering with it is found."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.privacy import audit as chain
from orchestrator.privacy.audit import Checkpoints
from orchestrator.store import bulk, tables, trail
from orchestrator.store.runs import audit_entry
from tests.support.command_line import CommandLine, MakeCommandLine
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, MakeWorld, World

MAIL = "ada@example.org"


def audited(make_world: MakeWorld, habeas: MakeCommandLine) -> tuple[World, CommandLine, str]:
    """Three closed requests, all covered by one checkpoint, and a note about a system that none covers."""
    world = make_world(system("crm"), workflows=[ONE_STEP])
    asked = [str(world.ask("erasure", f"p{n}@example.org")) for n in range(3)]
    world.work()
    # Entries of a minute ago are covered; these are of now. Times are part of what is hashed, so the clock is moved.
    covered_at = world.one("SELECT max(at) FROM audit")
    assert world.runtime.sweep.checkpoint() == 0
    checkpoint(world, covered_at)
    run = habeas(world)
    run("pause", "--system", "crm", "--reason", "a migration")
    return world, run, asked[0]


def checkpoint(world: World, until: Any) -> None:
    """Sign what the clock would sign a minute later."""
    signer = Checkpoints(world.runtime.masters)
    with world.runtime.database.transaction() as tx:
        last = tx.execute(text("SELECT facts, signature FROM audit_checkpoint ORDER BY id DESC LIMIT 1")).one_or_none()
        since = last.facts["at"] if last else "-infinity"
        row = tx.execute(trail.HEADS, {"since": since, "until": until}).one()
        facts = {
            "at": until.isoformat(),
            "since": since,
            "entries": row.requests,
            "digest": row.digest,
            "previous": last.signature.hex() if last else "",
            "key": signer.key_id,
        }
        bulk.insert(tx, tables.audit_checkpoint, [{"at": until, "facts": facts, "signature": signer.sign(facts)}])


def test_an_untouched_trail_holds_one_by_one_and_as_a_whole(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    _, run, request = audited(make_world, habeas)
    assert run.json("audit", "verify", request) == {
        "chains": 1, "entries": 3, "checkpoints": 0, "broken": 0, "faults": [],
    }  # fmt: skip
    told = run.json("audit", "verify", "--all")
    assert (told["chains"], told["entries"], told["checkpoints"], told["broken"]) == (4, 10, 1, 0)
    assert "everything holds" in run("audit", "verify", "--all").output
    run("audit", "verify", code=2)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ('UPDATE audit SET facts = \'{"outcome": "executed"}\' WHERE request_id = :id AND seq = 2', "entry 2: "),
        ("UPDATE audit SET at = at + interval '1 s' WHERE request_id = :id AND seq = 1", "entry 1: "),
        ("DELETE FROM audit WHERE request_id = :id AND seq = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE request_id = :id AND seq = 3", "its request remembers 3 entries, and there are 2"),
        ("UPDATE request SET audit_head = '\\x00' WHERE id = :id", "the last entry is not the one"),
    ],
)
def test_a_changed_or_missing_entry_is_found_where_it_is(
    make_world: MakeWorld, habeas: MakeCommandLine, statement: str, fault: str
) -> None:
    world, run, request = audited(make_world, habeas)
    world.rows(statement, id=request)
    (told,) = run.json("audit", "verify", request, code=1)["faults"]
    assert told["what"] == f"chain {request}"
    assert told["fault"].startswith(fault)
    assert f"chain {request}" in [f["what"] for f in run.json("audit", "verify", "--all", code=1)["faults"]]


def test_a_chain_that_is_gone_altogether_is_found(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world, run, request = audited(make_world, habeas)
    world.rows("DELETE FROM audit WHERE request_id = :id", id=request)
    assert run.json("audit", "verify", request, code=1)["faults"][0]["fault"] == "all its entries are missing"
    faults = {f["what"]: f["fault"] for f in run.json("audit", "verify", "--all", code=1)["faults"]}
    assert faults == {
        f"chain {request}": "its request remembers 3 entries, and there are 0",
        "checkpoint 1": "entries that it covers were changed, added or removed since",
    }


def test_whoever_rewrites_a_whole_chain_is_found_by_the_checkpoint(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world, run, request = audited(make_world, habeas)
    rewrite(world, request)
    assert run.json("audit", "verify", request)["broken"] == 0
    (told,) = run.json("audit", "verify", "--all", code=1)["faults"]
    assert told["what"] == "checkpoint 1"


def rewrite(world: World, request: str) -> None:
    """What somebody would do who can write to every table: leave an entry out, and make all hashes fit again."""
    world.rows("UPDATE audit SET facts = '{}' WHERE request_id = :id AND seq = 2", id=request)
    head = chain.GENESIS
    for r in world.rows("SELECT * FROM audit WHERE request_id = :id ORDER BY seq", id=request):
        head = chain.link(head, audit_entry(r.request_id, r.seq, r.at, r.what, r.ordinal, r.facts))
        update = "UPDATE audit SET hash = :head WHERE request_id = :id AND seq = :seq"
        world.rows(update, head=head, id=request, seq=r.seq)
    world.rows("UPDATE request SET audit_head = :head WHERE id = :id", head=head, id=request)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit_checkpoint SET facts = facts || '{\"entries\": 1}' WHERE id = 1", "its signature does not hold"),
        ("DELETE FROM audit_checkpoint WHERE id = 1", "it does not follow the checkpoint before: one is missing"),
    ],
)
def test_a_changed_or_missing_checkpoint_is_found(
    make_world: MakeWorld, habeas: MakeCommandLine, statement: str, fault: str
) -> None:
    world, run, _ = audited(make_world, habeas)
    checkpoint(world, world.one("SELECT clock_timestamp()"))
    assert run.json("audit", "verify", "--all")["checkpoints"] == 2
    world.rows(statement)
    assert fault in [f["fault"] for f in run.json("audit", "verify", "--all", code=1)["faults"]]
