"""Rows that stay along with others', and whatever must stay because a row that stays points to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connectors.contract import Action, Done, Fatal, Identity, Outcome, Result, Task
from tests.integration.connectors.test_sql_graphs import collection, document, make
from tests.support import sql_shop as shop

LAW = {"reason": "invoices", "legal_basis": "tax code", "years": 10, "from": "day"}
RETAIN: dict[str, Any] = {"orders": LAW, "items": {"with": "orders"}}
ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, owner INTEGER, day DATE)"
ITEMS = "CREATE TABLE items (id INTEGER PRIMARY KEY, ordered INTEGER NOT NULL, body VARCHAR(50))"
NO_DUCKDB = pytest.mark.parametrize("sql_database", ["postgresql", "mariadb"], indirect=True)
ONLY_POSTGRES = pytest.mark.parametrize("sql_database", ["postgresql"], indirect=True)


def fill(url: str, *more: str, items: str = ITEMS) -> None:
    """Two people, each with an order the law keeps (11, 21) and one it does not (12, 22), an item in each; a third
    has only an order that goes (32)."""
    make(
        url,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50))",
        ORDERS,
        items,
        "INSERT INTO people VALUES (1, 'p1@x.example'), (2, 'p2@x.example'), (3, 'p3@x.example')",
        "INSERT INTO orders VALUES (11, 1, '2024-01-01'), (12, 1, '2010-01-01'), (21, 2, '2025-01-01'), "
        "(22, 2, '2010-01-01'), (32, 3, '2010-01-01')",
        "INSERT INTO items (id, ordered, body) VALUES (110, 11, 'a'), (120, 12, 'b'), (210, 21, 'c'), (220, 22, 'd'), "
        "(320, 32, 'e')",
        *more,
    )


def shop_maps(*more: dict[str, Any], **items: str) -> dict[str, Any]:
    return document(
        collection("people", "id", email="user.contact.email @email"),
        collection("orders", "id", owner=">people.id", day="user.behavior"),
        collection("items", "id", **{"ordered": ">orders.id", "body": "user.content", **items}),
        *more,
    )


def tasks(*numbers: int, action: Action = Action.ERASE) -> list[Task]:
    options = {"of": "erase"} if action is Action.VERIFY else {}
    return [Task(f"r{n}/1", action, (Identity("email", f"p{n}@x.example"),), options=options) for n in numbers]


def ids(url: str, table: str) -> list[int]:
    return [n for (n,) in shop.execute(url, f"SELECT id FROM {table} ORDER BY id")]


def told(result: Result) -> tuple[dict[str, int], dict[str, int]]:
    """What a person is told: rows erased, rows kept."""
    assert isinstance(result, Done), result
    return dict(result.counts), {r.what: r.records for r in result.retained}


def test_each_is_told_what_went_and_what_stays_of_the_own_rows_alone(sql_database: str, tmp_path: Path) -> None:
    fill(sql_database)
    connector = shop.system(sql_database, tmp_path, shop_maps(), retain=RETAIN)
    first, second, third = shop.perform(connector, *tasks(1, 2, 3)).values()
    kept = {"orders": 1, "items": 1}
    assert told(first)[1] == told(second)[1] == kept
    assert told(third) == ({"items": 1, "orders": 1, "people": 1}, {})
    assert isinstance(first, Done)
    assert {(r.what, r.reason, str(r.until)) for r in first.retained} == {
        ("orders", "invoices", "2034-01-01"),
        ("items", "invoices", "2034-01-01"),
    }
    assert ids(sql_database, "items") == [110, 210]
    assert ids(sql_database, "orders") == [11, 21]
    verified = shop.perform(connector, *tasks(1, 2, 3, action=Action.VERIFY))
    assert {r.outcome for r in verified.values() if isinstance(r, Done)} == {Outcome.VERIFIED}


def test_whoever_is_not_of_the_batch_keeps_everything(sql_database: str, tmp_path: Path) -> None:
    fill(sql_database)
    shop.perform(shop.system(sql_database, tmp_path, shop_maps(), retain=RETAIN), *tasks(1))
    assert ids(sql_database, "items") == [110, 210, 220, 320]


def test_an_item_of_an_order_that_two_of_a_batch_share_is_told_to_both(sql_database: str, tmp_path: Path) -> None:
    fill(
        sql_database,
        "CREATE TABLE buyers (id INTEGER PRIMARY KEY, person INTEGER, bought INTEGER)",
        "INSERT INTO buyers VALUES (1, 1, 21), (2, 1, 22)",
    )
    buyers = collection("buyers", "id", person=">people.id", bought="<orders.id")
    connector = shop.system(sql_database, tmp_path, shop_maps(buyers), retain=RETAIN)
    first, second = shop.perform(connector, *tasks(1, 2)).values()
    assert told(first)[1]["items"] == 2
    assert told(second)[1]["items"] == 1
    assert (told(first)[0]["items"], told(second)[0]["items"]) == (2, 1)
    assert ids(sql_database, "items") == [110, 210, 320]


def test_a_column_that_the_law_lets_go_is_masked_in_what_is_kept_along(sql_database: str, tmp_path: Path) -> None:
    fill(sql_database)
    retain = {**RETAIN, "items": {"with": "orders", "mask": ["body"]}}
    shop.perform(shop.system(sql_database, tmp_path, shop_maps(), retain=retain), *tasks(1))
    rows = shop.execute(sql_database, "SELECT id, body FROM items ORDER BY id")
    assert rows == [(110, None), (210, "c"), (220, "d"), (320, "e")]


def test_a_column_that_a_foreign_key_refers_to_is_not_masked_in_what_is_kept(sql_database: str, tmp_path: Path) -> None:
    code = "code INTEGER UNIQUE, replaces INTEGER REFERENCES items (code)"
    fill(sql_database, items=ITEMS.replace("body", f"{code}, body"))
    retain = {**RETAIN, "items": {"with": "orders", "mask": ["code"]}}
    connector = shop.system(sql_database, tmp_path, shop_maps(code="user.content"), retain=retain)
    result = shop.only(shop.perform(connector, *tasks(1)))
    assert isinstance(result, Fatal), result
    for words in ("items.code cannot be masked", "a foreign key of other rows", "leave it out of `mask`"):
        assert words in str(result)
    assert ids(sql_database, "items") == [110, 120, 210, 220, 320]


def test_what_is_kept_along_with_what_is_kept_along_stays_too(sql_database: str, tmp_path: Path) -> None:
    fill(
        sql_database,
        "CREATE TABLE parcels (id INTEGER PRIMARY KEY, item INTEGER NOT NULL)",
        "INSERT INTO parcels VALUES (1, 110), (2, 120), (3, 210), (4, 220), (5, 320)",
    )
    retain = {**RETAIN, "parcels": {"with": "items"}}
    maps = shop_maps(collection("parcels", "id", item=">items.id"))
    results = shop.perform(shop.system(sql_database, tmp_path, maps, retain=retain), *tasks(1, 3))
    assert told(results["r1/1"])[1] == {"orders": 1, "items": 1, "parcels": 1}
    assert told(results["r3/1"])[1] == {}
    assert ids(sql_database, "parcels") == [1, 3, 4]
    assert ids(sql_database, "items") == [110, 210, 220]


def test_what_is_found_through_it_goes_although_it_stays(sql_database: str, tmp_path: Path) -> None:
    fill(
        sql_database,
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, item INTEGER NOT NULL)",
        "INSERT INTO notes VALUES (1, 110), (2, 120), (3, 210)",
    )
    maps = shop_maps(collection("notes", "id", item=">items.id"))
    first = shop.only(shop.perform(shop.system(sql_database, tmp_path, maps, retain=RETAIN), *tasks(1)))
    assert told(first)[0]["notes"] == 2
    assert ids(sql_database, "notes") == [3]
    assert ids(sql_database, "items") == [110, 210, 220, 320]


@NO_DUCKDB
def test_it_stays_where_a_row_that_stays_must_point_to_it(sql_database: str, tmp_path: Path) -> None:
    fill(
        sql_database,
        "CREATE TABLE claims (id INTEGER PRIMARY KEY, item INTEGER NOT NULL, FOREIGN KEY (item) REFERENCES items (id))",
        "INSERT INTO claims VALUES (1, 120)",
    )
    maps = shop_maps(collection("claims", "id", item="system", mail="user.contact.email @email"))
    shop.execute(sql_database, "ALTER TABLE claims ADD COLUMN mail VARCHAR(50)")
    shop.perform(shop.system(sql_database, tmp_path, maps, retain=RETAIN), *tasks(1))
    rows = shop.execute(sql_database, "SELECT id, body FROM items ORDER BY id")
    assert rows == [(110, "a"), (120, None), (210, "c"), (220, "d"), (320, "e")]
