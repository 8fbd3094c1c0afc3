"""A database with years behind it: closed and parked requests by the million, as the engine leaves them.

A few requests are really carried out, a few are carried out and then purged as the clock purges old ones, and a few are
really parked; their rows in every table are then copied under new ids, at other times, in order of arrival. So a row is
as wide as one that the engine wrote. Not copied: what is beyond its keeping (sealed facts after 30 days, published
events after a week, steps after 90 days). The copies' audit chains and seals do not hold, and nothing here reads them.

Each table is emptied, filled in one pass without indexes, vacuumed and indexed; two of them at a time, for two cores.
On a server that ``FILLING`` was set for, hardly anything of it goes through the write-ahead log.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Table

from benchmarks.figures import WrongResult
from benchmarks.flat.bare import Stripped, session, strip
from benchmarks.flat.engine import Engine, messages
from orchestrator.store import tables

FILLING = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "16GB",
}
"""PostgreSQL's settings while it is filled: if the machine fails, the benchmark begins anew."""
TEMPLATES = 50
"""Requests of each kind that are copied, in turn."""
YEARS = "3 years"
"""Over which closed requests are spread; parked ones over the month that a person has to answer."""
MONTH = "30 days"
STEPS_KEPT = "90 days"
"""The default of ``steps_keep_days``."""


@dataclass(frozen=True, slots=True)
class Fill:
    """How many requests of the past there are."""

    closed: int
    parked: int

    @property
    def bytes(self) -> int:
        """What they take on the disk at the most, with what the sorting of indexes needs for a while."""
        return self.closed * CLOSED_BYTES + self.parked * PARKED_BYTES


CLOSED_BYTES, PARKED_BYTES = 3700, 6500
"""Of one request."""


def fill(engine: Engine, past: Fill) -> None:
    """Fill a database that nothing was asked of yet, vacuum and analyse it."""
    kinds = _templates(engine)
    pool = engine.runtime.database.engine
    with session(pool) as one:
        shape = one.rows(_SHAPE)
        one.run(*(f'CREATE UNLOGGED TABLE "past_{t.name}" AS SELECT * FROM "{t.name}"' for t in _TABLES))
        one.run(*(f'CREATE INDEX ON "past_{t.name}" ({", ".join(c.name for c in _order(t))})' for t in _TABLES))
        one.run(*(f'ANALYZE "past_{t.name}"' for t in _TABLES))
        one.run(_copies(kinds, past), "ANALYZE copies")
        made = strip(one, [t.name for t in _TABLES])
        with ThreadPoolExecutor(2) as pairs:
            # What takes longest begins first, and goes on beside all others.
            list(pairs.map(lambda table: _fill(engine, table, made[table.name]), _TABLES))
        one.run(*(statement for stripped in made.values() for statement in stripped.foreign))
        one.run(_TALLY, _PARKED, *(f'DROP TABLE "past_{t.name}"' for t in _TABLES), "DROP TABLE copies")
        one.run("VACUUM (ANALYZE) tally, parked")
        if one.rows(_SHAPE) != shape:
            raise WrongResult("an index or a constraint did not come back as it was")
        one.run(_CHECKPOINT)
        [counted] = one.rows(_COUNTS)
    wanted = (past.closed + 2 * TEMPLATES, past.parked + TEMPLATES, past.parked + TEMPLATES)
    if counted != wanted:
        raise WrongResult(f"filled with {counted} closed and parked requests and steps instead of {wanted}")


@dataclass(frozen=True, slots=True)
class _Kinds:
    old: Sequence[UUID]
    done: Sequence[UUID]
    waiting: Sequence[UUID]


def _templates(engine: Engine) -> _Kinds:
    old = engine.admit(messages(TEMPLATES))
    engine.drain()
    for moment in ("shred_at", "fold_at"):
        engine.rows(f"UPDATE request SET {moment} = now()")
        engine.runtime.sweep.purge()
    done = engine.admit(messages(TEMPLATES))
    engine.drain()
    engine.closed([*old, *done])
    waiting = engine.admit(messages(TEMPLATES, verified=False))
    engine.drain()
    return _Kinds(old, done, waiting)


def _fill(engine: Engine, table: Table, stripped: Stripped) -> None:
    name = table.name
    with session(engine.runtime.database.engine) as one:
        one.run("SET enable_hashjoin = off", "SET enable_mergejoin = off")  # copies stay in order
        one.together(
            f'TRUNCATE "{name}"',
            _insert(table),
            # The templates are the newest.
            f'INSERT INTO "{name}" OVERRIDING SYSTEM VALUE SELECT * FROM "past_{name}"',
        )
        one.run(f'VACUUM (FREEZE, ANALYZE) "{name}"', *stripped.own)


# What is copied, and how. -------------------------------------------------------------------------------------------

