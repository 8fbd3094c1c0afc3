"""Recover: the database was restored from a backup, and its rows are older than the world.

What can be known is told, what can be mended is mended, and what cannot be known is said: ``docs/how-to/
restore-from-backup.md``. Nothing is done to the systems here: open steps simply run again, under the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.core import events as ev
from orchestrator.core import machine
from orchestrator.core.commands import Command, Record
from orchestrator.core.vocabulary import CHANGES_DATA, StepState
from orchestrator.errors import Conflict
from orchestrator.stages.advance import Advance
from orchestrator.store import bulk, runs, tables, trail
from orchestrator.store.database import Database

BATCH = 200
"""Requests changed in one transaction."""
PAGE = 1000
"""Ledger entries read, compared or written at once."""
CHANGES = sorted(CHANGES_DATA)


@dataclass(frozen=True, slots=True)
class MaybeDone:
    """Steps of one action on one system that were not done in the backup, and may have been done since."""

    system: str
    action: str
    running: int
    ready: int
    parked: int
    attention: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One erased identity in an exported ledger: a keyed hash, and whose request it was."""

    hash: str
    """Hex."""
    request: UUID
    at: datetime
    source: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An erasure that was carried out, and whose request the restored database does not know."""

    request: UUID
    at: datetime
    source: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What the restored database can tell."""

    backup_ends: datetime | None
    """Its newest entry; ``None`` in an empty one."""
    open_requests: int
    leases: int
    """Steps that a worker had in hand."""
    maybe_done: tuple[MaybeDone, ...]
    answers_lost: int
    """Open steps that wait for a decision or a report: what was said since is to be said again."""
    events_again: int
    """Events that were not published in the backup: they go out (again), under the same ids."""
    shredded_again: int
    """Requests whose keeping has ended: their data came back with the backup, and the clock shreds it again."""
    holds: int
    """Legal holds in force."""
    paused: tuple[str, ...]
    """Systems that are paused."""


@dataclass(slots=True)
class Compared:
    """An exported ledger against the restored one."""

    entries: int = 0
    missing: int = 0
    """Entries that the restored ledger does not have."""
    forgotten: list[Forgotten] = field(default_factory=list)
    open_again: list[UUID] = field(default_factory=list)
    """Erasures that were closed, and are open in the restored database: they are carried out again."""


class Recover:
    """Brings a restored database up to what can be known."""

    def __init__(self, database: Database, advance: Advance) -> None:
        """Shares ``Advance`` with the other stages."""
        self._database, self._advance = database, advance

    def look(self) -> Findings:
        """What may have been done twice, and what comes again. Changes nothing."""
        with self._database.transaction() as tx:
            facts = tx.execute(_FACTS).one()
            steps = tx.execute(_MAYBE_DONE, {"actions": CHANGES})
            return Findings(
                maybe_done=tuple(MaybeDone(**r._mapping) for r in steps),  # noqa: SLF001 - SQLAlchemy's public name
                paused=tuple(facts.paused),
                **{k: v for k, v in facts._mapping.items() if k != "paused"},  # noqa: SLF001 - the same
            )

    def compare(self, entries: Iterable[Entry]) -> Compared:
        """Which erasures the restored database does not know. Changes nothing."""
        compared, seen = Compared(), set[UUID]()
        with self._database.transaction() as tx:
            for page in _pages(entries):
                compared.entries += len(page)
                compared.missing += len(_missing(tx, page))
                fresh = {e.request: e for e in page if e.request not in seen}
                seen |= fresh.keys()
                known = {r.id: r.resolution for r in tx.execute(_KNOWN, {"ids": list(fresh)})}
                compared.open_again += [id_ for id_, resolution in known.items() if resolution is None]
                compared.forgotten += [
                    Forgotten(e.request, e.at, e.source, e.message_id) for e in fresh.values() if e.request not in known
                ]
        return compared

    def remember(self, entries: Iterable[Entry]) -> int:
        """Write the ledger's lost entries again, so that erased people stay known; how many."""
        added = 0
        for page in _pages(entries):
            with self._database.transaction() as tx:
                lost = _missing(tx, page)
                rows = [{"hash": bytes.fromhex(e.hash), "request_id": e.request, "at": e.at} for e in lost]
                bulk.insert(tx, tables.ledger, rows, ignore="hash, request_id")
            added += len(lost)
        return added

    def recover(self, actor: str, backup_ends: datetime) -> int:
        """Take all leases back, close breakers, empty rate tokens, and record it; how many requests were open.

        Can be cut off and done again. Raises ``Conflict`` while other processes of Habeas use the database, and
        ``Unavailable``.
        """
        with self._database.transaction() as tx:
            busy = list(tx.execute(_BUSY).scalars())
            if busy:
                raise Conflict(f"stop all processes first; still connected: {', '.join(busy)}")
            tx.execute(_RESET)
            said = {"actor": actor, "backup_ends": backup_ends.isoformat()}
            trail.note_thing(tx, trail.thing("database", "restored"), Record("recovered", None, said))
        done, last = 0, UUID(int=0)
        while True:
            with self._database.transaction() as tx:
                ids = list(tx.execute(_OPEN, {"after": last, "n": BATCH}).scalars())
                self._recover(tx, ids, said)
            if not ids:
                return done
            done, last = done + len(ids), ids[-1]

    def _recover(self, tx: Connection, ids: Sequence[UUID], said: dict[str, str]) -> None:
        locked = runs.lock(tx, ids)
        stored, moment = locked.stored, locked.moment
        changes: list[runs.Change] = []
        for one in stored.values():
            run, told = one.run, list[Command]()
            maybe = [s.ordinal for s in run.steps if s.action in CHANGES_DATA and s.state is not StepState.DONE]
            told.append(Record("recovered", None, {**said, "maybe_done": maybe}))
            for step in one.run.steps:
                # Handed back, not lost: the step did nothing wrong, and its old worker can settle it no more.
                if step.state is StepState.RUNNING and step.token is not None:
                    run, more = machine.advance(run, ev.HandedBack(step.ordinal, step.token), moment)
                    told += more
            changes.append(runs.Change(one.header, one.run, run, told))
        self._advance.save(tx, changes, moment)


