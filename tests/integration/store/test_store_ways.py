"""What many things have in common is sent once; each of them has its rows all the same."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from orchestrator.store import bulk, tables
from orchestrator.store.database import Database

COUNTS = {"a": 1, "b": {"c": [None]}}
ROUTES = st.lists(st.lists(st.sampled_from(["users", "orders", "naïve"]), max_size=3), min_size=1, max_size=4)


@pytest.fixture
def database(migrated_database: str) -> Iterator[Database]:
    """A database of its own."""
    made = Database(migrated_database)
    yield made
    made.close()


def stored(database: Database, ids: list[UUID]) -> dict[UUID, list[tuple[int, str, int, object]]]:
    query = text('SELECT request_id, ordinal, system, bytes, counts FROM "artifact" WHERE request_id = ANY(:ids)')
    found: dict[UUID, list[tuple[int, str, int, object]]] = {id_: [] for id_ in ids}
    with database.transaction() as tx:
        for row in tx.execute(query, {"ids": ids}):
            found[row.request_id].append((row.ordinal, row.system, row.bytes, row.counts))
    return {id_: sorted(rows, key=lambda row: row[0]) for id_, rows in found.items()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(routes=ROUTES, data=st.data())
def test_each_thing_has_the_rows_of_its_way_and_no_others(
    database: Database, routes: list[list[str]], data: st.DataObject
) -> None:
    went = data.draw(st.lists(st.integers(0, len(routes) - 1), max_size=8))
    ids = [uuid4() for _ in went]

    def rows(way: int) -> list[dict[str, object]]:
        common = {"records": 1, "counts": COUNTS, "digest": "d"}
        return [{"ordinal": n, "system": system, **common} for n, system in enumerate(routes[way])]

    def changes(way: int) -> list[dict[str, object]]:
        return [{"ordinal": n, "counts": {"n": n}} for n, _ in enumerate(routes[way]) if n % 2]

    with database.transaction() as tx:
        tx.execute(text('ALTER TABLE "artifact" DROP CONSTRAINT IF EXISTS artifact_request_id_fkey'))
        ways = bulk.Ways()
        its = [n for n, way in enumerate(went) if ways.add(way, lambda way=way: rows(way))]
        bulk.insert_each(tx, tables.artifact, {"request_id": [ids[n] for n in its], "bytes": its}, ways)
        ways = bulk.Ways()
        its = [n for n, way in enumerate(went) if ways.add(way, lambda way=way: changes(way))]
        bulk.update_each(
            tx, tables.artifact, {"request_id": [ids[n] for n in its]}, "ordinal", ways, also=", records = 2"
        )
    assert stored(database, ids) == {
        ids[n]: [
            (ordinal, system, n, {"n": ordinal} if ordinal % 2 else COUNTS)
            for ordinal, system in enumerate(routes[way])
        ]
        for n, way in enumerate(went)
    }
