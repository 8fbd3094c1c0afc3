"""Runs: loading them under lock, and writing back what changed, in bulk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.core.commands import Record
from orchestrator.core.model import Run
from orchestrator.privacy import audit
from orchestrator.store import bulk, tables
from orchestrator.store.rows import STEP, from_new_step, from_step, to_run

_SPELT_OUT = 1e16
"""From here on Python writes a whole float with an exponent; ``jsonb`` writes all its digits."""


class Header(NamedTuple):
    """What a request's row tells besides its run: how to answer, and where its audit chain ends."""

    id: UUID
    right: str
    regulation: str
    source: str
    message_id: str
    workflow: str
    workflow_version: int
    keep_days: int
    reply_to: str | None
    correlation_id: str | None
    traceparent: str | None
    received_at: datetime
    audit_seq: int
    audit_head: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A run as it stands in the database, locked until the transaction ends."""

    header: Header
    run: Run


@dataclass(frozen=True, slots=True)
class Change:
    """A run before and after, and what is to be recorded of it."""

    header: Header
    before: Run | None
    """``None``: it is new."""
    after: Run
    records: tuple[Record, ...] = ()
    turn: timedelta = timedelta()
    """New runs: how far they stand back behind other sources' (``turns``)."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """Runs as a transaction left them.

    Whoever changes a run writes its request's row, so by that row one knows whether it is still so.
    """

    by: str
    """The transaction's id."""
    stored: Mapping[UUID, Stored]


NONE = Remembered("", {})


@dataclass(frozen=True, slots=True)
class Chained:
    """What is to be written of some changes' audit."""

    rows: Sequence[Mapping[str, Any]]
    heads: Mapping[UUID, tuple[int, bytes]]
    """Request → number and hash of its last entry."""
    moment: datetime


@dataclass(frozen=True, slots=True)
class Locked:
    """Runs that nobody else can change until the transaction ends."""

    stored: Mapping[UUID, Stored]
    """In order of id."""
    moment: datetime
    """By the database's clock, after they were locked."""


def lock(
    tx: Connection,
    ids: Iterable[UUID],
    *,
    ready: bool = True,
    remembered: Remembered = NONE,
    also: Callable[[], None] = lambda: None,
) -> Locked:
    """Lock runs in order of id, so that two settles can never wait for each other in a circle.

    A request's row stands for its steps: whoever changes one locks it, but for a claim, which takes a ready step and
    knows nothing of its request. ``ready``: keep claims off what is ready as well, for it may be changed. Where it is
    not, a step that is read as ready may be running meanwhile, and what is ``remembered`` need not be read. ``also``:
    asks for more on the same way, when the runs are locked.
    """
    wanted = sorted(set(ids))
    known: dict[UUID, Stored] = {}
    asked = not ready and bool(remembered.stored)
    if asked:
        with bulk.together(tx):
            locked, clock = bulk.send(tx, _LOCK_KNOWN, {"ids": wanted}), bulk.send(tx, _CLOCK)
            also()
        rows = locked.fetchall()
        known = {id_: remembered.stored[id_] for id_, by in rows if by == remembered.by and id_ in remembered.stored}
        if len(known) == len(rows):
            return Locked(known, clock.fetchall()[0][0])
    unknown = {"ids": [id_ for id_ in wanted if id_ not in known]}
    with bulk.together(tx):
        locked = bulk.send(tx, _LOCK_REQUESTS, unknown)
        if ready:
            bulk.send(tx, _LOCK_READY, unknown)
        read, clock = bulk.send(tx, _STEPS, unknown), bulk.send(tx, _CLOCK)
        if not asked:
            also()
    steps = dict(read.fetchall())
    for row in locked.fetchall():
        header = Header(*row[:_HEADER])
        known[header.id] = Stored(header, to_run(header.id, header.right, row[_HEADER:], steps.get(header.id, ())))
    return Locked({id_: known[id_] for id_ in wanted if id_ in known}, clock.fetchall()[0][0])


_HEADER = len(Header._fields)
_LOCK_KNOWN = "SELECT id, xmin::text FROM request WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE"
_LOCK_REQUESTS = f"""
SELECT {", ".join(f'"{name}"' for name in Header._fields)}, deadline, paused, stopping, stop_reason, resolution
FROM request WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE"""  # noqa: S608 - our own columns
# Statements of their own: what is read after a lock is as the last claim left it.
_LOCK_READY = """
SELECT 1 FROM step WHERE request_id = ANY(%(ids)s) AND state = 'ready' ORDER BY request_id, ordinal FOR UPDATE"""
_STEPS = f"""
SELECT request_id, array_agg({STEP} ORDER BY ordinal) AS steps FROM step
WHERE request_id = ANY(%(ids)s) GROUP BY request_id"""  # noqa: S608 - our own columns
_CLOCK = "SELECT clock_timestamp()"


def now(tx: Connection) -> datetime:
    """The database's clock: the one clock that all processes share."""
    moment: datetime = bulk.send(tx, _CLOCK).fetchall()[0][0]
    return moment


