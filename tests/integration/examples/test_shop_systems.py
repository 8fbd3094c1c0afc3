"""The shop's systems file and data map hold in the real systems: the connectors, called directly, do what is asked."""

from __future__ import annotations

from dataclasses import replace

import psycopg

from connectors.contract import Action, Outcome
from examples.shop.check import check, snapshot
from examples.shop.users import driver_url
from examples.shop.world import Shop
from tests.support.shop_connectors import (
    DirectCall,
    carry_out,
    connected,
    discovered,
    entries,
    perform,
    tasks_of,
)


def test_one_person_is_discovered_shown_erased_and_proven_gone_in_each_system(shop: Shop) -> None:
    before = snapshot(shop)
    paid = {before.payments.users[charge["customer"]] for charge in before.payments.records["charges"].values()}
    bought = set(before.users["orders"].owners.values())
    request = next(
        r
        for r in shop.cast.requests
        if r.right == "erasure" and r.person.user_id in paid & bought and r.identities[0][0] == "email"
    )
    person, call = request.person, DirectCall()
    with connected(shop) as systems:
        (task,) = discovered(systems, tasks_of([replace(request, identities=request.identities[:1])]), call)
        assert {(i.type, i.value) for i in task.identities} >= {
            ("user_id", person.user_id),
            ("email", person.email),
            ("ip", person.ip),
            ("phone", person.phone),
            ("stripe_customer_id", shop.customers[person.user_id]),
            ("custom:cookie_id", person.cookie_id),
            *(("device_id", device) for device in person.device_ids),
        }
        for name, system in systems.items():
            seen = DirectCall()
            assert perform(system, Action.ACCESS, [task], seen)[task.key].outcome is Outcome.EXECUTED
            assert sum(map(len, seen.sinks[task.key].records.values())) > 0, name
        for name, system in systems.items():
            erased = perform(system, Action.ERASE, [task], call)[task.key]
            kept = {retention.what for retention in erased.retained}
            assert kept == {"users": {"orders", "order_items"}, "payments": kept | {"charges"}}.get(name, set())
            assert all(r.reason and "§ 147 AO" in r.legal_basis for r in erased.retained)
            looked = perform(system, Action.VERIFY, [replace(task, options={"of": "erase"})], call)[task.key]
            assert looked.outcome in {Outcome.VERIFIED, Outcome.NO_MATCH}
    assert check(before, shop, [request]) == []


def test_all_requests_are_carried_out_in_batches_and_the_check_passes(shop: Shop) -> None:
    before = snapshot(shop)
    with connected(shop) as systems:
        carry_out(systems, shop.cast.requests)
    assert check(before, shop, shop.cast.requests) == []
    then, now = before.digests(), snapshot(shop).digests()
    for person in shop.cast.bystanders:
        # In the database a bystander's rows may point to what is gone; elsewhere nothing of theirs differs by a byte.
        for system in then[person.user_id].keys() - {"users"}:
            assert now[person.user_id][system] == then[person.user_id][system], system


def test_carrying_everything_out_twice_changes_nothing_more(shop: Shop) -> None:
    before = snapshot(shop)
    with connected(shop) as systems:
        carry_out(systems, [r for r in shop.cast.requests if r.right == "erasure"])
        carry_out(systems, [r for r in shop.cast.requests if r.right != "erasure"])
        middle = snapshot(shop)
        call = DirectCall()
        for request in shop.cast.requests:
            if request.right == "erasure":
                for system in systems.values():
                    perform(system, Action.ERASE, tasks_of([request]), call)
    assert check(middle, shop, []) == []
    assert check(before, shop, shop.cast.requests) == []


def test_one_erased_row_put_back_makes_the_check_fail(shop: Shop) -> None:
    before = snapshot(shop)
    erased = [r for r in shop.cast.requests if r.right == "erasure"]
    with connected(shop) as systems:
        carry_out(systems, erased)
    assert check(before, shop, erased) == []
    table = before.users["accounts"]
    ordered = set(before.users["orders"].owners.values())
    person = next(r.person.user_id for r in erased if r.person.user_id not in ordered)
    row = table.rows[person,]
    columns = [table.columns.index(c) for c in ("id", "email", "username", "password_hash", "created_at")]
    with psycopg.connect(driver_url(shop.postgres_url)) as connection:
        connection.execute(
            b"insert into accounts (id, email, username, password_hash, created_at) values (%s, %s, %s, %s, %s)",
            [row[column] for column in columns],
        )
    assert [(f.system, f.person, f.what) for f in check(before, shop, erased)] == [
        ("users", person, "a row of accounts is still there and should be gone")
    ]


def test_every_system_says_why_it_cannot_what_its_connector_cannot(shop: Shop) -> None:
    with connected(shop) as systems:
        for entry in entries():
            connector = systems[entry["name"]]
            wanted = {Action.ACCESS, Action.RECTIFY, Action.ERASE, Action.RESTRICT, Action.SUPPRESS}
            assert {a.value for a in wanted - connector.supports()} <= set(entry.get("cannot", {})), entry["name"]
