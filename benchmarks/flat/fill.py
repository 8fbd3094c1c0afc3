"""A database with years behind it: closed and parked requests by the million, as the engine leaves them.

A few requests are really carried out, and a few really parked; their rows in every table are then copied under new ids,
at other times. So a row is as wide, as often updated and as much in order as one that the engine wrote. Not copied:
what is beyond its keeping (sealed facts after ``keep_days``, published events after a week), as the clock would have
purged it. The copies' audit chains and seals do not hold, and nothing here reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Table, text

from benchmarks.figures import WrongResult
from benchmarks.flat.engine import Engine, messages
from orchestrator.store import tables

TEMPLATES = 50
"""Requests of each kind that are copied, in turn."""
CHUNK = 100_000
"""Requests copied in one transaction."""
YEARS = "3 years"
"""Over which closed requests are spread; parked ones over the month that a person has to answer."""
MONTH = "30 days"


@dataclass(frozen=True, slots=True)
class Fill:
    """How many requests of the past there are."""

    closed: int
    parked: int


def fill(engine: Engine, past: Fill) -> None:
    """Fill an empty database, vacuum and analyse it."""
    done = engine.admit(messages(TEMPLATES))
    engine.drain()
    engine.closed(done)
    waiting = engine.admit(messages(TEMPLATES, verified=False))
    engine.drain()
    _copy(engine, done, past.closed, YEARS)
    _copy(engine, waiting, past.parked, MONTH)
    with engine.autocommit() as connection:
        connection.execute(_CHECKPOINT)
        connection.execute(text("VACUUM (FREEZE, ANALYZE)"))
    [[closed, parked]] = engine.rows(_COUNTS)
    if (closed, parked) != (past.closed + TEMPLATES, past.parked + TEMPLATES):
        raise WrongResult(f"filled with {closed} closed and {parked} parked requests instead")


def _copy(engine: Engine, templates: Sequence[UUID], number: int, span: str) -> None:
    for first in range(0, number, CHUNK):
        last = min(first + CHUNK, number)
        with engine.runtime.database.transaction() as tx:
            # The rows refer to each other as the templates' do: looking it up for each of them would take longer.
            tx.execute(text("SET LOCAL session_replication_role = replica"))
            tx.execute(text("SET LOCAL synchronous_commit = off"))
            values = {"first": first, "last": last, "number": number, "span": span, "templates": list(templates)}
            tx.execute(_COPIES, values)
            for table in _TABLES:
                tx.execute(text(_insert(table)))
            tx.execute(text("DROP TABLE copies"))
    with engine.runtime.database.transaction() as tx:
        tx.execute(_TALLY, {"number": number, "templates": list(templates)})


# Ids are UUIDv7 of the time of arrival, as the engine makes them; ``shift`` is how far a copy lies behind its template.
_COPIES = text("""
CREATE TEMPORARY TABLE copies ON COMMIT DROP AS
SELECT n, t.id AS template, at - t.received_at AS shift, now() - at AS age,
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n & 4095), 3, '0')
        || '8' || left(md5(t.id::text || n), 15))::uuid AS id
FROM (
    SELECT n, now() - CAST(:span AS interval) * (1 - n / CAST(:number AS float8)) - interval '1 minute' AS at,
        (CAST(:templates AS uuid[]))[1 + n % cardinality(CAST(:templates AS uuid[]))] AS template
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint) - 1) AS n
) AS c JOIN request t ON t.id = c.template ORDER BY n""")

_TABLES = (
    tables.request,
    tables.inbox,
    tables.step,
    tables.request_secret,
    tables.finding,
    tables.audit,
    tables.outbox,
    tables.ledger,
)
_KEPT = {
    tables.request_secret: "t.closed_at IS NULL OR c.age < interval '30 days'",
    tables.finding: "t.closed_at IS NULL OR c.age < interval '30 days'",
    tables.outbox: "c.age < interval '7 days'",
}
"""Tables of which the clock purges what is older."""
_OWN: dict[tuple[Table, str], str] = {
    (tables.request, "id"): "c.id",
    (tables.request, "message_id"): "md5(c.id::text)",
    (tables.request, "shred_at"): "CASE WHEN c.age < interval '30 days' THEN s.shred_at + c.shift END",
    (tables.inbox, "message_id"): "md5(c.id::text)",
    # Timers are spread over the month to come: none goes off while it is measured.
    (
        tables.step,
        "due",
    ): "CASE WHEN s.state = 'parked' THEN now() + interval '1 day' + (c.n % 2500000) * interval '1 s' "
    "WHEN s.due < '9000-01-01' THEN s.due + c.shift ELSE s.due END",
    (tables.outbox, "event_id"): "gen_random_uuid()",
    (tables.ledger, "hash"): "sha256(uuid_send(c.id) || s.hash)",
}
"""What a copy does not share with its template."""


def _insert(table: Table) -> str:
    columns = [c for c in table.c if c.identity is None]
    names = ", ".join(f'"{c.name}"' for c in columns)
    values = ", ".join(_value(table, c) for c in columns)
    key = "id" if table is tables.request else "request_id"
    return (
        f'INSERT INTO "{table.name}" ({names}) SELECT {values} FROM copies c '
        f'JOIN request t ON t.id = c.template JOIN "{table.name}" s ON s.{key} = c.template '
        f"WHERE {_KEPT.get(table, 'true')} ORDER BY c.n"
    )


def _value(table: Table, column: Any) -> str:
    own = _OWN.get((table, column.name))
    if own is not None:
        return own
    if column.name == "request_id":
        return "c.id"
    if isinstance(column.type, DateTime):
        return f's."{column.name}" + c.shift'
    return f's."{column.name}"'


# What was admitted and closed is counted; a checkpoint a minute ago covers what is older.
_TALLY = text("""
INSERT INTO tally AS t ("right", what, shard, n)
SELECT "right", what, 16, CAST(:number AS bigint) FROM (
    SELECT "right", 'admitted' AS what FROM request WHERE id = ANY(:templates)
    UNION SELECT "right", resolution FROM request WHERE id = ANY(:templates) AND resolution IS NOT NULL
) AS counted ON CONFLICT ("right", what, shard) DO UPDATE SET n = t.n + excluded.n""")
_CHECKPOINT = text("""
INSERT INTO audit_checkpoint (at, facts, signature)
SELECT at, jsonb_build_object('at', at, 'since', '-infinity', 'entries', 0, 'digest', '', 'previous', ''), ''
FROM (SELECT now() - interval '1 minute' AS at) AS m""")
_COUNTS = """
SELECT (SELECT count(*) FROM request WHERE resolution IS NOT NULL),
    (SELECT count(*) FROM step WHERE state = 'parked')"""
