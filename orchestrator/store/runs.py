"""Runs: loading them under lock, and writing back what changed, in bulk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.core.commands import Command, Record
from orchestrator.core.model import Run, Step
from orchestrator.privacy import audit
from orchestrator.store import arrays, bulk, tables
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
    """A run before and after, and what follows."""

    header: Header
    before: Run | None
    """``None``: it is new."""
    after: Run
    commands: Sequence[Command] = ()
    """What the core wants recorded, and told."""
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

    rows: bulk.Columns
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


class Also(Protocol):
    """Asks for more while runs are locked."""

    def __call__(self, *, read: bool) -> None:
        """``read``: the runs are read as well, for they are not remembered, or not as they are remembered."""


def _nothing(*, read: bool) -> None:
    """Asks for nothing."""


def lock(
    tx: Connection,
    ids: Iterable[UUID],
    *,
    ready: bool = True,
    remembered: Remembered = NONE,
    also: Also = _nothing,
) -> Locked:
    """Lock runs in order of id, so that two settles can never wait for each other in a circle.

    A request's row stands for its steps: whoever changes one locks it, but for a claim, which takes a ready step and
    knows nothing of its request. ``ready``: keep claims off what is ready as well, for it may be changed. Where it is
    not, a step that is read as ready may be running meanwhile, and if all is as ``remembered`` nothing is read.
    ``also``: asks for more on the same way, once the runs are locked; it is told whether they are read, and asked again
    if they must be after all.
    """
    wanted = sorted(set(ids), key=_INT)
    asked = {"ids": arrays.ids(wanted)}
    if not ready and all(id_ in remembered.stored for id_ in wanted):
        with bulk.together(tx):
            locked, clock = bulk.send(tx, _LOCK_KNOWN, {**asked, "by": remembered.by}), bulk.send(tx, _CLOCK)
            also(read=False)
        if locked.fetchall()[0][0] == len(wanted):
            return Locked({id_: remembered.stored[id_] for id_ in wanted}, clock.fetchall()[0][0])
    with bulk.together(tx):
        locked = bulk.send(tx, _LOCK_REQUESTS, asked)
        if ready:
            bulk.send(tx, _LOCK_READY, asked)
        read, clock = bulk.send(tx, _STEPS, asked), bulk.send(tx, _CLOCK)
        also(read=True)
    steps = dict(read.fetchall())
    stored: dict[UUID, Stored] = {}
    for row in locked.fetchall():
        header = Header(*row[:_HEADER])
        stored[header.id] = Stored(header, to_run(header.id, header.right, row[_HEADER:], steps.get(header.id, ())))
    return Locked(stored, clock.fetchall()[0][0])


_INT = attrgetter("int")
"""Ids in order: the same order as theirs, without asking each of them."""
_HEADER = len(Header._fields)
_WRITTEN_ONCE = [name for name in Header._fields if name not in {"id", "audit_seq", "audit_head"}]
_ENTRY = ("request_id", "seq", "at", "what", "ordinal", "facts", "hash")
# How many are as that transaction left them.
_LOCK_KNOWN = """
WITH locked AS (SELECT xmin::text AS by FROM request WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE)
SELECT count(*) FILTER (WHERE by = %(by)s) FROM locked"""
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
    bulk.insert(tx, tables.request, _new_requests(new, chained))
    _insert_steps(tx, new)
    old = [
        c
        for c in changes
        if c.before is not None and (heads[c.header.id][0] != c.header.audit_seq or c.after != c.before)
    ]
    bulk.update(tx, tables.request, ("id",), _requests(old, chained))
    _update_steps(tx, old, moment + lease)
    bulk.insert(tx, tables.audit, chained.rows)


def _insert_steps(tx: Connection, new: Sequence[Change]) -> None:
    """Equal requests share the steps they begin with."""
    ways = bulk.Ways()
    its = [c for c in new if ways.add(id(c.after.steps), partial(map, from_new_step, c.after.steps))]
    own: bulk.Columns = {
        "request_id": [c.header.id for c in its],
        "deadline": [c.after.deadline for c in its],
        "rank": [c.after.deadline + c.turn for c in its],
    }
    bulk.insert_each(tx, tables.step, own, ways)


def _update_steps(tx: Connection, old: Sequence[Change], until: datetime) -> None:
    """Runs that went the same way share their steps, before and after."""
    ways, ids = bulk.Ways(), list[UUID]()
    for change in old:
        before, after = change.before.steps if change.before else (), change.after.steps
        if ways.add((id(before), id(after)), partial(_changed, before, after, until)):
            ids.append(change.header.id)
    bulk.update_each(tx, tables.step, {"request_id": ids}, "ordinal", ways, also=", changed_at = now()")


def _changed(before: Sequence[Step], after: Sequence[Step], until: datetime) -> Iterator[dict[str, Any]]:
    return (from_step(b, until) for a, b in zip(before, after, strict=True) if a is not b and a != b)


def _new_requests(new: Sequence[Change], chained: Chained) -> bulk.Columns:
    headers = [c.header for c in new]
    once = {name: [getattr(h, name) for h in headers] for name in _WRITTEN_ONCE}
    return {**_requests(new, chained), **once} if new else {}


def _requests(changes: Sequence[Change], chained: Chained) -> bulk.Columns:
    """What changes in a request's life."""
    if not changes:
        return {}
    runs, moment, keep = [c.after for c in changes], chained.moment, lru_cache(timedelta)
    heads = [chained.heads[run.request] for run in runs]
    return {
        "id": [run.request for run in runs],
        "deadline": [run.deadline for run in runs],
        "paused": [run.paused for run in runs],
        "stopping": [run.stopping for run in runs],
        "stop_reason": [run.stop_reason for run in runs],
        "resolution": [run.resolution for run in runs],
        "closed_at": [None if run.resolution is None else moment for run in runs],
        "shred_at": [None if c.after.resolution is None else moment + keep(c.header.keep_days) for c in changes],
        "audit_seq": [seq for seq, _ in heads],
        "audit_head": [head for _, head in heads],
    }


def chain(changes: Sequence[Change], moment: datetime) -> Chained:
    """The audit entries of changes, linked."""
    rows: list[tuple[Any, ...]] = []
    heads: dict[UUID, tuple[int, bytes]] = {}
    known: dict[int, tuple[Any, audit.Form]] = {}  # by the identity of records, which many requests share
    for change in changes:
        id_, seq, head = change.header.id, change.header.audit_seq, change.header.audit_head
        name = str(id_)
        for record in change.commands:
            if not isinstance(record, Record):
                continue
            if id(record) not in known:
                facts = _as_stored(dict(record.facts))
                known[id(record)] = bulk.encoded(facts), audit.Form(_entry(moment, record.what, record.ordinal, facts))
            stored, form = known[id(record)]
            seq += 1
            head = form.link(head, name, seq)
            rows.append((id_, seq, moment, record.what, record.ordinal, stored, head))
        heads[id_] = (seq, head)
    return Chained(dict(zip(_ENTRY, zip(*rows, strict=True), strict=True)) if rows else {}, heads, moment)


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
