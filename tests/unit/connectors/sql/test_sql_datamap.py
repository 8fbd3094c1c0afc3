from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from connectors.contract import Action, Fatal
from connectors.registry import load
from connectors.sql import Sql
from connectors.sql.datamap import DataMapFaults, Key
from connectors.sql.graph import order_by
from tests.support import sql_shop as shop

URL = "duckdb:////nowhere/x.duckdb"


def field_of(document: dict[str, Any], table: str, name: str) -> dict[str, Any]:
    collections = document["dataset"][0]["collections"]
    fields = next(c for c in collections if c["name"] == table)["fields"]
    found: dict[str, Any] = next(f for f in fields if f["name"] == name)
    return found


def faults(tmp_path: Path, document: dict[str, Any], **settings: Any) -> tuple[str, ...]:
    with pytest.raises(DataMapFaults) as caught:
        shop.system(URL, tmp_path, document, **settings)
    return caught.value.faults


def test_the_registry_finds_the_connector() -> None:
    assert load("sql") is Sql


def test_a_fides_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    connector = shop.system(URL, tmp_path)
    graph = connector._graph
    users, orders = Key("shop", "users"), Key("shop", "orders")
    assert graph.collections[Key("shop", "order_items")].primary_key == ("line_no", "order_id")
    assert any(e.parent == users and e.child == orders for e in graph.edges)
    assert not any(e.parent == orders and e.child == users for e in graph.edges), "an order leads to no user"
    composite = [e for e in graph.edges if e.child == Key("shop", "shipments")]
    assert [set(e.parent_fields) for e in composite] == [{"order_id", "line_no"}]
    assert not any(e.parent == e.child for e in graph.edges), "a reply's parent is structure, not ownership"
    ranks = {k: n for n, group in enumerate(graph.order) for k in group}
    assert all(ranks[e.parent] < ranks[e.child] for e in graph.edges)


def test_all_faults_are_named_at_once_with_file_collection_and_field(tmp_path: Path) -> None:
    document = shop.dataset()
    field_of(document, "orders", "user_id")["fides_meta"]["references"][0]["field"] = "userz.id"
    field_of(document, "profiles", "user_id")["fides_meta"]["references"][0]["field"] = "users.uuid"
    del field_of(document, "newsletter", "email")["fides_meta"]["identity"]
    found = faults(tmp_path, document)
    assert any("dataset.yml: shop.orders.user_id refers to shop.userz, which no dataset describes" in f for f in found)
    assert any("shop.profiles.user_id refers to shop.users.uuid, a field" in f for f in found)
    for unreachable in ("orders", "profiles", "newsletter", "order_items", "shipments"):
        assert any(f"shop.{unreachable} cannot be reached" in f for f in found)


def test_nested_fields_unknown_masks_and_missing_keys_are_refused(tmp_path: Path) -> None:
    document = shop.dataset()
    field_of(document, "users", "name")["fields"] = [{"name": "first"}]
    field_of(document, "users", "phone")["fides_meta"] = {"masking_strategy_override": {"strategy": "aes_encrypt"}}
    del field_of(document, "orders", "id")["fides_meta"]
    found = faults(tmp_path, document)
    assert any("shop.users.name: nested fields are not columns" in f for f in found)
    assert any("shop.users.phone: masking strategy 'aes_encrypt' is not known" in f for f in found)
    assert any("shop.orders has no field with `fides_meta.primary_key: true`" in f for f in found)


def test_settings_that_name_what_the_map_does_not_have_are_faults(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        shop.dataset(),
        retain={"invoices": {"reason": "r", "legal_basis": "l"}, "order_items": {"with": "posts"}},
        restrict=[{"table": "nope", "set": {"a": 1}}],
        suppress={"marketing": [{"table": "nor", "set": {"a": 1}}]},
        masking={"users.nick": "null_rewrite", "users.name": "hash"},
        case_sensitive=["users.mail"],
        identify_by=["email", "passport"],
    )
    for words in ("retain: invoices", "with: posts", "restrict: nope", "suppress: marketing: nor", "users.nick"):
        assert any(words in f for f in found), words
    for words in ("users.mail", "passport", "hash_salt is missing"):
        assert any(words in f for f in found), words


