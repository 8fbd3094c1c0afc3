"""The check finds whatever is not as it should be: each test spoils one thing and sees it named."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import psutil
import psycopg

from examples.shop.check import check, snapshot
from examples.shop.payments import api
from examples.shop.people import Request
from examples.shop.persons import Person
from examples.shop.users import driver_url
from examples.shop.world import Shop


def sql(shop: Shop, statement: str, *values: object) -> int:
    with psycopg.connect(driver_url(shop.postgres_url)) as connection:
        return connection.execute(statement.encode(), values).rowcount


def bystander(shop: Shop) -> Person:
    """One whom the payment processor knows, too."""
    return next(person for person in shop.cast.bystanders if person.user_id in shop.customers)


def requests_of(shop: Shop, right: str) -> list[Request]:
    return [request for request in shop.cast.requests if request.right == right]


def test_a_shop_in_which_nothing_was_asked_and_nothing_done_passes(shop: Shop) -> None:
    before = snapshot(shop)
    assert check(before, shop, []) == []
    assert snapshot(shop).digests() == before.digests()
    assert {"", *(person.user_id for person in shop.persons)} == before.digests().keys()


def test_requests_that_nobody_carried_out_are_found_for_each_person_in_each_system(shop: Shop) -> None:
    before = snapshot(shop)
    for right in ("erasure", "rectification", "restriction", "objection"):
        asked = requests_of(shop, right)
        findings = check(before, shop, asked)
        # An erasure shows in other people's rows as well: in their pointers to what should be gone.
        assert {finding.person for finding in findings} >= {request.person.user_id for request in asked}
        logs = {"logs"} if right == "erasure" else set()
        assert {finding.system for finding in findings} == {"users", "payments", "analytics"} | logs


def test_asking_to_see_ones_data_changes_nothing(shop: Shop) -> None:
    asked = [*requests_of(shop, "access"), *requests_of(shop, "portability")]
    assert check(snapshot(shop), shop, asked) == []


def test_an_erased_row_left_behind_is_found(shop: Shop) -> None:
    before = snapshot(shop)
    person = bystander(shop)
    erased = [Request("x", "erasure", person, ())]
    assert sql(shop, "delete from search_queries where account_id = %s", person.user_id) >= 0
    found = [f for f in check(before, shop, erased) if f.system == "users"]
    assert not any("search_queries" in f.what for f in found)
    assert any("consents" in f.what for f in found)


def test_a_bystanders_changed_row_is_found(shop: Shop) -> None:
    before = snapshot(shop)
    person = bystander(shop)
    sql(shop, "update profiles set bio = 'somebody else' where account_id = %s", person.user_id)
    findings = check(before, shop, [])
    assert [(f.system, f.person, f.what) for f in findings] == [("users", person.user_id, "profiles.bio was changed")]


def test_a_bystanders_lost_row_and_a_row_from_nowhere_are_found(shop: Shop) -> None:
    before = snapshot(shop)
    person = bystander(shop)
    sql(shop, "delete from consents where account_id = %s and purpose = 'marketing'", person.user_id)
    sql(shop, "insert into products values (999, 'Ghost', 1)")
    assert {(f.person, f.what) for f in check(before, shop, [])} == {
        (person.user_id, "a row of consents is missing"),
        ("", "a row of products is new"),
    }


def test_a_consent_that_was_not_withdrawn_is_found(shop: Shop) -> None:
    person = bystander(shop)
    sql(shop, "update consents set granted = true where account_id = %s", person.user_id)
    before = snapshot(shop)
    asked = [Request("x", "objection", person, (), purposes=frozenset({"marketing", "analytics"}))]
    sql(shop, "update consents set granted = false where account_id = %s and purpose = 'marketing'", person.user_id)
    found = [f for f in check(before, shop, asked) if f.system == "users"]
    assert [f.what for f in found] == ["consents.granted is not what was asked for"]


def test_a_value_that_was_corrected_wrongly_is_found(shop: Shop) -> None:
    person = bystander(shop)
    before = snapshot(shop)
    wanted = {"user.contact.email": "right@mail.example"}
    asked = [Request("x", "rectification", person, (), wanted, replace(person, email="right@mail.example"))]
    sql(shop, "update accounts set email = 'wrong@mail.example' where id = %s", person.user_id)
    assert [f.what for f in check(before, shop, asked) if f.system == "users"] == [
        "accounts.email is not what was asked for"
    ]


def test_an_order_that_was_deleted_though_it_must_be_kept_is_found(shop: Shop) -> None:
    before = snapshot(shop)
    request = next(
        r for r in requests_of(shop, "erasure") if any(True for _ in before.users["orders"].of(r.person.user_id))
    )
    person = request.person.user_id
    sql(shop, "delete from order_items using orders where order_id = orders.id and account_id = %s", person)
    sql(shop, "delete from orders where account_id = %s", person)
    whats = {f.what for f in check(before, shop, [request])}
    assert {"a row of orders is missing", "a row of order_items is missing"} <= whats


def test_a_pointer_to_an_erased_account_may_go_but_not_another_one(shop: Shop) -> None:
    before = snapshot(shop)
    sql(shop, "update messages set recipient_id = null where id = 1")
    assert [f.what for f in check(before, shop, [])] == ["messages.recipient_id was changed"]


def test_a_missing_log_line_is_found_in_every_kind_of_file(shop: Shop) -> None:
    before = snapshot(shop)
    names = ["access.log.1", "access.log.3.gz", "app.jsonl.2"]
    for name in names:
        path = shop.logs / name
        about = path.stat()
        packed = name.endswith(".gz")
        lines = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).splitlines(keepends=True)
        content = b"".join(lines[:10] + lines[11:])
        path.write_bytes(gzip.compress(content) if packed else content)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    wanted = [f"1 × a line of {name} is missing or was changed" for name in names]
    assert sorted(f.what for f in check(before, shop, [])) == sorted(wanted)


def test_swapped_log_lines_and_a_changed_mode_and_time_are_found(shop: Shop) -> None:
    before = snapshot(shop)
    path = shop.logs / "access.log.1"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    path.chmod(0o644)
    assert {f.what for f in check(before, shop, [])} == {
        "the mode of access.log.1 was changed",
        "the modification time of access.log.1 was changed",
        "the lines of access.log.1 are in another order",
    }


def test_a_lost_and_a_new_log_file_are_found(shop: Shop) -> None:
    before = snapshot(shop)
    (shop.logs / "app.jsonl.2").rename(shop.logs / "app.jsonl.2.bak")
    assert {f.what for f in check(before, shop, [])} == {
        "the file app.jsonl.2 is missing",
        "the file app.jsonl.2.bak is new",
    }


def test_a_hidden_file_beside_the_logs_is_no_place_for_an_erased_person(shop: Shop) -> None:
    before = snapshot(shop)
    erased = requests_of(shop, "erasure")[:1]
    (shop.logs / ".journal").write_text("done 3\n")
    assert not any("hidden" in f.what for f in check(before, shop, erased))
    (shop.logs / ".journal").write_text(f"done {erased[0].person.email}\n")
    assert any("hidden" in f.what for f in check(before, shop, erased))


def test_a_bystanders_changed_customer_card_and_lost_customer_are_found(shop: Shop) -> None:
    before = snapshot(shop)
    person = bystander(shop)
    others = [p for p in shop.cast.bystanders if p.user_id in shop.customers and p is not person]
    customer = shop.customers[person.user_id]
    with api(shop.server.url) as stripe:
        stripe.post(f"/v1/customers/{customer}", name="Somebody Else")
        card = before.payments.customers[customer]["invoice_settings"]["default_payment_method"]
        stripe.post(f"/v1/payment_methods/{card}/detach")
        stripe.delete(f"/v1/customers/{shop.customers[others[0].user_id]}")
    assert {(f.person, f.what) for f in check(before, shop, [])} == {
        (person.user_id, "the customer is not as asked, or was changed"),
        (person.user_id, "a card is missing or was changed"),
        (others[0].user_id, "the customer is missing"),
    }


def test_a_bystanders_changed_row_in_the_warehouse_is_found(shop: Shop) -> None:
    before = snapshot(shop)
    person = bystander(shop)
    with duckdb.connect(str(shop.warehouse)) as warehouse:
        warehouse.execute("update identities set opted_out = true where user_id = ?", [person.user_id])
    assert [(f.system, f.person, f.what) for f in check(before, shop, [])] == [
        ("analytics", person.user_id, "identities.opted_out was changed")
    ]


def test_stopping_the_shop_leaves_no_process(tmp_path: Path, reaped: Callable[[int], None]) -> None:
    shop = Shop.create(tmp_path, "postgresql://nowhere/shop", people=60)
    shop.start()
    assert shop.server.pid
    reaped(shop.server.pid)
    process = psutil.Process(shop.server.pid)
    shop.stop()
    assert not process.is_running()
    shop.stop()
