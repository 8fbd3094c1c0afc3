"""The check of the event warehouse: read with DuckDB itself, compared row by row."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb

from examples.shop.check.model import Expectation, Finding, Row, Table, TableSpec, compare, read_table
from examples.shop.people import Request

__all__ = ["check", "expect", "read"]

SYSTEM = "analytics"
PATIENCE_SECONDS = 15

SPECS = (
    TableSpec("identities", owner="user_id"),
    TableSpec("events", owner="anonymous_id", through="identities"),
    TableSpec("devices", owner="anonymous_id", through="identities"),
    TableSpec("geo", key=2, owner="anonymous_id", through="identities"),
    TableSpec("ad_partner_audiences", key=3, owner="anonymous_id", through="identities"),
    TableSpec("daily_sales", owner=None),
)

MEASURING = frozenset({"analytics", "personalisation"})
"""The purposes that events are collected for."""
ADVERTISING = frozenset({"marketing", "advertising"})
"""The purposes that advertising partners' audiences serve."""


def _opened(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection, as soon as no other process has the file open: DuckDB lets in one at a time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return duckdb.connect(str(path), read_only=True)
        except duckdb.IOException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def read(path: Path) -> dict[str, Table]:
    """The whole warehouse."""
    tables: dict[str, Table] = {}
    with _opened(path) as connection:

        def rows(name: str) -> tuple[tuple[str, ...], Iterable[Row]]:
            found = connection.execute(f'select * from "{name}"')  # noqa: S608 - the names are those above
            return tuple(column[0] for column in found.description), found.fetchall()

        for spec in SPECS:
            tables[spec.name] = read_table(spec, rows, tables, lambda value: str(value or ""))
    return tables


def expect(before: Mapping[str, Table], requests: Sequence[Request]) -> dict[str, Expectation]:
    """How each table should have changed."""
    expected = {name: Expectation() for name in before}
    by_person = {request.person.user_id: request for request in requests}
    for table in before.values():
        for key, owner in table.owners.items():
            request = by_person.get(owner)
            if request:
                _expect_row(table, key, request, expected[table.name])
    return expected


def _expect_row(table: Table, key: Row, request: Request, expected: Expectation) -> None:
    match request.right:
        case "erasure":
            expected.gone.add(key)
        case "rectification" if table.name == "identities" and "user.contact.email" in request.corrections:
            expected.change(key, email=request.corrections["user.contact.email"])
        case "restriction" if table.name == "identities":
            expected.change(key, restricted=True)
        case "objection" if table.name == "identities" and request.purposes & MEASURING:
            expected.change(key, opted_out=True)
        case "objection" if table.name == "ad_partner_audiences" and request.purposes & ADVERTISING:
            expected.change(key, active=False)
        case _:
            pass


def check(before: Mapping[str, Table], path: Path, requests: Sequence[Request]) -> Iterator[Finding]:
    """Everything in the warehouse that is not as the requests ask."""
    after = read(path)
    expected = expect(before, requests)
    for name, table in before.items():
        yield from compare(SYSTEM, table, after[name], expected[name])