# The ledger, as a file. ---------------------------------------------------------------------------------------------


def export(tx: Connection, since: datetime | None = None) -> Iterator[str]:
    """The ledger as lines of JSON, oldest first; ``since``: entries from this time on. Keyed hashes, no identities."""
    rows = tx.execution_options(stream_results=True, yield_per=PAGE).execute(_EXPORT, {"since": since})
    for row in rows:
        facts = {"at": row.at.astimezone(UTC).isoformat(), "request": str(row.request_id), "hash": row.hash.hex()}
        yield json.dumps({**facts, "source": row.source, "message_id": row.message_id}, ensure_ascii=False)


def read(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of an exported ledger. Raises ``Conflict`` naming the line that is none."""
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            facts = json.loads(line)
            entry = Entry(
                bytes.fromhex(facts["hash"]).hex(),
                UUID(facts["request"]),
                datetime.fromisoformat(facts["at"]),
                str(facts.get("source") or ""),
                str(facts.get("message_id") or ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Conflict(f"line {n} of the ledger file is no entry that habeas ledger export wrote") from None
        yield entry


def _pages(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    page: list[Entry] = []
    for entry in entries:
        page.append(entry)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


def _missing(tx: Connection, page: Sequence[Entry]) -> list[Entry]:
    keys = {(e.hash, e.request): e for e in page}
    values = {"hashes": [h for h, _ in keys], "requests": [r for _, r in keys]}
    return [keys[r.hash, r.request] for r in tx.execute(_MISSING, values)]


_FACTS = text("""
SELECT
    (SELECT max(at) FROM audit) AS backup_ends,
    (SELECT count(*) FROM request WHERE resolution IS NULL) AS open_requests,
    (SELECT count(*) FROM step WHERE state = 'running') AS leases,
    (SELECT count(*) FROM step WHERE state = 'parked' AND parked_for = 'report') AS answers_lost,
    (SELECT count(*) FROM unpublished) AS events_again,
    (SELECT count(*) FROM request WHERE shred_at <= clock_timestamp()) AS shredded_again,
    (SELECT count(*) FROM hold WHERE released_at IS NULL) AS holds,
    (SELECT coalesce(array_agg(system ORDER BY system), '{}') FROM connector_state WHERE paused) AS paused""")
_MAYBE_DONE = text("""
SELECT s.system, s.action,
    count(*) FILTER (WHERE s.state = 'running') AS running,
    count(*) FILTER (WHERE s.state = 'ready') AS ready,
    count(*) FILTER (WHERE s.state = 'parked') AS parked,
    count(*) FILTER (WHERE s.state = 'attention') AS attention,
    count(*) FILTER (WHERE s.state = 'waiting') AS waiting
FROM step s JOIN request r ON r.id = s.request_id AND r.resolution IS NULL
WHERE s.action = ANY(:actions) AND s.state <> 'done'
GROUP BY 1, 2 ORDER BY 1, 2""")
_KNOWN = text("SELECT id, resolution FROM request WHERE id = ANY(:ids)")
_MISSING = text("""
SELECT k.h AS hash, k.r AS request
FROM unnest(CAST(:hashes AS text[]), CAST(:requests AS uuid[])) AS k(h, r)
WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.hash = decode(k.h, 'hex') AND ledger.request_id = k.r)""")
_BUSY = text("""
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name IN ('habeas intake', 'habeas worker', 'habeas clock') ORDER BY 1""")
# Tokens start at none: how many the vendor has left for us is not known either.
_RESET = text("""
UPDATE connector_state
SET failures = 0, breaker_until = NULL, last_error = '', tokens = 0, tokens_at = clock_timestamp(),
    permits = '{}'""")
_OPEN = text("SELECT id FROM request WHERE resolution IS NULL AND id > :after ORDER BY id LIMIT :n")
_EXPORT = text("""
SELECT ledger.at, ledger.request_id, ledger.hash, request.source, request.message_id
FROM ledger LEFT JOIN request ON request.id = ledger.request_id
WHERE CAST(:since AS timestamptz) IS NULL OR ledger.at >= :since
ORDER BY ledger.at, ledger.request_id, ledger.hash""")
