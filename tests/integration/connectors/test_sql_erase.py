from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.contract import Action, Done, Fatal, Identity, Outcome, Task
from connectors.sql import Sql
from tests.support import sql_shop as shop

RETAIN_ORDERS = {
    "orders": {"reason": "tax records", "legal_basis": "§ 147 AO", "years": 10, "from": "placed", "mask": ["ship_to"]},
    "order_items": {"with": "orders"},
}


@pytest.fixture
def filled(sql_database: str) -> str:
    shop.create(sql_database)
    shop.seed(sql_database, [1, 2, 3])
    return sql_database


def without(rows: dict[str, list[tuple[Any, ...]]], number: int) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of other people than one: the shop's ids say whose a row is."""
    ids = {str(number), *(str(number * 100 + n) for n in (1, 2)), *(f"dev-{number * 100 + n}" for n in (1, 2))}
    return {table: [r for r in found if str(r[0]) not in ids] for table, found in rows.items()}


def done(result: object) -> Done:
    assert isinstance(result, Done), result
    return result


def test_an_erased_person_is_gone_from_every_table_and_nobody_else_is_touched(filled: str, tmp_path: Path) -> None:
    before = shop.contents(filled)
    connector = shop.system(filled, tmp_path)
    result = done(shop.only(shop.perform(connector, shop.task(Action.ERASE, 1))))
    after = shop.contents(filled)

    assert result.outcome is Outcome.EXECUTED
    assert result.counts == {t: len(rows) for t, rows in shop.person(1).items()}
    assert shop.checksum(without(after, 1)) == shop.checksum(without(before, 1))
    mine = {t: [r for r in rows if r not in without(after, 1)[t]] for t, rows in after.items()}
    assert {t: r for t, r in mine.items() if r} == {
        "comments": [(101, None, "masked"), (102, None, "masked")],
        "messages": [(101, None if "duckdb" not in filled else 1, None, None)],
    }


