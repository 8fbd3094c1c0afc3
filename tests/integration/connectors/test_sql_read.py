from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import Action, Done, Identity, Outcome, Task
from tests.support import sql_shop as shop


@pytest.fixture
def filled(sql_database: str) -> str:
    shop.create(sql_database)
    shop.seed(sql_database, [1, 2, 3])
    return sql_database


def done(result: object) -> Done:
    assert isinstance(result, Done), result
    return result


def test_each_person_gets_their_own_records_and_nobody_elses(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    call = shop.MemoryCall()
    results = shop.perform(connector, shop.task(Action.ACCESS, 1), shop.task(Action.ACCESS, 2), call=call)
    for number in (1, 2):
        sink = call.sinks[f"r{number}/1"]
        assert done(results[f"r{number}/1"]).counts == {t: len(r) for t, r in shop.person(number).items()}
        assert sink.of("users") == [
            {"email": f"Person{number}@Example.org", "name": f"Name {number}", "phone": f"+49{number}"}
        ]
        assert [r["total"] for r in sink.of("orders")] in (["9.99", "19.99"], ["19.99", "9.99"])
        assert sink.of("profiles") == [{"bio": f"bio {number}", "born": "1990-02-28", "user_id": number}]
        json.dumps(sink.records)


def test_a_record_holds_only_the_columns_in_scope(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    call = shop.MemoryCall()
    narrow = shop.task(Action.ACCESS, 1, categories=frozenset({"user.contact"}))
    wide = shop.task(Action.ACCESS, 2, categories=frozenset({"user.name"}))
    shop.perform(connector, narrow, wide, call=call)
    assert call.sinks["r1/1"].of("users") == [{"email": "Person1@Example.org", "phone": "+491"}]
    assert call.sinks["r1/1"].of("orders") == []
    assert call.sinks["r2/1"].of("users") == [{"name": "Name 2"}]


def test_discovery_finds_every_identity_of_the_person(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    result = done(shop.only(shop.perform(connector, shop.task(Action.DISCOVER, 1))))
    assert {(i.type, i.value) for i in result.found} == {
        ("email", "person1@example.org"),
        ("user_id", "1"),
        ("phone", "+491"),
        ("device_id", "dev-101"),
        ("device_id", "dev-102"),
        ("ip", "192.0.2.1"),
    }
    assert connector.discovers() == {"email", "user_id", "phone", "device_id", "ip"}
    assert connector.identified_by() == {"email", "user_id", "phone", "device_id"}
    assert "user.contact.email" in connector.categories()


def test_discovery_after_a_masking_erasure_finds_no_masks(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path, shop.dataset(masked=frozenset(shop.TABLES)))
    known = Identity("user_id", "1")
    shop.perform(connector, shop.task(Action.ERASE, 1, known))
    result = done(shop.only(shop.perform(connector, shop.task(Action.DISCOVER, 1, known))))
    # Keys stay; where no foreign key holds it, even the devices' link to the person is gone.
    assert {i.type for i in result.found} == {"user_id", *(() if filled.startswith("duckdb") else ("device_id",))}


TYPES = {
    "postgresql": "u UUID, t TIMESTAMPTZ, b BYTEA, j JSONB, f DOUBLE PRECISION, i INET, a TIME, n NUMERIC(8,3)",
    "mysql": "u UUID, t TIMESTAMP NULL, b BLOB, j JSON, f DOUBLE, i INET6, a TIME, n DECIMAL(8,3)",
    "duckdb": "u UUID, t TIMESTAMPTZ, b BLOB, j JSON, f DOUBLE, i VARCHAR, a TIME, n DECIMAL(8,3)",
}


def test_values_of_many_types_become_json(sql_database: str, tmp_path: Path) -> None:
    kind = sql_database.partition(":")[0].partition("+")[0]
    shop.execute(sql_database, f"CREATE TABLE things (id INTEGER PRIMARY KEY, email VARCHAR(50), {TYPES[kind]})")
    blob = "'\\x00ff'::bytea" if kind == "postgresql" else "x'00ff'" if kind == "mysql" else "'\\x00\\xff'::BLOB"
    moment = "'2026-01-02 03:04:05'" + ("" if kind == "mysql" else "::TIMESTAMP AT TIME ZONE 'UTC'")
    shop.execute(
        sql_database,
        "INSERT INTO things VALUES (1, 'a@b.example', '6f9619ff-8b86-d011-b42d-00c04fc964ff', "
        f"{moment}, {blob}, '[1]', 0.5, '2001:db8::1', '01:02:03', 1.250)",
    )
    names = ["id", "email", *(part.split()[0] for part in TYPES[kind].split(", ") if part[1] == " ")]
    fields: list[dict[str, Any]] = [{"name": n, "data_categories": ["user"]} for n in names]
    fields[0]["fides_meta"] = {"primary_key": True}
    fields[1]["fides_meta"] = {"identity": "email"}
    document = {"dataset": [{"fides_key": "d", "name": "D", "collections": [{"name": "things", "fields": fields}]}]}
    connector = shop.system(sql_database, tmp_path, document)
    call = shop.MemoryCall()
    shop.perform(connector, Task("r/1", Action.ACCESS, (Identity("email", "a@b.example"),)), call=call)
    (record,) = call.sinks["r/1"].of("things")
    json.dumps(record)
    assert record["u"] == "6f9619ff-8b86-d011-b42d-00c04fc964ff"
    assert record["t"].startswith("2026-01-02T03:04:05")
    assert record["b"] == "AP8="
    assert record["n"] == "1.250"
    assert record["i"] == "2001:db8::1"


@dataclass
class CountingSink:
    records: int = 0

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        self.records += 1

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        self.records += count

    def attach(self, name: str, chunks: Any) -> None:
        raise AssertionError(name)


@dataclass
class CountingCall(shop.MemoryCall):
    counting: CountingSink = field(default_factory=CountingSink)

    def sink(self, task: Task) -> Any:
        return self.counting


def test_a_long_history_is_read_in_constant_memory(postgres_database: str, tmp_path: Path) -> None:
    shop.create(postgres_database)
    shop.seed(postgres_database, [1])
    shop.execute(
        postgres_database,
        "INSERT INTO comments SELECT 1000 + n, 1, repeat('x', 400) FROM generate_series(1, 30000) n",
    )
    connector = shop.system(postgres_database, tmp_path)
    shop.perform(connector, shop.task(Action.DISCOVER, 1))
    call = CountingCall()
    tracemalloc.start()
    shop.perform(connector, shop.task(Action.ACCESS, 1), call=call)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert call.counting.records > 30_000
    assert peak < 6_000_000, "12 MB of text pass through a few thousand rows at a time"


def test_a_person_may_be_known_by_several_values_of_one_type(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    both = shop.task(Action.ACCESS, 1, Identity("email", "person2@example.org"), Identity("user_id", "2"))
    result = done(shop.only(shop.perform(connector, both)))
    assert result.outcome is Outcome.EXECUTED
    assert result.counts["users"] == 2
