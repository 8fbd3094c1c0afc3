from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connectors.contract import Action, Done, Fatal, Identity, Outcome
from tests.support import sql_shop as shop

RIGHTS: dict[str, Any] = {
    "restrict": [{"table": "users", "set": {"state": "restricted"}}],
    "suppress": {
        "marketing": [
            {"table": "consents", "where": {"purpose": "marketing"}, "set": {"granted": False}},
            {"table": "newsletter", "set": {"topic": None}},
        ],
        "analytics": [{"table": "consents", "where": {"purpose": "analytics"}, "set": {"granted": False}}],
    },
}


@pytest.fixture
def filled(sql_database: str) -> str:
    shop.create(sql_database)
    shop.seed(sql_database, [1, 2, 3])
    return sql_database


def done(result: object) -> Done:
    assert isinstance(result, Done), result
    return result


def test_a_correction_is_written_to_every_field_of_its_category_and_holds(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    before = shop.contents(filled)
    one = shop.task(Action.RECTIFY, 1, corrections={"user.name": "Ada O'Lovelace", "user.unknown": "x"})
    two = shop.task(Action.RECTIFY, 2, corrections={"user.demographic.date_of_birth": "1815-12-10"})
    results = shop.perform(connector, one, two)
    assert done(results["r1/1"]).counts == {"users": 1, "orders": 2}
    assert done(results["r2/1"]).counts == {"profiles": 1}
    assert shop.execute(filled, "SELECT name FROM users ORDER BY id") == [("Ada O'Lovelace",), ("Name 2",), ("Name 3",)]
    born = {str(b) for (b,) in shop.execute(filled, "SELECT born FROM profiles WHERE user_id = 2")}
    assert born == {"1815-12-10"}
    assert shop.contents(filled)["addresses"] == before["addresses"]

    look = shop.task(Action.VERIFY, 1, corrections=one.corrections, options={"of": "rectify"})
    assert done(shop.only(shop.perform(connector, look))).outcome is Outcome.VERIFIED
    other = shop.task(Action.VERIFY, 2, corrections={"user.name": "Nobody"}, options={"of": "rectify"})
    assert "users 1" in str(shop.only(shop.perform(connector, other)))


def test_a_corrected_address_is_verified_although_the_old_one_leads_nowhere(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    new = {"user.contact.email": "new@example.org"}
    shop.perform(connector, shop.task(Action.RECTIFY, 1, corrections=new))
    assert shop.execute(filled, "SELECT email FROM newsletter WHERE id = 101") == [("new@example.org",)]
    look = shop.task(Action.VERIFY, 1, corrections=new, options={"of": "rectify"})
    assert done(shop.only(shop.perform(connector, look))).outcome is Outcome.VERIFIED


@pytest.mark.parametrize(
    ("category", "value", "says"),
    [
        ("user.contact.address.city", "x" * 51, "longer than the 50 characters"),
        ("user.demographic.date_of_birth", "yesterday", "is not a date"),
        ("user.name", "a\0b", "NUL"),
        ("user.unique_id", "9", "is a key"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_naming_the_category_not_the_value(
    filled: str, tmp_path: Path, category: str, value: str, says: str
) -> None:
    document = shop.dataset()
    cities = next(c for c in document["dataset"][0]["collections"] if c["name"] == "addresses")["fields"]
    next(f for f in cities if f["name"] == "city")["fides_meta"] = {"length": 50}  # DuckDB's columns have no length.
    connector = shop.system(filled, tmp_path, document)
    before = shop.contents(filled)
    bad = shop.task(Action.RECTIFY, 1, corrections={category: value})
    good = shop.task(Action.RECTIFY, 2, corrections={"user.name": "Grace"})
    results = shop.perform(connector, bad, good)
    assert isinstance(results["r1/1"], Fatal)
    assert category in str(results["r1/1"])
    assert says in str(results["r1/1"])
    assert value == "9" or value not in str(results["r1/1"])
    assert done(results["r2/1"]).counts == {"users": 1, "orders": 2}
    assert shop.contents(filled)["profiles"] == before["profiles"]


def test_an_address_that_is_taken_is_refused_and_the_others_corrections_are_made(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    taken = shop.task(Action.RECTIFY, 1, corrections={"user.contact.email": "Person3@Example.org"})
    fine = shop.task(Action.RECTIFY, 2, corrections={"user.contact.email": "two@example.org"})
    results = shop.perform(connector, taken, fine)
    assert isinstance(results["r1/1"], Fatal)
    assert "users" in str(results["r1/1"])
    assert "@" not in str(results["r1/1"])
    assert done(results["r2/1"]).outcome is Outcome.EXECUTED
    emails = [e.lower() for (e,) in shop.execute(filled, "SELECT email FROM users ORDER BY id")]
    assert emails == ["person1@example.org", "two@example.org", "person3@example.org"]


def test_a_restriction_is_set_for_the_person_alone_and_verified(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path, **RIGHTS)
    look = shop.task(Action.VERIFY, 1, options={"of": "restrict"})
    assert "users 1" in str(shop.only(shop.perform(connector, look)))
    result = done(shop.only(shop.perform(connector, shop.task(Action.RESTRICT, 1))))
    assert result.counts == {"users": 1}
    assert shop.execute(filled, "SELECT state FROM users ORDER BY id") == [("restricted",), ("active",), ("active",)]
    assert done(shop.only(shop.perform(connector, look))).outcome is Outcome.VERIFIED


def test_an_objection_stops_the_purposes_it_names_and_no_other(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path, **RIGHTS)
    marketing = shop.task(Action.SUPPRESS, 1, purposes=frozenset({"marketing"}))
    everything = shop.task(Action.SUPPRESS, 2)
    other = shop.task(Action.SUPPRESS, 3, purposes=frozenset({"profiling"}))
    results = shop.perform(connector, marketing, everything, other)
    assert done(results["r1/1"]).counts == {"consents": 1, "newsletter": 1}
    assert done(results["r2/1"]).counts == {"consents": 2, "newsletter": 1}
    assert done(results["r3/1"]).outcome is Outcome.UNSUPPORTED
    rows = shop.execute(filled, "SELECT user_id, purpose, granted FROM consents ORDER BY user_id, purpose")
    assert [bool(g) for *_, g in rows] == [True, False, False, False, True, True]
    look = shop.task(Action.VERIFY, 1, purposes=frozenset({"marketing"}), options={"of": "suppress"})
    assert done(shop.only(shop.perform(connector, look))).outcome is Outcome.VERIFIED
    wider = shop.task(Action.VERIFY, 1, Identity("user_id", "1"), options={"of": "suppress"})
    assert "consents 1" in str(shop.only(shop.perform(connector, wider)))


def test_a_system_without_such_settings_does_not_offer_restriction_or_suppression(tmp_path: Path) -> None:
    bare = shop.system("duckdb:////nowhere/x.duckdb", tmp_path)
    full = shop.system("duckdb:////nowhere/x.duckdb", tmp_path, **RIGHTS)
    assert full.supports() - bare.supports() == {Action.RESTRICT, Action.SUPPRESS}
    assert Action.ERASE in bare.supports()