def save(tx: Connection, changes: Sequence[Change], chained: Chained, lease: timedelta = timedelta()) -> None:
    """Write new and changed runs with their audit entries: a handful of statements, whatever the number.

    ``lease``: for how long steps are taken that begin.
    """
    moment, heads = chained.moment, chained.heads
    new = [c for c in changes if c.before is None]
    bulk.insert(tx, tables.request, [_new_request(c, moment, heads[c.header.id]) for c in new])
    bulk.insert(tx, tables.step, _new_steps(new))
    old = [c for c in changes if c.before is not None and (c.records or c.after != c.before)]
    bulk.update(tx, tables.request, ("id",), [_request(c, moment, heads[c.header.id]) for c in old])
    steps = _changed_steps(old, moment + lease)
    bulk.update(tx, tables.step, ("request_id", "ordinal"), steps, also=", changed_at = now()")
    bulk.insert(tx, tables.audit, chained.rows)


def _new_steps(new: Sequence[Change]) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}  # by the identity of steps, which equal requests share
    for change in new:
        for step in change.after.steps:
            if id(step) not in rows:
                rows[id(step)] = from_new_step(step)
    return [
        {
            "request_id": c.header.id,
            **rows[id(step)],
            "deadline": c.after.deadline,
            "rank": c.after.deadline + c.turn,
        }
        for c in new
        for step in c.after.steps
    ]


def _changed_steps(old: Sequence[Change], until: datetime) -> list[dict[str, Any]]:
    known: dict[
        tuple[int, int], list[dict[str, Any]]
    ] = {}  # by identity: runs that went the same way share their steps
    rows: list[dict[str, Any]] = []
    for change in old:
        before, after = change.before.steps if change.before else (), change.after.steps
        changed = known.get((id(before), id(after)))
        if changed is None:
            pairs = zip(before, after, strict=True)
            changed = known[id(before), id(after)] = [from_step(b, until) for a, b in pairs if a is not b and a != b]
        rows += [{"request_id": change.header.id, **row} for row in changed]
    return rows


def _new_request(change: Change, moment: datetime, head: tuple[int, bytes]) -> dict[str, Any]:
    header, run = change.header, change.after
    return {
        "id": header.id,
        "right": header.right,
        "regulation": header.regulation,
        "source": header.source,
        "message_id": header.message_id,
        "workflow": header.workflow,
        "workflow_version": header.workflow_version,
        "keep_days": header.keep_days,
        "reply_to": header.reply_to,
        "correlation_id": header.correlation_id,
        "traceparent": header.traceparent,
        "received_at": header.received_at,
        "deadline": run.deadline,
        **_mutable(run, header, moment),
        "audit_seq": head[0],
        "audit_head": head[1],
    }


def _request(change: Change, moment: datetime, head: tuple[int, bytes]) -> dict[str, Any]:
    row = {"id": change.header.id, "deadline": change.after.deadline, **_mutable(change.after, change.header, moment)}
    return {**row, "audit_seq": head[0], "audit_head": head[1]}


def _mutable(run: Run, header: Header, moment: datetime) -> dict[str, Any]:
    return {
        "paused": run.paused,
        "stopping": run.stopping,
        "stop_reason": run.stop_reason,
        "resolution": run.resolution,
        "closed_at": None if run.open else moment,
        "shred_at": None if run.open else moment + timedelta(days=header.keep_days),
    }


def chain(changes: Sequence[Change], moment: datetime) -> Chained:
    """The audit entries of changes, linked."""
    rows: list[dict[str, Any]] = []
    heads: dict[UUID, tuple[int, bytes]] = {}
    known: dict[int, tuple[Any, audit.Form]] = {}  # by the identity of records, which many requests share
    for change in changes:
        id_, seq, head = change.header.id, change.header.audit_seq, change.header.audit_head
        for record in change.records:
            if id(record) not in known:
                facts = _as_stored(dict(record.facts))
                known[id(record)] = bulk.encoded(facts), audit.Form(_entry(moment, record.what, record.ordinal, facts))
            stored, form = known[id(record)]
            seq += 1
            head = form.link(head, str(id_), seq)
            rows.append(
                {
                    "request_id": id_,
                    "seq": seq,
                    "at": moment,
                    "what": record.what,
                    "ordinal": record.ordinal,
                    "facts": stored,
                    "hash": head,
                }
            )
        heads[id_] = (seq, head)
    return Chained(rows, heads, moment)


def _as_stored(value: Any) -> Any:
    """A JSON value as ``jsonb`` gives it back: the chain is checked against what was stored."""
    if type(value) is str and value.isascii() and "\x00" not in value:
        return value  # most are: nothing of them would be stored otherwise
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        whole = value.is_integer() and abs(value) >= _SPELT_OUT
        return int(value) if whole else value + 0.0  # no negative zero there
    if isinstance(value, str):
        return str(value).replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_as_stored(str(k)): _as_stored(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_stored(v) for v in value]
    return value if value is None or isinstance(value, int) else _as_stored(str(value))


def audit_entry(
    request: UUID, seq: int, at: datetime, what: str, ordinal: int | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """An audit entry as it is hashed."""
    return {"request": str(request), "seq": seq, **_entry(at, what, ordinal, facts)}


def _entry(at: datetime, what: str, ordinal: int | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"at": at.astimezone(UTC).isoformat(), "what": what, "ordinal": ordinal, "facts": dict(facts)}
