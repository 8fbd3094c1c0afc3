"""With 200,000 steps in the table, each hot statement reads by its own partial index, and little more than it needs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text

from orchestrator.core.model import Limits
from orchestrator.stages import sweep
from orchestrator.store import claims
from orchestrator.store.database import Database

FILL = """
INSERT INTO request (id, "right", regulation, source, message_id, workflow, workflow_version, keep_days, audit_head,
    received_at, deadline)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'erasure', 'gdpr', 's', n::text, 'w', 1, 30, '',
    now(), now() + n * interval '1 second'
FROM generate_series(1, 50000) AS n;
INSERT INTO step (request_id, ordinal, name, system, action, state, needs, options, deadline, rank, due, lease_until,
    token)
SELECT id, o, 'erase', 's' || o, 'erase', state, '{}', '{}', deadline, deadline,
    CASE WHEN state = 'parked' AND n % 1000 > 0 THEN now() + interval '9 days' ELSE now() - interval '1 hour' END,
    CASE WHEN state = 'running' THEN now() + (n % 1000 - 1) * interval '1 second' END,
    CASE WHEN state = 'running' THEN id END
FROM (
    SELECT id, deadline, row_number() OVER (ORDER BY id) AS n FROM request
) AS r CROSS JOIN generate_series(0, 3) AS o CROSS JOIN LATERAL (
    SELECT CASE WHEN o = 0 THEN 'ready' WHEN o = 1 THEN 'parked' WHEN n % 10 = 0 THEN 'running' ELSE 'done' END AS state
) AS s;
INSERT INTO connector_state (system) SELECT 's' || n FROM generate_series(0, 3) AS n;
"""
"""50,000 ready steps of one system, 50,000 parked, 10,000 running, 90,000 done."""


@pytest.fixture
def full(migrated_database: str) -> Iterator[Connection]:
    database = Database(migrated_database)
    with database.transaction() as tx:
        tx.execute(text(FILL))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    with database.engine.connect() as connection:
        yield connection
        connection.rollback()
    database.close()


def explained(tx: Connection, statement: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
    if isinstance(statement, str):
        result = tx.exec_driver_sql(f"{explain} {statement}", values).scalar_one()
    else:
        result = tx.execute(text(f"{explain} {statement.text}"), values).scalar_one()
    [plan] = result if isinstance(result, list) else json.loads(result)
    whole: dict[str, Any] = plan["Plan"]
    return whole


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


CLAIM = {"system": "s0", "n": 100, "cleared": False, "token": uuid4(), "lease": timedelta(seconds=10)}
CASES: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "claim": (claims._TAKE, {**CLAIM, "alone": True}, {"step_claim", "step_lost"}),
    "claim beside another system's": (claims._TAKE, {**CLAIM, "alone": False}, {"step_claim", "step_lost"}),
    "wake": (sweep._WAKE, {}, {"step_timer"}),
    "expired": (sweep._EXPIRED, {}, {"step_lease"}),
    "unrung": (sweep._UNRUNG, {}, {"step_claim"}),
    "heartbeat": (claims._EXTEND, {"tokens": [uuid4()], "lease": timedelta(seconds=10)}, set()),
}


def test_each_hot_statement_reads_by_its_index_and_little_else(full: Connection) -> None:
    for name, (statement, values, wanted) in CASES.items():
        plan = explained(full, statement, values)
        full.rollback()
        scans = [n for n in nodes(plan) if n.get("Relation Name") in {"step", "request"}]
        shown = f"{name}:\n{json.dumps(scans, indent=1)}"
        assert not [n for n in scans if n["Node Type"] == "Seq Scan"], shown
        used = {n["Index Name"] for n in nodes(plan) if "Index Name" in n}
        assert wanted <= used, f"{name}: {used}"
        wasted = sum(n.get("Rows Removed by Filter", 0) * n.get("Actual Loops", 1) for n in scans)
        assert wasted <= 10_000, f"{wasted} rows were read for nothing by {shown}"
        if name.startswith("claim"):
            touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            assert touched < 3000, f"{touched} pages for 100 steps of 50,000"


def test_the_clock_comes_past_few_entries_of_leases_that_are_over(full: Connection) -> None:
    """Until the next vacuum they lie before those that run out: the entries of a claim must be as one."""
    full.execute(text("ALTER TABLE step SET (autovacuum_enabled = off)"))
    settle = text("UPDATE step SET state = 'done' WHERE state = 'running'")
    full.execute(settle)
    for _ in range(120):
        assert len(claims.claim(full, "s0", Limits(), 100, uuid4(), timedelta(0))) == 100
        full.execute(settle)
        full.commit()

    def touched() -> int:
        plan = explained(full, *CASES["expired"][:2])
        full.rollback()
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    # A look finds out which are dead, unless somebody (an ANALYZE that began before) may see them still.
    for _ in range(40):
        if touched() < 40:
            break
        time.sleep(0.5)
    assert touched() < 40, "pages for 12,000 leases that are over"
