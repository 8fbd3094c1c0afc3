"""With a long past in the database, nothing that workers, the clock or operators do reads a whole table.

The stages and queries are really run; every statement that they send is caught and explained, so none is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from benchmarks.flat.engine import Engine, messages
from benchmarks.flat.fill import Fill, fill
from benchmarks.flat.looks import looks
from orchestrator.store import claims
from tests.support.statements import sent

LARGE = {"request", "step", "audit", "inbox", "outbox", "request_secret", "finding", "artifact", "ledger"}
"""Tables that grow with requests."""
PAST, SHORT = Fill(closed=10_000, parked=10_000), Fill(closed=3000, parked=1000)
QUEUED = 1000
"""Requests whose first step is ready."""
READ_WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
SOME_AGE = """
INSERT INTO artifact (request_id, ordinal, system, records, bytes, counts, digest, inline)
    SELECT id, 1, 'crm', 1, 100, '{}', 'd', '' FROM request;
INSERT INTO finding (request_id, ordinal, sealed) SELECT id, 9, '' FROM request;
UPDATE request SET shred_at = now() - interval '1 s' WHERE id IN (SELECT id FROM request
    WHERE shred_at IS NOT NULL LIMIT 20);
UPDATE request SET fold_at = now() - interval '1 s' WHERE id IN (SELECT id FROM request
    WHERE fold_at IS NOT NULL LIMIT 20);
UPDATE outbox SET created_at = now() - interval '40 days' WHERE id IN (SELECT id FROM outbox LIMIT 20);
UPDATE step SET due = now() - interval '1 s' WHERE (request_id, ordinal) IN (SELECT request_id, ordinal FROM step
    WHERE state = 'parked' LIMIT 20);
UPDATE step SET state = 'attention', failure = 'fatal' WHERE (request_id, ordinal) IN (SELECT request_id, ordinal
    FROM step WHERE state = 'ready' LIMIT 20)"""
"""What erasures do not leave behind, and something for each of the clock's duties and for operators."""

Act = Callable[[], Any]


MakeEngine = Callable[[Fill], Engine]


@pytest.fixture
def make_engine(postgres_database: str, tmp_path: Path) -> Iterator[MakeEngine]:
    """``make_engine(past)``: an engine on a database with a past, the statistics fresh, and then a queue."""
    engine = Engine(postgres_database, tmp_path)

    def make(past: Fill) -> Engine:
        fill(engine, past)
        engine.admit(messages(QUEUED))
        return engine

    yield make
    engine.close()


def acts(engine: Engine) -> dict[str, Act]:
    """What is done day by day: by intake, workers, the clock, and operators."""
    runtime, database = engine.runtime, engine.runtime.database
    token, lease = uuid4(), timedelta(seconds=-1)

    def lose() -> None:
        with database.transaction() as tx:
            claims.claim(tx, "users", runtime.definitions.systems["users"].limits, 20, token, lease)

    def extend() -> None:
        with database.transaction() as tx:
            claims.extend(tx, [token], lease)

    def look(query: Callable[[Any], Any]) -> Act:
        def looked() -> None:
            with database.transaction() as tx:
                query(tx)

        return looked

    again = messages(20)
    return {
        "admit": lambda: engine.admit(again),
        "admit again": lambda: runtime.intake.admit(again),
        "claim": lose,
        "extend a lease": extend,
        "tick": runtime.sweep.tick,
        "work": lambda: [
            runtime.execute.work(s) for s in ("users", "users", "crm", "mail", "shop", "users", "archive")
        ],
        "publish": engine.relay.publish,
        "purge": runtime.sweep.purge,
        "checkpoint": runtime.sweep.checkpoint,
        "retry all": lambda: runtime.operate.retry_all("users", "eve"),
        **{name: look(query) for name, query in looks(engine).items()},
    }


def statements_of(engine: Engine, act: Act) -> list[tuple[str, Any]]:
    """What an act sends to the database."""
    with sent(engine.runtime.database.engine) as seen:
        act()
    return [(statement, values) for statement, values in seen if statement.lstrip().startswith(READ_WRITE)]


def read_as_a_whole(engine: Engine, statement: str, values: Any) -> set[str]:
    """The large tables that a statement reads from end to end."""
    with engine.runtime.database.engine.connect() as connection:
        found = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
        connection.rollback()
    [plan] = found if isinstance(found, list) else json.loads(found)
    return {n["Relation Name"] for n in nodes(plan["Plan"]) if n["Node Type"] == "Seq Scan"} & LARGE


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def test_nothing_that_is_done_day_by_day_reads_a_whole_table(make_engine: MakeEngine) -> None:
    engine = make_engine(PAST)
    for statement in SOME_AGE.split(";"):
        engine.rows(statement)
    with engine.autocommit() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    found: dict[str, list[tuple[str, set[str]]]] = {}
    for name, act in acts(engine).items():
        sent = dict(statements_of(engine, act))
        assert sent, f"{name} sent nothing: what is explained here?"
        wholes = [(s, read_as_a_whole(engine, s, values)) for s, values in sent.items()]
        found[name] = [(s, tables) for s, tables in wholes if tables]
    assert not any(found.values()), json.dumps({k: [(s, sorted(t)) for s, t in v] for k, v in found.items() if v})


def test_without_its_index_a_statement_would_be_found_out(make_engine: MakeEngine) -> None:
    engine = make_engine(SHORT)
    engine.rows("DROP INDEX step_timer")
    wholes = [read_as_a_whole(engine, s, v) for s, v in statements_of(engine, engine.runtime.sweep.tick)]
    assert {"step"} in wholes


def test_a_claim_reads_no_more_than_it_takes_where_the_statistics_know_of_nothing_ready(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(SHORT)
    sent = statements_of(engine, acts(engine)["claim"])
    [(taking, values)] = [(s, v) for s, v in sent if "UPDATE step" in s]
    with engine.runtime.database.engine.connect() as connection:
        found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {taking}", values).scalar_one()
        connection.rollback()
    wasted = {
        n["Index Name"]: n["Rows Removed by Filter"]
        for n in nodes(found[0]["Plan"])
        if "Index Name" in n and n.get("Rows Removed by Filter")
    }
    assert wasted == {}
