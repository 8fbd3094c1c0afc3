"""A shop of thirteen tables for the SQL connector's tests, the same on PostgreSQL, MariaDB and DuckDB."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
import yaml
from sqlalchemy.pool import NullPool

from connectors.contract import Action, Identity, Result, Task
from connectors.sql import Sql

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

TABLES: Mapping[str, str] = {
    # Parents first. Foreign keys are left out on DuckDB, as warehouses do.
    "users": "id BIGINT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, name VARCHAR(100), phone VARCHAR(40), "
    "signup TIMESTAMP NULL, state VARCHAR(20) NOT NULL DEFAULT 'active'",
    "profiles": "user_id BIGINT PRIMARY KEY, bio TEXT, born DATE, FOREIGN KEY (user_id) REFERENCES users (id)",
    "addresses": "id BIGINT PRIMARY KEY, user_id BIGINT NOT NULL, street VARCHAR(100), city VARCHAR(50) NOT NULL, "
    "FOREIGN KEY (user_id) REFERENCES users (id)",
    "devices": "id VARCHAR(40) PRIMARY KEY, user_id BIGINT NOT NULL, ip VARCHAR(45), "
    "FOREIGN KEY (user_id) REFERENCES users (id)",
    "sessions": "id BIGINT PRIMARY KEY, device_id VARCHAR(40) NOT NULL, agent VARCHAR(200), "
    "FOREIGN KEY (device_id) REFERENCES devices (id)",
    "posts": "id BIGINT PRIMARY KEY, user_id BIGINT NOT NULL, parent_id BIGINT, body TEXT, "
    "FOREIGN KEY (user_id) REFERENCES users (id), FOREIGN KEY (parent_id) REFERENCES posts (id)",
    "comments": "id BIGINT PRIMARY KEY, user_id BIGINT, body VARCHAR(500) NOT NULL, "
    "FOREIGN KEY (user_id) REFERENCES users (id)",
    "messages": "id BIGINT PRIMARY KEY, sender_id BIGINT, recipient_id BIGINT, body TEXT, "
    "FOREIGN KEY (sender_id) REFERENCES users (id), FOREIGN KEY (recipient_id) REFERENCES users (id)",
    "orders": "id BIGINT PRIMARY KEY, user_id BIGINT NOT NULL, placed DATE, total DECIMAL(10,2), "
    "ship_to VARCHAR(100), FOREIGN KEY (user_id) REFERENCES users (id)",
    "order_items": "order_id BIGINT, line_no INTEGER, sku VARCHAR(40), PRIMARY KEY (order_id, line_no), "
    "FOREIGN KEY (order_id) REFERENCES orders (id)",
    "shipments": "id BIGINT PRIMARY KEY, order_id BIGINT, line_no INTEGER, tracking VARCHAR(40), "
    "FOREIGN KEY (order_id, line_no) REFERENCES order_items (order_id, line_no)",
    "consents": "user_id BIGINT, purpose VARCHAR(20), granted BOOLEAN NOT NULL, PRIMARY KEY (user_id, purpose), "
    "FOREIGN KEY (user_id) REFERENCES users (id)",
    "newsletter": "id BIGINT PRIMARY KEY, email VARCHAR(255), topic VARCHAR(40)",
}

CATEGORIES = {
    "email": "user.contact.email",
    "name": "user.name",
    "ship_to": "user.name",
    "phone": "user.contact.phone_number",
    "bio": "user.content.self_image",
    "born": "user.demographic.date_of_birth",
    "street": "user.contact.address.street",
    "city": "user.contact.address.city",
    "ip": "user.device.ip_address",
    "agent": "user.device",
    "body": "user.content.private",
    "total": "user.financial",
    "tracking": "user.behavior.purchase_history",
    "sku": "user.behavior.purchase_history",
    "placed": "user.behavior.purchase_history",
    "topic": "user.preferences",
    "granted": "user.privacy_preferences",
    "user_id": "user.unique_id",
}
IDENTITIES = {
    ("users", "email"): "email",
    ("users", "id"): "user_id",
    ("users", "phone"): "phone_number",
    ("devices", "id"): "device_id",
    ("devices", "ip"): "ip",
    ("newsletter", "email"): "email",
}
KEYS = {"profiles": ["user_id"], "order_items": ["order_id", "line_no"], "consents": ["user_id", "purpose"]}
REFERENCES = {
    **{
        (t, "user_id"): "users.id"
        for t in ("profiles", "addresses", "devices", "posts", "comments", "orders", "consents")
    },
    ("sessions", "device_id"): "devices.id",
    ("posts", "parent_id"): "posts.id",
    ("messages", "sender_id"): "users.id",
    ("messages", "recipient_id"): "users.id",
    ("order_items", "order_id"): "orders.id",
    ("shipments", "order_id"): "order_items.order_id",
    ("shipments", "line_no"): "order_items.line_no",
}
MASKED = frozenset({"comments", "messages"})
"""Collections whose rows are masked; the rows of all others are deleted."""


def dataset(masked: frozenset[str] = MASKED) -> dict[str, Any]:
    """The Fides dataset of the shop."""
    collections = []
    for table, ddl in TABLES.items():
        names = [part.split()[0] for part in _columns(ddl)]
        fields = [_field(table, n) for n in names]
        found: dict[str, Any] = {"name": table, "fields": fields}
        if table not in masked:
            found["fides_meta"] = {"masking_strategy_override": {"strategy": "delete"}}
        collections.append(found)
    return {"dataset": [{"fides_key": "shop", "name": "Shop", "collections": collections}]}


def _columns(ddl: str) -> list[str]:
    flat, depth, part = [], 0, ""
    for letter in ddl + ",":
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            flat.append(part.strip())
            part = ""
        else:
            part += letter
    return [p for p in flat if not p.startswith(("PRIMARY KEY", "FOREIGN KEY"))]


def _field(table: str, name: str) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if name in KEYS.get(table, ["id"]):
        meta["primary_key"] = True
    if (table, name) in IDENTITIES:
        meta["identity"] = IDENTITIES[table, name]
    if (table, name) in REFERENCES:
        reference = {"dataset": "shop", "field": REFERENCES[table, name]}
        meta["references"] = [
            reference if table == "posts" and name == "parent_id" else {**reference, "direction": "from"}
        ]
    found: dict[str, Any] = {"name": name}
    if name in CATEGORIES:
        found["data_categories"] = [CATEGORIES[name]]
    return found | ({"fides_meta": meta} if meta else {})


def create(url: str) -> None:
    """Create the tables."""
    if url.startswith("duckdb"):
        Path(url.removeprefix("duckdb:///")).write_bytes(_duckdb())
        return
    with connected(url) as connection:
        for table, ddl in TABLES.items():
            connection.execute(sa.text(f"CREATE TABLE {table} ({ddl})"))


@cache
def _duckdb() -> bytes:
    """A file with the tables: making them takes longer than most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with connected(f"duckdb:///{path}") as connection:
            for table, ddl in TABLES.items():
                bare = ", ".join([*_columns(ddl), *_primary(ddl)])
                connection.execute(sa.text(f"CREATE TABLE {table} ({bare})"))
        return path.read_bytes()