_TABLES = (
    tables.audit,
    tables.request,
    tables.step,
    tables.ledger,
    tables.inbox,
    tables.request_secret,
    tables.finding,
    tables.outbox,
)


def _copies(kinds: _Kinds, past: Fill) -> str:
    """The copies to be made, in order of arrival. Ids are UUIDv7 of that time, as the engine makes them.

    ``shift`` is how far a copy lies behind its template: seconds, for an interval of days is slow to add.
    """
    old, done, waiting = (
        "ARRAY[" + ", ".join(f"'{id_}'::uuid" for id_ in ids) + "]" for ids in (kinds.old, kinds.done, kinds.waiting)
    )
    return f"""
CREATE UNLOGGED TABLE copies AS
SELECT n, t.id AS template, t.closed_at IS NOT NULL AS closed, now() - at AS age,
    make_interval(secs => extract(epoch FROM at - t.received_at)::float8) AS shift,
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n & 4095), 3, '0')
        || '8' || left(md5(t.id::text || n), 15))::uuid AS id
FROM (
    SELECT n, at, (CASE WHEN at < now() - interval '{STEPS_KEPT}' THEN {old} ELSE {done} END)[1 + n % {TEMPLATES}] AS id
    FROM (SELECT n, {_at(YEARS, past.closed)} AS at FROM generate_series(0, {past.closed - 1}) AS n) AS c
    UNION ALL
    SELECT n, {_at(MONTH, past.parked)}, ({waiting})[1 + n % {TEMPLATES}]
    FROM generate_series(0, {past.parked - 1}) AS n
) AS c JOIN past_request t USING (id) ORDER BY at"""


def _at(span: str, number: int) -> str:
    return f"now() - interval '{span}' * (1 - n / {number}::float8) - interval '1 minute'"


_KEPT = {
    tables.request_secret: "NOT c.closed OR c.age < interval '30 days'",
    tables.finding: "NOT c.closed OR c.age < interval '30 days'",
    tables.outbox: "c.age < interval '7 days'",
}
"""Tables of which the clock purges what is older, beside the steps."""
_OWN: dict[tuple[Table, str], str] = {
    (tables.request, "id"): "c.id",
    (tables.request, "message_id"): "md5(c.id::text)",
    (tables.request, "shred_at"): "CASE WHEN c.age < interval '30 days' THEN s.shred_at + c.shift END",
    (tables.request, "fold_at"): "CASE WHEN c.closed AND c.age BETWEEN interval '30 days' AND "
    f"interval '{STEPS_KEPT}' THEN s.closed_at + c.shift + interval '{STEPS_KEPT}' END",
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
    return (
        f'INSERT INTO "{table.name}" ({names}) SELECT {values} FROM copies c '
        f'JOIN "past_{table.name}" s ON s.{_key(table)} = c.template WHERE {_KEPT.get(table, "true")}'
    )


def _key(table: Table) -> str:
    return "id" if table is tables.request else "request_id"


def _order(table: Table) -> list[Any]:
    """Its rows of one request, in the order in which they were written."""
    return [table.c[_key(table)], *(c for c in table.primary_key if c.name in {"ordinal", "seq"})]


def _value(table: Table, column: Any) -> str:
    own = _OWN.get((table, column.name))
    if own is not None:
        return own
    if column.name == "request_id":
        return "c.id"
    if isinstance(column.type, DateTime):
        return f's."{column.name}" + c.shift'
    return f's."{column.name}"'


# What was admitted, closed and parked is counted; a checkpoint a minute ago covers what is older.
_TALLY = """
INSERT INTO tally ("right", what, shard, n)
SELECT "right", what, 16, count(*) FROM (
    SELECT t."right", unnest(ARRAY['admitted', t.resolution]) AS what
    FROM copies c JOIN past_request t ON t.id = c.template
) AS counted WHERE what IS NOT NULL GROUP BY "right", what"""
_PARKED = """
INSERT INTO parked (system, shard, n)
SELECT s.system, 16, count(*) FROM copies c JOIN past_step s ON s.request_id = c.template AND s.state = 'parked'
GROUP BY s.system"""
_CHECKPOINT = """
INSERT INTO audit_checkpoint (at, facts, signature)
SELECT at, jsonb_build_object('at', at, 'since', '-infinity', 'entries', 0, 'digest', '', 'previous', ''), ''
FROM (SELECT now() - interval '1 minute' AS at) AS m"""
_SHAPE = """
SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid::regclass::text NOT LIKE '%past\\_%'
    AND (SELECT relnamespace FROM pg_class WHERE oid = indrelid) = 'public'::regnamespace
UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace
ORDER BY 1"""
_COUNTS = """
SELECT (SELECT count(*) FROM request WHERE resolution IS NOT NULL),
    (SELECT count(*) FROM step WHERE state = 'parked'), (SELECT sum(n)::bigint FROM parked)"""
