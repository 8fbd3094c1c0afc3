"""Erasure of many people at once: rows that they share, rows that others change meanwhile, rows in unusual places."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.contract import Action, Done, Identity, Outcome, Result, Task
from tests.integration.connectors.test_sql_graphs import collection, document, erase, make
from tests.support import sql_shop as shop
from tests.support.servers.ports import wait_until

ONLY_POSTGRES = pytest.mark.parametrize("sql_database", ["postgresql"], indirect=True)


@pytest.fixture
def filled(sql_database: str) -> str:
    shop.create(sql_database)
    shop.seed(sql_database, [1, 2, 3])
    return sql_database


def counts(result: Result) -> dict[str, int]:
    assert isinstance(result, Done), result
    return dict(result.counts)


def test_a_row_of_two_people_of_a_batch_is_counted_for_both_and_lets_go_of_both(filled: str, tmp_path: Path) -> None:
    shop.execute(filled, "INSERT INTO messages (id, sender_id, recipient_id, body) VALUES (150, 1, 2, 'between us')")
    connector = shop.system(filled, tmp_path)
    results = shop.perform(connector, *(shop.task(Action.ERASE, n) for n in (1, 2)))
    assert [counts(r)["messages"] for r in results.values()] == [2, 2]
    ((sender, recipient, body),) = shop.execute(
        filled, "SELECT sender_id, recipient_id, body FROM messages WHERE id = 150"
    )
    assert body is None
    assert {sender, recipient} == {None} or filled.startswith("duckdb"), "where a foreign key says so"


def test_a_message_keeps_its_pointer_to_the_person_who_stays(filled: str, tmp_path: Path) -> None:
    shop.execute(filled, "INSERT INTO messages (id, sender_id, recipient_id, body) VALUES (150, 1, 2, 'between us')")
    shop.perform(shop.system(filled, tmp_path), shop.task(Action.ERASE, 1))
    ((sender, recipient),) = shop.execute(filled, "SELECT sender_id, recipient_id FROM messages WHERE id = 150")
    assert recipient == 2
    assert sender is None or filled.startswith("duckdb")


def test_a_message_masked_for_one_lets_go_of_the_other_without_being_counted(filled: str, tmp_path: Path) -> None:
    shop.execute(filled, "INSERT INTO messages (id, sender_id, recipient_id, body) VALUES (150, 1, 2, 'between us')")
    connector = shop.system(filled, tmp_path)
    first, second = (shop.only(shop.perform(connector, shop.task(Action.ERASE, n))) for n in (1, 2))
    assert (counts(first)["messages"], counts(second)["messages"]) == (2, 1)
    ((pointer,),) = shop.execute(filled, "SELECT recipient_id FROM messages WHERE id = 150")
    assert pointer is None or filled.startswith("duckdb")


def test_a_person_who_asks_twice_in_a_batch_gets_the_same_answer_twice(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    tasks = [Task(f"r{n}/1", Action.ERASE, shop.task(Action.ERASE, 1).identities) for n in (1, 2)]
    first, second = shop.perform(connector, *tasks).values()
    assert counts(first) == counts(second) == {t: len(rows) for t, rows in shop.person(1).items()}


@ONLY_POSTGRES
@pytest.mark.parametrize(
    ("change", "look"),
    [
        ("UPDATE sessions SET agent = 'new' WHERE id = 101", "SELECT count(*) FROM sessions WHERE id = 101"),
        ("UPDATE orders SET total = 1 WHERE id = 101", "SELECT count(*) FROM orders WHERE id = 101"),
        ("UPDATE users SET name = 'new' WHERE id = 1", "SELECT count(*) FROM users WHERE id = 1"),
        ("UPDATE comments SET body = 'new' WHERE id = 101", "SELECT count(*) FROM comments WHERE body = 'new'"),
        ("UPDATE messages SET body = 'new' WHERE id = 101", "SELECT count(*) FROM messages WHERE body = 'new'"),
    ],
)
def test_a_row_that_somebody_changes_meanwhile_is_erased_all_the_same(
    filled: str, tmp_path: Path, change: str, look: str
) -> None:
    connector = shop.system(filled, tmp_path)
    results: list[dict[str, Any]] = []
    erasing = threading.Thread(target=lambda: results.append(shop.perform(connector, shop.task(Action.ERASE, 1))))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with shop.connected(filled) as somebody:
        somebody.execute(sa.text(change))
        erasing.start()
        wait_until(lambda: shop.execute(filled, waiting) == [(1,)], what="the erasure waits for the other's lock")
    erasing.join()
    assert counts(shop.only(results[0])) == {t: len(rows) for t, rows in shop.person(1).items()}
    assert shop.execute(filled, look) == [(0,)]


@ONLY_POSTGRES
def test_rows_at_the_same_place_of_two_partitions_are_not_mistaken_for_each_other(
    sql_database: str, tmp_path: Path
) -> None:
    make(
        sql_database,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50))",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, person INTEGER, body TEXT) PARTITION BY RANGE (id)",
        "CREATE TABLE notes_low PARTITION OF notes FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE notes_high PARTITION OF notes FOR VALUES FROM (10) TO (20)",
        "INSERT INTO people VALUES (1, 'a@example.org'), (2, 'b@example.org')",
        "INSERT INTO notes VALUES (1, 1, 'mine'), (11, 2, 'theirs')",
    )
    people = collection("people", "id", email="user.contact.email @email")
    notes = collection("notes", "id", person=">people.id", body="user.content")
    done = erase(shop.system(sql_database, tmp_path, document(people, notes)), "a@example.org")
    assert done.counts == {"people": 1, "notes": 1}
    assert shop.execute(sql_database, "SELECT id FROM notes") == [(11,)]


@ONLY_POSTGRES
def test_rows_seen_through_a_view_are_erased(sql_database: str, tmp_path: Path) -> None:
    make(
        sql_database,
        "CREATE TABLE stored (id INTEGER PRIMARY KEY, email VARCHAR(50), body TEXT)",
        "CREATE VIEW letters AS SELECT * FROM stored",
        "INSERT INTO stored VALUES (1, 'a@example.org', 'mine'), (2, 'b@example.org', 'theirs')",
    )
    letters = collection("letters", "id", email="user.contact.email @email", body="user.content")
    done = erase(shop.system(sql_database, tmp_path, document(letters)), "a@example.org")
    assert (done.outcome, done.counts) == (Outcome.EXECUTED, {"letters": 1})
    assert shop.execute(sql_database, "SELECT id FROM stored") == [(2,)]


def test_identities_of_two_kinds_lead_to_each_row_once(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path, retain={})
    known = [shop.task(Action.ERASE, n, Identity("user_id", str(n))) for n in (1, 2)]
    for number, result in enumerate(shop.perform(connector, *known).values(), 1):
        assert counts(result) == {t: len(rows) for t, rows in shop.person(number).items()}
    assert shop.execute(filled, "SELECT count(*) FROM users") == [(1,)]


def test_rows_that_are_to_go_after_those_they_are_found_through_are_found_all_the_same(
    sql_database: str, tmp_path: Path
) -> None:
    make(
        sql_database,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50))",
        "CREATE TABLE devices (id INTEGER PRIMARY KEY, owner INTEGER)",
        "CREATE TABLE sessions (id INTEGER PRIMARY KEY, device INTEGER)",
        "INSERT INTO people VALUES (1, 'a@example.org'), (2, 'b@example.org')",
        "INSERT INTO devices VALUES (1, 1), (2, 2)",
        "INSERT INTO sessions VALUES (1, 1), (2, 2)",
    )
    people = collection("people", "id", email="user.contact.email @email")
    devices = collection("devices", "id", owner=">people.id")
    sessions = collection("sessions", "id", device=">devices.id")
    sessions["fides_meta"]["erase_after"] = ["d.devices"]
    done = erase(shop.system(sql_database, tmp_path, document(people, devices, sessions)), "a@example.org")
    assert done.counts == {"people": 1, "devices": 1, "sessions": 1}
    assert shop.execute(sql_database, "SELECT id FROM sessions") == [(2,)]