def _primary(ddl: str) -> list[str]:
    start = ddl.find(", PRIMARY KEY (")
    return [ddl[start + 2 : ddl.index(")", start) + 1]] if start >= 0 else []


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A connection in a transaction, for a test's own looks and changes."""
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def execute(url: str, statement: str, **values: object) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows, if any."""
    with connected(url) as connection:
        result = connection.execute(sa.text(statement), values)
        return [tuple(r) for r in result] if result.returns_rows else []


def person(number: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of one person: two of nearly everything."""
    base, email = number * 100, f"Person{number}@Example.org"
    return {
        "users": [{"id": number, "email": email, "name": f"Name {number}", "phone": f"+49{number}", "state": "active"}],
        "profiles": [{"user_id": number, "bio": f"bio {number}", "born": "1990-02-28"}],
        "addresses": [{"id": base + n, "user_id": number, "street": f"S {n}", "city": "Kiel"} for n in (1, 2)],
        "devices": [{"id": f"dev-{base + n}", "user_id": number, "ip": "192.0.2.1"} for n in (1, 2)],
        "sessions": [{"id": base + n, "device_id": f"dev-{base + n}", "agent": f"A {number}"} for n in (1, 2)],
        "posts": [{"id": base + n, "user_id": number, "parent_id": None, "body": f"post {number}"} for n in (1, 2)],
        "comments": [{"id": base + n, "user_id": number, "body": f"comment {number}"} for n in (1, 2)],
        "messages": [{"id": base + 1, "sender_id": number, "recipient_id": None, "body": f"message {number}"}],
        "orders": [
            {"id": base + 1, "user_id": number, "placed": "2010-01-31", "total": "9.99", "ship_to": f"Name {number}"},
            {"id": base + 2, "user_id": number, "placed": "2026-01-31", "total": "19.99", "ship_to": f"Name {number}"},
        ],
        "order_items": [{"order_id": base + o, "line_no": n, "sku": f"sku-{n}"} for o in (1, 2) for n in (1, 2)],
        "shipments": [{"id": base + n, "order_id": base + n, "line_no": 1, "tracking": f"T{base + n}"} for n in (1, 2)],
        "consents": [{"user_id": number, "purpose": p, "granted": True} for p in ("marketing", "analytics")],
        "newsletter": [{"id": base + 1, "email": email.upper(), "topic": "news"}],
    }


