"""The database that people are erased from: twelve tables, forty rows a person, scattered as time scatters them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import yaml

PER_PERSON: Final = 40
"""Rows of each person, in all tables."""
KEPT: Final = 3
"""One person in this many has orders that the law keeps."""

COLUMNS: Final[Mapping[str, str]] = {
    # Parents first.
    "users": "id bigint PRIMARY KEY, email text NOT NULL UNIQUE, name text, phone text, signup timestamptz",
    "addresses": "id bigint PRIMARY KEY, user_id bigint NOT NULL, street text, city text NOT NULL",
    "devices": "id text PRIMARY KEY, user_id bigint NOT NULL, ip inet",
    "sessions": "id bigint PRIMARY KEY, device_id text NOT NULL, agent text",
    "posts": "id bigint PRIMARY KEY, user_id bigint NOT NULL, parent_id bigint, body text",
    "comments": "id bigint PRIMARY KEY, user_id bigint, body text NOT NULL",
    "messages": "id bigint PRIMARY KEY, sender_id bigint, recipient_id bigint, body text",
    "orders": "id bigint PRIMARY KEY, user_id bigint NOT NULL, placed date, total numeric(10, 2), ship_to text",
    "order_items": "order_id bigint, line_no integer, sku text, PRIMARY KEY (order_id, line_no)",
    "shipments": "id bigint PRIMARY KEY, order_id bigint, line_no integer, tracking text",
    "consents": "user_id bigint, purpose text, granted boolean NOT NULL, PRIMARY KEY (user_id, purpose)",
    "newsletter": "id bigint PRIMARY KEY, email text, topic text",
}
INDEXES: Final = (
    *("users (lower(email))", "newsletter (lower(email))"),
    *(f"{t} (user_id)" for t in ("addresses", "devices", "posts", "comments", "orders")),
    *("sessions (device_id)", "posts (parent_id)", "messages (sender_id)", "messages (recipient_id)"),
    "shipments (order_id, line_no)",
)
FOREIGN_KEYS: Final = (
    *((t, "user_id", "users (id)") for t in ("addresses", "devices", "posts", "comments", "orders", "consents")),
    ("sessions", "device_id", "devices (id)"),
    ("posts", "parent_id", "posts (id)"),
    *(("messages", c, "users (id)") for c in ("sender_id", "recipient_id")),
    ("order_items", "order_id", "orders (id)"),
    ("shipments", "order_id, line_no", "order_items (order_id, line_no)"),
)
# :n is the number of people. Row g of a table with k rows a person belongs to person 1 + g % n, so that a person's rows
# lie k-th parts of the table apart.
ROWS: Final[Mapping[str, tuple[int, str]]] = {
    "users": (1, "1 + g, 'Person' || 1 + g || '@Example.org', 'Name ' || g, '+49' || g, '2020-01-01'"),
    "addresses": (2, "g, 1 + g % :n, 'Some street ' || g, 'Kiel'"),
    "devices": (2, "'dev-' || g, 1 + g % :n, '192.0.2.1'"),
    "sessions": (6, "g, 'dev-' || g % (2 * :n), 'Mozilla/5.0 (X11; Linux x86_64) ' || g"),
    # Every other post replies to one of somebody else's.
    "posts": (4, "g, 1 + g % :n, CASE WHEN g % 2 = 1 THEN g * 7 / 10 END, repeat('what I think of it ', 5) || g"),
    "comments": (5, "g, 1 + g % :n, repeat('quite so ', 5) || g"),
    "messages": (4, "g, 1 + g % :n, 1 + (g * 31 + 17) % :n, repeat('between us ', 8) || g"),
    # Order o of person p is old, but for the second and third order of every KEPT-th person.
    "orders": (3, "g, 1 + g % :n, CASE WHEN g >= :n AND g % :n % :kept = 0 THEN DATE :new ELSE DATE :old END, 9, 'A'"),
    "order_items": (6, "g % (3 * :n), 1 + g / (3 * :n), 'sku-' || g % 5000"),
    "shipments": (3, "g, g, 1, 'T' || g"),
    "consents": (3, "1 + g % :n, (ARRAY['marketing', 'analytics', 'research'])[1 + g / :n], true"),
    "newsletter": (1, "g, 'Person' || 1 + g || '@Example.org', 'news'"),
}  # fmt: skip

RETAIN: Final[Mapping[str, Any]] = {
    "orders": {"reason": "tax records", "legal_basis": "§ 147 AO", "years": 10, "from": "placed", "mask": ["ship_to"]},
    "order_items": {"with": "orders"},
}
MASKED: Final = frozenset({"comments", "messages"})
CATEGORIES: Final[Mapping[str, str]] = {
    "email": "user.contact.email",
    "name": "user.name",
    "ship_to": "user.name",
    "phone": "user.contact.phone_number",
    "street": "user.contact.address.street",
    "city": "user.contact.address.city",
    "ip": "user.device",
    "agent": "user.device",
    "body": "user.content",
    "total": "user.financial",
    **dict.fromkeys(("placed", "sku", "tracking"), "user.behavior"),
    "granted": "user.privacy_preferences",
    "topic": "user.preferences",
    "user_id": "user.unique_id",
}
IDENTITIES: Final = {("users", "email"): "email", ("newsletter", "email"): "email", ("users", "id"): "user_id"}
KEYS: Final = {"order_items": ("order_id", "line_no"), "consents": ("user_id", "purpose")}


def create(connection: psycopg.Connection, people: int) -> None:
    """Make and fill the tables; keys and indexes come after the rows."""
    for table, columns in COLUMNS.items():
        _run(connection, f"CREATE TABLE {table} ({columns})")
        each, values = ROWS[table]
        for name, value in (
            (":new", "'2024-05-01'"),
            (":old", "'2009-05-01'"),
            (":kept", str(KEPT)),
            (":n", str(people)),
        ):
            values = values.replace(name, value)
        _run(connection, f"INSERT INTO {table} SELECT {values} FROM generate_series(0, {each * people - 1}) AS g")
    for index in INDEXES:
        _run(connection, f"CREATE INDEX ON {index}")
    for table, columns, target in FOREIGN_KEYS:
        _run(connection, f"ALTER TABLE {table} ADD FOREIGN KEY ({columns}) REFERENCES {target}")


def _run(connection: psycopg.Connection, statement: str) -> None:
    connection.execute(statement)


def addresses(numbers: Sequence[int]) -> list[str]:
    """The e-mail addresses by which people ask to be erased: not in the case in which they are stored."""
    return [f"person{n}@example.org" for n in numbers]


def write_data_map(folder: Path) -> Path:
    """The data map of these tables, as a Fides dataset file."""
    collections = [_collection(table, columns) for table, columns in COLUMNS.items()]
    path = folder / "dataset.yml"
    path.write_text(yaml.safe_dump({"dataset": [{"fides_key": "shop", "collections": collections}]}, sort_keys=False))
    return path


def _collection(table: str, columns: str) -> dict[str, Any]:
    names = [part.split()[0] for part in columns.partition(", PRIMARY KEY")[0].split(", ") if part[0].isalpha()]
    found: dict[str, Any] = {"name": table, "fields": [_field(table, n) for n in names]}
    if table not in MASKED:
        found["fides_meta"] = {"masking_strategy_override": {"strategy": "delete"}}
    return found


def _field(table: str, name: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"primary_key": True} if name in KEYS.get(table, ("id",)) else {}
    if (table, name) in IDENTITIES:
        meta["identity"] = IDENTITIES[table, name]
    for child, columns, target in FOREIGN_KEYS:
        parent, _, keys = target.rstrip(")").partition(" (")
        if child == table != parent and name in columns.split(", "):
            key = keys.split(", ")[columns.split(", ").index(name)]
            meta.setdefault("references", []).append(
                {"dataset": "shop", "field": f"{parent}.{key}", "direction": "from"}
            )
    found: dict[str, Any] = {"name": name, "fides_meta": meta}
    if name in CATEGORIES:
        found["data_categories"] = [CATEGORIES[name]]
    return found
