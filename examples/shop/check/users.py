"""The check of the user database: read with the shop's own SQL, compared row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import psycopg
from psycopg import sql

from examples.shop.check.model import (
    ANYTHING,
    DIFFERENT,
    Expectation,
    Finding,
    Row,
    Table,
    TableSpec,
    compare,
    read_table,
)
from examples.shop.people import Request
from examples.shop.users import driver_url

__all__ = ["check", "expect", "read"]

SYSTEM = "users"

SPECS = (
    TableSpec("products", owner=None),
    TableSpec("accounts", owner="id"),
    TableSpec("profiles"),
    TableSpec("addresses"),
    TableSpec("social_logins", key=2),
    TableSpec("payment_methods"),
    TableSpec("files"),
    TableSpec("posts"),
    TableSpec("comments"),
    TableSpec("messages", owner="sender_id"),
    TableSpec("emails_sent"),
    TableSpec("support_tickets"),
    TableSpec("ticket_replies", key=2, owner="ticket_id", through="support_tickets"),
    TableSpec("devices"),
    TableSpec("sessions"),
    TableSpec("search_queries"),
    TableSpec("consents"),
    TableSpec("cookies"),
    TableSpec("partner_data"),
    TableSpec("orders"),
    TableSpec("order_items", key=2, owner="order_id", through="orders"),
)

POINTERS = (
    ("comments", "post_id", "posts"),
    ("comments", "parent_id", "comments"),
    ("messages", "recipient_id", "accounts"),
)
"""(table, column, table it points to): becomes null when what it points to is erased; the row stays."""

KEPT: Mapping[str, tuple[str, ...]] = {"orders": ("recipient", "street", "postal_code", "city"), "order_items": ()}
"""Table kept for the tax period → its columns that are masked."""

SHELL: Mapping[str, object] = {
    **dict.fromkeys(("email", "phone", "username", "password_hash", "stripe_customer_id"), DIFFERENT),
    **dict.fromkeys(("created_at", "last_login_at", "restricted", "restricted_at"), ANYTHING),
}
"""What becomes of the account that orders must stay with: nothing in it says any more whose it was."""

CORRECTED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "user.name": (("profiles", "display_name"), ("addresses", "recipient")),
    "user.name.last": (("profiles", "last_name"),),
    "user.contact.email": (("accounts", "email"),),
    "user.contact.address.street": (("addresses", "street"),),
    "user.contact.address.postal_code": (("addresses", "postal_code"),),
    "user.contact.address.city": (("addresses", "city"),),
    "user.contact.address.country": (("addresses", "country"),),
}
"""Data category → the columns that hold what is true today; what was sent or sold once is history and stays."""


def read(url: str) -> dict[str, Table]:
    """The whole database, in one snapshot."""
    tables: dict[str, Table] = {}
    with psycopg.connect(driver_url(url)) as connection, connection.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")

        def rows(name: str) -> tuple[tuple[str, ...], Iterable[Row]]:
            cursor.execute(sql.SQL("select * from {}").format(sql.Identifier(name)))
            return tuple(column.name for column in cursor.description or ()), cursor.fetchall()

        for spec in SPECS:
            tables[spec.name] = read_table(spec, rows, tables, lambda value: str(value or ""))
    return tables


def expect(before: Mapping[str, Table], requests: Sequence[Request]) -> dict[str, Expectation]:
    """How each table should have changed."""
    expected = {name: Expectation() for name in before}
    by_person = {request.person.user_id: request for request in requests}
    ordered = set(before["orders"].owners.values())
    for table in before.values():
        for key, owner in table.owners.items():
            request = by_person.get(owner)
            if request is None:
                continue
            if table.name == "accounts" and request.right == "erasure" and owner in ordered:
                expected[table.name].change(key, **SHELL)
            else:
                _expect_row(table, key, request, expected[table.name])
    for table_name, column, target in POINTERS:
        table, gone = before[table_name], expected[target].gone
        at = table.columns.index(column)
        for key, row in table.rows.items():
            if (row[at],) in gone and key not in expected[table_name].gone:
                expected[table_name].change(key, **{column: None})
    return expected


def _expect_row(table: Table, key: Row, request: Request, expected: Expectation) -> None:
    match request.right:
        case "erasure" if table.name in KEPT:
            if KEPT[table.name]:
                expected.change(key, **dict.fromkeys(KEPT[table.name], DIFFERENT))
        case "erasure":
            expected.gone.add(key)
        case "rectification":
            for category, columns in CORRECTED.items():
                if category in request.corrections:
                    new = request.corrections[category]
                    expected.change(key, **{column: new for name, column in columns if name == table.name})
        case "restriction" if table.name == "accounts":
            expected.change(key, restricted=True, restricted_at=ANYTHING)
        case "restriction" if table.name == "profiles":
            expected.change(key, hidden=True)
        case "objection" if table.name == "consents" and table.value(key, "purpose") in request.purposes:
            expected.change(key, granted=False, changed_at=ANYTHING)
        case _:
            pass


def check(before: Mapping[str, Table], url: str, requests: Sequence[Request]) -> Iterator[Finding]:
    """Everything in the database that is not as the requests ask."""
    after = read(url)
    expected = expect(before, requests)
    for name, table in before.items():
        yield from compare(SYSTEM, table, after[name], expected[name])