def seed(url: str, people: Sequence[int]) -> None:
    """Insert the rows of some people."""
    with connected(url) as connection:
        for table in TABLES:
            rows = [row for n in people for row in person(n)[table]]
            columns = ", ".join(rows[0])
            values = ", ".join(f":{c}" for c in rows[0])
            connection.execute(sa.text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), rows)


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sorted."""
    with connected(url) as connection:
        return {
            table: sorted((tuple(r) for r in connection.execute(sa.text(f"SELECT * FROM {table}"))), key=repr)
            for table in TABLES
        }


def checksum(rows: Mapping[str, Sequence[tuple[Any, ...]]]) -> str:
    """A digest of rows, to compare before and after."""
    return hashlib.sha256(repr(sorted(rows.items())).encode()).hexdigest()


# The connector. --------------------------------------------------------------------------------------------------


@dataclass
class MemorySink:
    """Keeps what was gathered."""

    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        """Keep a record."""
        self.records.append((collection, dict(record)))

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        """Keep records that are JSON already."""
        records = [json.loads(line) for line in lines.decode().removesuffix("\n").split("\n")]
        assert lines.endswith(b"\n")
        assert len(records) == count
        for record in records:
            self.write(collection, record)

    def attach(self, name: str, chunks: Any) -> None:
        """No connector of tables attaches files."""
        raise AssertionError(name)

    def of(self, collection: str) -> list[dict[str, Any]]:
        """The records of one collection."""
        return [r for c, r in self.records if c == collection]


@dataclass
class MemoryCall:
    """A call with a fixed time and sinks in memory."""

    now: datetime = NOW
    sinks: dict[str, MemorySink] = field(default_factory=dict)

    def sink(self, task: Task) -> MemorySink:
        """The sink of a task."""
        return self.sinks.setdefault(task.key, MemorySink())


def system(url: str, folder: Path, document: Mapping[str, Any] | None = None, **settings: Any) -> Sql:
    """A connector for a data map (the shop's, unless another is given) and settings."""
    path = folder / "dataset.yml"
    path.write_text(yaml.safe_dump(document or dataset(), sort_keys=False), encoding="utf-8")
    config = Sql.Config.model_validate(
        {"url": url, "datasets": ["dataset.yml"], **settings}, context={"directory": folder}
    )
    return Sql("shop", config)


def task(action: Action, number: int, *more: Identity, **options: Any) -> Task:
    """A task for a person of the shop, known by e-mail address (and by ``more``)."""
    return Task(f"r{number}/1", action, (Identity("email", f"person{number}@example.org"), *more), **options)


def perform(connector: Sql, *tasks: Task, call: MemoryCall | None = None) -> dict[str, Result]:
    """Carry out tasks of one action; results by task key."""
    done = connector.perform(tasks[0].action, tasks, call or MemoryCall())
    return {t.key: result for t, result in done}


def only(results: Mapping[str, Result]) -> Result:
    """The result of the one task there was."""
    (result,) = results.values()
    return result