def test_what_tells_a_kept_row_apart_or_leads_to_others_cannot_be_masked(tmp_path: Path) -> None:
    document = shop.dataset()
    field_of(document, "profiles", "user_id")["fides_meta"]["references"][0]["field"] = "users.name"
    law = {"reason": "r", "legal_basis": "l"}
    retain = {"users": {**law, "mask": ["name", "phone"]}, "order_items": {**law, "mask": ["line_no"]}}
    found = faults(tmp_path, document, retain=retain)
    assert found == (
        "retain: users: mask: name is what leads to the rows that belong to kept ones; leave it out of `mask`",
        "retain: order_items: mask: line_no is in the primary key, which tells kept rows apart; leave it out of `mask`",
    )


def test_a_column_by_which_others_hold_an_identity_can_be_masked(tmp_path: Path) -> None:
    document = shop.dataset()
    field_of(document, "profiles", "user_id")["fides_meta"]["references"][0]["field"] = "users.email"
    shop.system(URL, tmp_path, document, retain={"users": {"reason": "r", "legal_basis": "l", "mask": ["email"]}})


def test_a_file_that_is_missing_or_no_dataset_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("dataset: [", encoding="utf-8")
    (tmp_path / "b.yml").write_text("systems: []", encoding="utf-8")
    (tmp_path / "d.yml").write_text(yaml.safe_dump({"dataset": [{"fides_key": "x y", "collections": []}]}))
    files = ["a.yml", "b.yml", "c.yml", "d.yml"]
    config = Sql.Config.model_validate({"url": URL, "datasets": files}, context={"directory": tmp_path})
    with pytest.raises(DataMapFaults) as caught:
        Sql("x", config)
    assert [f.partition(":")[0] for f in caught.value.faults] == ["a.yml", "b.yml", "c.yml", "d.yml"]


def test_references_lead_across_datasets_and_stop_at_other_systems(tmp_path: Path) -> None:
    document = shop.dataset()
    second = {
        "fides_key": "billing",
        "name": "Billing",
        "fides_meta": {"erase_after": ["stripe_data"]},
        "collections": [
            {
                "name": "orders",
                "fields": [
                    {"name": "id", "fides_meta": {"primary_key": True}},
                    {
                        "name": "customer",
                        "fides_meta": {
                            "references": [
                                {"dataset": "shop", "field": "users.id", "direction": "from"},
                                {"dataset": "stripe_data", "field": "customers.id", "direction": "from"},
                            ]
                        },
                    },
                ],
            }
        ],
    }
    document["dataset"].append(second)
    assert any("refers to stripe_data.customers" in f for f in faults(tmp_path, deepcopy(document)))
    connector = shop.system(URL, tmp_path, document, other_datasets={"stripe_data": "payments"})
    assert connector.erase_after() == {"payments"}
    assert connector._graph.names[Key("billing", "orders")] == "billing.orders"
    assert connector._graph.named("orders") is None


def test_what_is_skipped_is_neither_reached_nor_checked(tmp_path: Path) -> None:
    document = shop.dataset()
    skipped = next(c for c in document["dataset"][0]["collections"] if c["name"] == "newsletter")
    skipped["fides_meta"] = {"skip_processing": True}
    skipped["fields"] = [{"name": "anything"}]
    connector = shop.system(URL, tmp_path, document)
    assert Key("shop", "newsletter") not in connector._graph.collections


def test_other_databases_and_broken_urls_are_refused_without_showing_them(tmp_path: Path) -> None:
    for url in ("oracle://scott:tiger@host/x", "not a url with tiger in it"):
        with pytest.raises(Fatal) as caught:
            shop.system(url, tmp_path)
        assert "tiger" not in str(caught.value)


def test_a_period_without_a_beginning_is_refused(tmp_path: Path) -> None:
    for retain in ({"reason": "r", "legal_basis": "l", "years": 3}, {"reason": "r"}, {"with": "orders", "years": 1}):
        with pytest.raises(ValidationError):
            shop.system(URL, tmp_path, retain={"orders": retain})


def test_construction_touches_no_database(tmp_path: Path) -> None:
    connector = shop.system("postgresql+psycopg://nobody@192.0.2.1/none", tmp_path)
    assert Action.ERASE in connector.supports()
    connector.close()


def test_an_order_that_contradicts_itself_breaks_the_later_wish() -> None:
    ordered, broken = order_by(["a", "b", "c"], [("c", "a"), ("a", "b"), ("b", "c")])
    assert (ordered, broken) == (["c", "a", "b"], [("b", "c")])
