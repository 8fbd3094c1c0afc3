"""The audit trail as it is read, verified, and added to by those who look at things without changing them.

A request's chain lies under its id. What concerns no request (a hold, a quarantined message, a system) has a chain of
its own: under its own id, or under one made from its kind and name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import Connection, text

from orchestrator.core.commands import Record
from orchestrator.errors import NotFound
from orchestrator.privacy import audit as chain
from orchestrator.store import bulk, tables
from orchestrator.store.runs import audit_entry, now

PAGE = 10_000
"""Entries fetched at once while a whole trail is verified."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a chain."""

    seq: int
    at: datetime
    what: str
    ordinal: int | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One chain, verified."""

    id: UUID
    entries: int
    fault: str = ""
    """Where and how it is broken; empty when it holds."""


def thing(kind: str, name: str) -> UUID:
    """The id of the chain of something that has a name instead of an id, e.g. a system."""
    return uuid5(NAMESPACE_URL, f"habeas:{kind}:{name}")


def note(tx: Connection, request: UUID, record: Record) -> None:
    """Add to a request's chain what changes nothing else of it: that somebody looked. Raises ``NotFound``."""
    row = tx.execute(_REQUEST, {"id": request}).one_or_none()
    if row is None:
        raise NotFound(f"there is no request {request}")
    head = _append(tx, request, row.audit_seq, row.audit_head, record)
    tx.execute(_MOVE_HEAD, {"id": request, "seq": row.audit_seq + 1, "head": head})


def note_thing(tx: Connection, id_: UUID, record: Record) -> None:
    """Add to the chain of something that is no request."""
    tx.execute(_ALONE, {"key": id_.int % 2**63})
    row = tx.execute(_LAST, {"id": id_}).one_or_none()
    _append(tx, id_, row.seq if row else 0, row.hash if row else chain.GENESIS, record)


def _append(tx: Connection, id_: UUID, seq: int, head: bytes, record: Record) -> bytes:
    moment = now(tx)
    entry = audit_entry(id_, seq + 1, moment, record.what, record.ordinal, record.facts)
    linked = chain.link(head, entry)
    row = {
        "request_id": id_,
        "seq": seq + 1,
        "at": moment,
        "what": record.what,
        "ordinal": record.ordinal,
        "facts": dict(record.facts),
        "hash": linked,
    }
    bulk.insert(tx, tables.audit, [row])
    return linked


def entries(tx: Connection, id_: UUID) -> list[Entry]:
    """A chain, oldest entry first."""
    return [Entry(r.seq, r.at, r.what, r.ordinal, r.facts) for r in tx.execute(_ENTRIES, {"id": id_})]


def verify(tx: Connection, request: UUID | None = None) -> Iterator[Verdict]:
    """Recompute one chain, or all of them, as a stream; each is compared with the head its request remembers."""
    query = _CHAIN if request is not None else _CHAINS
    rows = tx.execution_options(stream_results=True, yield_per=PAGE).execute(query, {"id": request} if request else {})
    for id_, group in groupby(rows, key=lambda r: r.id):
        yield _verify(id_, group)


def _verify(id_: UUID, rows: Iterator[Any]) -> Verdict:
    previous, n, fault, last = chain.GENESIS, 0, "", None
    for row in rows:
        last = row
        if row.seq is None:
            break
        n += 1
        if fault:
            continue
        if row.seq != n:
            fault = f"entry {n} is missing"
            continue
        entry = audit_entry(row.id, row.seq, row.at, row.what, row.ordinal, row.facts)
        broken = chain.verify_chain([(entry, row.hash)], previous)
        if broken is not None:
            fault = f"entry {n}: {broken.reason}"
        previous = row.hash
    remembered = last.audit_seq if last is not None else None
    if not fault and last is not None and remembered is not None:
        if remembered != n:
            fault = f"its request remembers {remembered} entries, and there are {n}"
        elif last.audit_head != previous:
            fault = "the last entry is not the one that its request remembers"
    return Verdict(id_, n, fault)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed checkpoint, verified."""

    id: int
    at: datetime
    entries: int
    fault: str = ""


def checkpoints(tx: Connection, public_keys: Mapping[str, bytes]) -> Iterator[Checkpoint]:
    """Check every checkpoint: its signature, that it follows the one before, and that its entries are as they were."""
    previous, since = "", "-infinity"
    for row in tx.execute(_CHECKPOINTS).all():
        facts = row.facts
        key = public_keys.get(str(facts.get("key")))
        fault = ""
        if key is None:
            fault = f"it is signed with master key {facts.get('key')}, which is not configured"
        elif not chain.verify_checkpoint(facts, row.signature, key):
            fault = "its signature does not hold"
        elif facts.get("previous") != previous or facts.get("since") != since:
            fault = "it does not follow the checkpoint before: one is missing"
        else:
            heads = tx.execute(HEADS, {"since": facts["since"], "until": facts["at"]}).one()
            if (heads.requests, heads.digest) != (facts["entries"], facts["digest"]):
                fault = "entries that it covers were changed, added or removed since"
        previous, since = row.signature.hex(), str(facts.get("at"))
        yield Checkpoint(row.id, row.at, int(facts.get("entries", 0)), fault)


_REQUEST = text("SELECT audit_seq, audit_head FROM request WHERE id = :id FOR UPDATE")
_MOVE_HEAD = text("UPDATE request SET audit_seq = :seq, audit_head = :head WHERE id = :id")
_ALONE = text("SELECT pg_advisory_xact_lock(:key)")
_LAST = text("SELECT seq, hash FROM audit WHERE request_id = :id ORDER BY seq DESC LIMIT 1")
_ENTRIES = text("SELECT seq, at, what, ordinal, facts FROM audit WHERE request_id = :id ORDER BY seq")
_JOINED = """
SELECT coalesce(r.id, a.request_id) AS id, a.seq, a.at, a.what, a.ordinal, a.facts, a.hash, r.audit_seq, r.audit_head
FROM audit a FULL JOIN request r ON r.id = a.request_id"""
_CHAIN = text("""
SELECT a.request_id AS id, a.seq, a.at, a.what, a.ordinal, a.facts, a.hash, r.audit_seq, r.audit_head
FROM audit a LEFT JOIN request r ON r.id = a.request_id WHERE a.request_id = :id ORDER BY a.seq""")
_CHAINS = text(_JOINED + " ORDER BY 1, a.seq")
_CHECKPOINTS = text("SELECT id, at, facts, signature FROM audit_checkpoint ORDER BY id")
HEADS = text("""
SELECT count(*) AS requests,
    coalesce(encode(sha256(string_agg(request_id::text || ':' || seq || ':' || encode(hash, 'hex'), ','
        ORDER BY request_id, seq)::bytea), 'hex'), '') AS digest
FROM audit WHERE at > CAST(:since AS timestamptz) AND at <= CAST(:until AS timestamptz)""")
"""What a checkpoint covers: the entries between two times, as their number and one digest."""
