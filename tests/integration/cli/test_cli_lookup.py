"""Lists, one request in full, and the live view."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pytest

from connectors.contract import Done, Fatal, Outcome, Pending, Retention
from orchestrator.store import queries
from orchestrator.store.queries import Which
from tests.support.command_line import CommandLine, MakeCommandLine
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, SOURCE, MakeWorld, World, delivery

MAIL = "ada@example.org"


def ids(answer: Any) -> list[str]:
    return [r["id"] for r in answer["requests"]]


def mixed(make_world: MakeWorld) -> tuple[World, dict[str, str]]:
    """Four erasures: closed, wanting an operator, parked, and untouched since."""
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("b@example.org", Fatal("no such table"))
    world.connector("crm").on("c@example.org", Pending({}, timedelta(days=3), "the vendor"))
    asked = {name: str(world.ask("erasure", f"{name}@example.org")) for name in "abc"}
    world.work()
    return world, {**asked, "d": str(world.ask("erasure", "d@example.org"))}


def test_a_list_is_newest_first_and_each_way_of_listing_finds_its_own(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world, asked = mixed(make_world)
    run = habeas(world)
    assert ids(run.json("list")) == [asked[n] for n in "dcba"]
    assert set(ids(run.json("list", "--open"))) == {asked[n] for n in "bcd"}
    assert ids(run.json("list", "--closed")) == [asked["a"]]
    assert ids(run.json("list", "--attention")) == [asked["b"]]
    assert ids(run.json("list", "--overdue")) == []
    shown = run("list").output
    for word in ("completed", "attention", "parked", "ready", "the vendor", "an operator (1)"):
        assert word in shown, word


def test_a_list_can_be_limited_to_a_right_and_to_a_source(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    erasure, access = world.ask("erasure", MAIL), world.ask("access", MAIL)
    run = habeas(world)
    assert ids(run.json("list", "--right", "access")) == [str(access)]
    assert ids(run.json("list", "--source", SOURCE)) == [str(access), str(erasure)]
    assert ids(run.json("list", "--source", "urn:test:other")) == []


@pytest.mark.parametrize("way", [[], ["--open"], ["--attention"], ["--closed"]])
def test_pages_come_one_after_the_other_without_gap_or_repeat(
    make_world: MakeWorld, habeas: MakeCommandLine, way: list[str]
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for n in range(7):
        if way == ["--attention"]:
            world.connector("crm").on(f"p{n}@example.org", Fatal("no"))
        world.ask("erasure", f"p{n}@example.org")
    if way not in ([], ["--open"]):
        world.work()
    run = habeas(world)
    whole = ids(run.json("list", *way))
    assert len(whole) == 7
    assert pages(run, way) == whole


def pages(run: CommandLine, way: list[str]) -> list[str]:
    found: list[str] = []
    after: list[str] = []
    while True:
        page = run.json("list", *way, "--limit", 3, *after)
        assert len(page["requests"]) <= 3
        found += ids(page)
        if page["after"] is None:
            return found
        after = ["--after", page["after"]]


def test_a_filter_that_nothing_passes_gives_a_cursor_instead_of_a_long_wait(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for n in range(5):
        world.ask("erasure", f"p{n}@example.org")
    found: list[str] = []
    looks, after = 0, None
    with world.runtime.database.transaction() as tx:
        while True:
            page = queries.requests(tx, Which.ALL, right="access", after=after, window=2)
            looks, after = looks + 1, page.after
            found += [r.right for r in page.requests]
            if after is None:
                break
    assert (found, looks) == ([], 3)


def test_a_request_is_found_by_the_beginning_of_its_id_and_by_its_message(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", MAIL, message_id="m-17")
    run = habeas(world)
    for given in (str(request), request.hex[:20], str(request)[:14], str(request).upper()):
        assert run.json("show", given)["id"] == str(request)
    assert run.json("show", "m-17", "--message")["id"] == str(request)
    assert "there is no request" in run("show", "0" * 8, code=1).stderr
    assert "give 8 hex digits" in run("show", str(request)[:7], code=1).stderr
    assert "look into quarantine" in run("show", "m-18", "--message", code=1).stderr


def test_a_beginning_that_two_requests_share_is_refused(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.admit(*(delivery("erasure", f"p{n}@example.org") for n in range(2)))
    first = world.one("SELECT id FROM request LIMIT 1")
    assert "give more of the id" in habeas(world)("show", str(first)[:8], code=1).stderr


def test_show_tells_what_each_system_did_and_what_was_kept_and_why(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), system("billing"), workflows=[ONE_STEP])
    kept = Retention("invoices", "tax law", "GDPR Art. 17(3)(b)", 3, date(2036, 12, 31))
    world.connector("billing").on(MAIL, Done(Outcome.RETAINED, counts={"charges": 4}, retained=(kept,)))
    request = world.ask("erasure", MAIL)
    world.work()
    run = habeas(world)
    shown = run("show", request, "--audit").output
    for word in ("completed_with_exceptions", "billing", "charges 4", "invoices", "tax law", "2036-12-31", "accepted"):
        assert word in shown, word
    told = run.json("show", request, "--audit")
    steps = {s["system"]: s for s in told["steps"]}
    assert steps["crm"]["result"] == {"outcome": "executed", "counts": {"rows": 1}}
    assert steps["billing"]["result"]["retained"][0]["legal_basis"] == "GDPR Art. 17(3)(b)"
    assert [e["what"] for e in told["audit"]] == ["accepted", "settled", "settled", "closed"]
    assert MAIL not in shown + json.dumps(told)


def test_an_old_request_whose_steps_were_folded_is_shown_explained_and_proven_as_before(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), system("billing"), workflows=[ONE_STEP], steps_keep_days=40)
    kept = Retention("invoices", "tax law", "GDPR Art. 17(3)(b)", 3, date(2036, 12, 31))
    world.connector("billing").on(MAIL, Done(Outcome.RETAINED, counts={"charges": 4}, retained=(kept,)))
    request = world.ask("erasure", MAIL)
    world.work()
    run = habeas(world)
    before, why = run.json("show", request), run.json("why", request)
    for moment in ("shred_at", "fold_at"):
        world.rows(f"UPDATE request SET {moment} = now() - interval '1 s'")
        world.runtime.sweep.purge()
    assert world.one("SELECT count(*) FROM step") == 0
    after = run.json("show", request, "--audit")
    assert after["folded_at"] is not None
    for old, new in zip(before["steps"], after["steps"], strict=True):
        assert new["needs"] is None  # not known any more, and so not said
        apart = {"needs": None, "changed_at": None}
        assert {**new, **apart} == {**old, **apart}
    assert [e["what"] for e in after["audit"]] == ["accepted", "settled", "settled", "closed", "folded"]
    for word in ("completed_with_exceptions", "billing", "charges 4", "invoices", "tax law", "steps folded"):
        assert word in run("show", request).output, word
    assert run.json("why", request) == why
    assert run.json("audit", "verify", request)["broken"] == 0
    world.rows("UPDATE audit SET facts = jsonb_set(facts, '{steps,0,system}', '\"nowhere\"') WHERE what = 'folded'")
    assert run.json("audit", "verify", request, code=1)["broken"] == 1


def test_watch_shows_the_deployment_and_one_request_once(make_world: MakeWorld, habeas: MakeCommandLine) -> None:
    world, asked = mixed(make_world)
    run = habeas(world)
    seen = run("watch", "--once").output
    for word in ("Requests", "erasure", "crm", "oldest ready", "completed 1"):
        assert word in seen, word
    figures = run.json("watch", "--once")
    assert figures["open"] == {"erasure": 3}
    assert figures["attention"] == {"erasure": 1}
    assert figures["systems"]["crm"]["steps"] == {"ready": 1, "parked": 1, "attention": 1}
    assert "no such table" in run("watch", asked["b"], "--once").output
    assert run.json("watch", asked["a"])["resolution"] == "completed"