def test_erasing_again_finds_nothing_and_harms_nothing(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    first = shop.task(Action.ERASE, 1, Identity("user_id", "1"))
    shop.perform(connector, first)
    before = shop.contents(filled)
    again = done(shop.only(shop.perform(connector, first)))
    assert again.outcome in {Outcome.NO_MATCH, Outcome.EXECUTED}
    assert not again.counts
    assert shop.contents(filled) == before


def test_a_person_nobody_knows_is_no_match(filled: str, tmp_path: Path) -> None:
    before = shop.contents(filled)
    connector = shop.system(filled, tmp_path)
    for action in (Action.DISCOVER, Action.ACCESS, Action.ERASE):
        assert done(shop.only(shop.perform(connector, shop.task(action, 77)))).outcome is Outcome.NO_MATCH
    assert shop.contents(filled) == before


def test_orders_within_the_tax_period_stay_with_their_items_and_say_why(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path, retain=RETAIN_ORDERS)
    result = done(shop.only(shop.perform(connector, shop.task(Action.ERASE, 1))))
    assert result.outcome is Outcome.RETAINED
    kept = {r.what: r for r in result.retained}
    assert (kept["orders"].records, kept["orders"].until) == (1, date(2036, 1, 31))
    assert (kept["order_items"].records, kept["order_items"].until) == (2, date(2036, 1, 31))
    assert kept["order_items"].legal_basis == "§ 147 AO"
    assert shop.execute(filled, "SELECT id, ship_to FROM orders WHERE user_id = 1") == [(102, None)]
    assert shop.execute(filled, "SELECT count(*) FROM order_items WHERE order_id = 102") == [(2,)]
    assert shop.execute(filled, "SELECT count(*) FROM order_items WHERE order_id = 101") == [(0,)]


def test_the_row_that_leads_to_a_kept_order_stays_masked_so_that_it_is_found_when_the_period_is_over(
    filled: str, tmp_path: Path
) -> None:
    connector = shop.system(filled, tmp_path, retain=RETAIN_ORDERS)
    known = shop.task(Action.ERASE, 1, Identity("user_id", "1"))
    shop.perform(connector, known)
    ((email, name, phone),) = shop.execute(filled, "SELECT email, name, phone FROM users WHERE id = 1")
    assert email.startswith("random:")
    assert (name, phone) == (None, None)

    again = done(shop.only(shop.perform(connector, known)))
    assert again.outcome is Outcome.RETAINED
    assert not again.counts

    later = shop.MemoryCall(now=shop.NOW.replace(year=2036, month=3))
    last = done(shop.only(shop.perform(connector, known, call=later)))
    assert last.outcome is Outcome.EXECUTED
    assert shop.execute(filled, "SELECT count(*) FROM users WHERE id = 1") == [(0,)]
    assert shop.execute(filled, "SELECT count(*) FROM orders WHERE user_id = 1") == [(0,)]


def test_a_reply_of_another_person_stays_and_lets_go_of_the_erased_post(filled: str, tmp_path: Path) -> None:
    shop.execute(filled, "UPDATE posts SET parent_id = 101 WHERE id = 201")
    connector = shop.system(filled, tmp_path)
    shop.perform(connector, shop.task(Action.ERASE, 1))
    ((parent, body),) = shop.execute(filled, "SELECT parent_id, body FROM posts WHERE id = 201")
    assert body == "post 2"
    assert parent is None or filled.startswith("duckdb"), "where a foreign key says so, the pointer is cleared"
    assert shop.execute(filled, "SELECT count(*) FROM posts WHERE user_id = 1") == [(0,)]


def test_an_erasure_is_verified_in_the_tables(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path, retain=RETAIN_ORDERS)
    known = (Identity("user_id", "1"), Identity("device_id", "dev-101"))
    look = shop.task(Action.VERIFY, 1, *known, options={"of": "erase"})

    untouched = shop.only(shop.perform(connector, look))
    assert isinstance(untouched, Fatal)
    assert "addresses 2" in str(untouched)

    shop.perform(connector, shop.task(Action.ERASE, 1, *known))
    assert done(shop.only(shop.perform(connector, look))).outcome is Outcome.VERIFIED


@pytest.mark.parametrize("sql_database", ["duckdb"], indirect=True)
def test_a_row_left_without_its_parent_is_found_by_verification_and_by_the_next_erasure(
    filled: str, tmp_path: Path
) -> None:
    connector = shop.system(filled, tmp_path)
    known = (Identity("user_id", "1"),)
    shop.execute(filled, "DELETE FROM users WHERE id = 1")
    look = shop.task(Action.VERIFY, 1, *known, options={"of": "erase"})
    assert "orders 2" in str(shop.only(shop.perform(connector, look)))
    shop.perform(connector, shop.task(Action.ERASE, 1, *known))
    assert done(shop.only(shop.perform(connector, look))).outcome is Outcome.VERIFIED


def test_only_the_categories_in_scope_are_erased(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    scope = frozenset({"user.contact"})
    shop.perform(connector, shop.task(Action.ERASE, 1, categories=scope))
    ((email, name, phone),) = shop.execute(filled, "SELECT email, name, phone FROM users WHERE id = 1")
    assert email.startswith("random:")
    assert (name, phone) == ("Name 1", None)
    assert shop.execute(filled, "SELECT count(*) FROM addresses WHERE user_id = 1") == [(0,)]
    assert shop.execute(filled, "SELECT count(*) FROM orders WHERE user_id = 1") == [(2,)]


def test_masks_are_as_the_map_and_the_settings_say(filled: str, tmp_path: Path) -> None:
    document = shop.dataset(masked=frozenset(shop.TABLES))
    connector = shop.system(
        filled,
        tmp_path,
        document,
        hash_salt="pepper",
        masking={
            "users.email": "hash",
            "users.name": {"strategy": "string_rewrite", "value": "gone"},
            "addresses.street": "random",
        },
    )
    erase = shop.task(Action.ERASE, 1, Identity("user_id", "1"))
    result = done(shop.only(shop.perform(connector, erase)))
    assert result.counts["users"] == 1
    ((email, name, phone),) = shop.execute(filled, "SELECT email, name, phone FROM users WHERE id = 1")
    assert email.startswith("sha256:")
    assert len(email) == 71
    assert (name, phone) == ("gone", None)
    streets = {s for (s,) in shop.execute(filled, "SELECT street FROM addresses WHERE city = 'masked'")}
    assert len(streets) == 2
    before = shop.contents(filled)
    assert not done(shop.only(shop.perform(connector, erase))).counts, "masking twice changes nothing"
    assert shop.contents(filled) == before
    look = shop.task(Action.VERIFY, 1, Identity("user_id", "1"), options={"of": "erase"})
    assert done(shop.only(shop.perform(connector, look))).outcome is Outcome.VERIFIED


def test_a_person_is_found_by_the_digest_of_their_address(filled: str, tmp_path: Path) -> None:
    digest = Identity("email", "person1@example.org").digest()
    connector = shop.system(filled, tmp_path)
    known = Task("r1/1", Action.ERASE, (Identity("email", digest, "sha256"),))
    result = done(shop.only(shop.perform(connector, known)))
    assert result.counts["users"] == result.counts["newsletter"] == 1
    assert shop.execute(filled, "SELECT count(*) FROM users") == [(2,)]


def test_an_address_shared_by_many_people_erases_nobody_unless_asked(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    by_address = Task("r1/1", Action.ERASE, (Identity("ip", "192.0.2.1"),))
    assert done(shop.only(shop.perform(connector, by_address))).outcome is Outcome.NO_MATCH
    asked = shop.system(filled, tmp_path, identify_by=["email", "ip"])
    found = done(shop.only(shop.perform(asked, by_address)))
    assert found.counts["devices"] == 6


def statements(connector: Sql, tasks: list[Task]) -> int:
    """How many statements an erasure sends."""
    count = 0

    def see(*_: object) -> None:
        nonlocal count
        count += 1

    engine = connector._database.engine
    sa.event.listen(engine, "before_cursor_execute", see)
    try:
        assert all(isinstance(r, Done) for r in shop.perform(connector, *tasks).values())
    finally:
        sa.event.remove(engine, "before_cursor_execute", see)
    return count


def test_fifty_people_take_as_many_statements_as_one(sql_database: str, tmp_path: Path) -> None:
    shop.create(sql_database)
    shop.seed(sql_database, range(1, 60))
    connector = shop.system(sql_database, tmp_path, retain=RETAIN_ORDERS)
    statements(connector, [shop.task(Action.ERASE, 55)])  # The catalogue is read once.
    one = statements(connector, [shop.task(Action.ERASE, 51)])
    fifty = statements(connector, [shop.task(Action.ERASE, n) for n in range(1, 51)])
    assert one == fifty
    assert shop.execute(sql_database, "SELECT count(*) FROM addresses") == [(7 * 2,)]


HOSTILE = [
    "person1@example.org' OR '1'='1",
    "'; DROP TABLE users; --",
    '"; DELETE FROM users; --',
    "%",
    "_erson1@example.org",
    "person1@example.org\0",
    "\\",
    ":email",
    "%(email)s",
    "\ud800",
    "x" * 10_000,
    "0 OR 1=1",
    "-1",
    "9" * 40,
    "1e3",
    "１",
    "",
]


def test_hostile_identity_values_match_nobody_and_change_nothing(filled: str, tmp_path: Path) -> None:
    before = shop.contents(filled)
    connector = shop.system(filled, tmp_path)
    tasks = [
        Task(f"r{n}/{kind}", Action.ERASE, (Identity(kind, value, form),))
        for n, value in enumerate(HOSTILE)
        for kind in ("email", "user_id", "device_id")
        for form in ("raw",)
    ]
    results = shop.perform(connector, *tasks)
    assert {done(r).outcome for r in results.values()} == {Outcome.NO_MATCH}
    assert shop.contents(filled) == before


def test_hostile_values_that_are_somebodys_own_are_found_like_any_other(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    own = "o'brien\";--%(x)s:y\\@example.org"
    shop.execute(filled, "UPDATE users SET email = :e WHERE id = 2", e=own.upper())
    result = done(shop.only(shop.perform(connector, Task("r/1", Action.ERASE, (Identity("email", own),)))))
    assert result.counts["users"] == 1
    assert shop.execute(filled, "SELECT id FROM users ORDER BY id") == [(1,), (3,)]
