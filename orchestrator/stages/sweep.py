"""Sweep: what time brings. One leader at a time does it, always in bounded batches; doing it twice changes nothing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator import logs
from orchestrator.artifacts.spool import Stored, finished_before, remove_stored, sweep_unfinished
from orchestrator.core import events as ev
from orchestrator.core.model import DEFAULT_RETRY, RetryPolicy, System
from orchestrator.privacy.audit import Checkpoints
from orchestrator.stages.advance import Advance, Advanced, Happening
from orchestrator.stages.secrets import Secrets
from orchestrator.store import outbox, past, runs, tally, trail
from orchestrator.store.database import Database

_log = logs.get("sweep")

BATCH = 1000
"""Rows that one statement changes at most."""
FOLD = 300
"""Requests whose steps are folded at once: it takes three times as long as any other purge of one."""
COVERED = 1_000_000
"""Audit entries that one checkpoint covers at most: their heads are put together in the database's memory."""
SETTLED = timedelta(minutes=1)
"""A checkpoint covers entries at least this old: longer than any transaction that writes some may still be open."""
STALE_PART = timedelta(days=1).total_seconds()
"""Age, in seconds, at which an unfinished artifact file is certainly nobody's."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long things are kept beyond their use."""

    outbox: timedelta
    quarantine: timedelta
    steps: timedelta
    """After their request closed; but its sealed data goes first, however long that is kept."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What one purge did."""

    requests: int
    """Requests shredded."""
    folded: int
    """Requests whose steps went into their audit chain."""
    more: bool
    """There is more than one purge takes: call again, when what is more pressing has been done."""


class Sweep:
    """The clock's work."""

    def __init__(
        self,
        database: Database,
        systems: Mapping[str, System],
        advance: Advance,
        checkpoints: Checkpoints,
        artifacts: Path,
        keep: Keep,
    ) -> None:
        """Shares ``Advance`` with the other stages."""
        self._database, self._systems, self._advance = database, systems, advance
        self._checkpoints, self._artifacts, self._keep = checkpoints, artifacts, keep

    def tick(self, *, take_back: bool = True) -> Advanced:
        """Wake what is due, take back what was lost, ring for what is ready. Raises ``Unavailable``."""
        advanced = Advanced()
        self._wake(advanced)
        if take_back:
            self._take_back(advanced)
        advanced.rings += self._unrung()
        return advanced

    def _wake(self, advanced: Advanced) -> None:
        """Parked steps whose time has come are ready; those of a paused request stay parked, for the pause."""
        while True:
            with self._database.transaction() as tx:
                rows = tx.execute(_WAKE).all()
                woken = Counter(r.system for r in rows if r.state == "ready")
                tally.count_parked(tx, {system: -n for system, n in woken.items()})
            advanced.rings.update(woken)
            if len(rows) < BATCH:
                return

    def _take_back(self, advanced: Advanced) -> None:
        """Steps whose lease ran out: their worker is gone. They come back, to be claimed alone."""
        while True:
            with self._database.transaction() as tx:
                rows = tx.execute(_EXPIRED).all()
                happenings = [
                    Happening(r.request_id, ev.LeaseExpired(r.ordinal, r.token, self._policy(r.system))) for r in rows
                ]
                if happenings:
                    advanced.add(self._advance.apply(tx, happenings))
                    _log.warning("steps.lost", steps=len(rows))
            if len(rows) < BATCH:
                return

    def _policy(self, system: str) -> RetryPolicy:
        return self._systems[system].retry if system in self._systems else DEFAULT_RETRY

    def _unrung(self) -> Counter[str]:
        """Systems with work that is ready: a doorbell may have been lost, and ringing twice changes nothing."""
        with self._database.statements() as each:
            return Counter({r.system: 1 for r in each.execute(_UNRUNG) if r.system in self._systems})

    # Retention: Habeas is held to its own rules. --------------------------------------------------------------------

    def purge(self) -> Purged:
        """Shred what is past its keeping, fold old steps, drop old events and refused messages; a batch of each.

        Requests that came in a flood are past their keeping in a flood: lost leases must not wait for the end of it.
        """
        with self._database.transaction() as tx:
            ids = [r.id for r in tx.execute(_SHRED, {"n": BATCH, "keep": self._keep.steps})]
            files = self._files(tx, ids)
            Secrets.shred(tx, ids)
        for stored in files:
            remove_stored(stored, self._artifacts)
        with self._database.transaction() as tx:
            events = outbox.drop_old(tx, self._keep.outbox, BATCH)
            refusals = tx.execute(_OLD_REFUSALS, {"keep": self._keep.quarantine, "n": BATCH}).rowcount
        with self._database.transaction() as tx:
            folded = past.fold(tx, FOLD)
        if ids:
            _log.info("request.shredded", requests=len(ids))
        if folded:
            _log.info("steps.folded", requests=folded)
        more = BATCH in {len(ids), events, refusals} or folded == FOLD
        if not more:
            sweep_unfinished(self._artifacts, time.time() - STALE_PART)
            self._remove_orphans()
        return Purged(len(ids), folded, more)

    def _remove_orphans(self) -> None:
        """Files whose worker was killed between finishing them and settling: no row knows them, nobody will."""
        names = finished_before(self._artifacts, time.time() - STALE_PART)
        for start in range(0, len(names), BATCH):
            with self._database.transaction() as tx:
                orphans = [r.name for r in tx.execute(_UNKNOWN_FILES, {"names": names[start : start + BATCH]})]
            for name in orphans:
                remove_stored(Stored(0, "", file=name), self._artifacts)

    @staticmethod
    def _files(tx: Connection, ids: list[UUID]) -> list[Stored]:
        return [Stored(r.bytes, r.digest, file=r.location) for r in tx.execute(_FILES, {"ids": ids})]

    def checkpoint(self) -> int:
        """Sign the heads of the audit chains that moved since the last checkpoint; how many entries that covers.

        Of more than ``COVERED`` the oldest are covered, and the next checkpoint goes on from there.
        """
        with self._database.transaction() as tx:
            last = tx.execute(_LAST_CHECKPOINT).one_or_none()
            since = last.facts["at"] if last else "-infinity"
            settled = {"since": since, "until": runs.now(tx) - SETTLED, "n": COVERED}
            moment = tx.execute(_COVERED, settled).scalar_one()
            if moment is None:
                return 0
            row = tx.execute(trail.HEADS, {"since": since, "until": moment}).one()
            facts = {
                "at": moment.isoformat(),
                "since": since,
                "entries": row.requests,
                "digest": row.digest,
                "previous": last.signature.hex() if last else "",
                "key": self._checkpoints.key_id,
            }
            values = {"at": moment, "facts": json.dumps(facts), "signature": self._checkpoints.sign(facts)}
            tx.execute(_CHECKPOINT, values)
        return int(row.requests)


# ``statement_timestamp`` where a time is looked for: an index can't be searched for ``clock_timestamp``, which changes
# from row to row, and every parked step would be read.
# What each round asks has no parameters: PostgreSQL plans such a statement once, where for others it may find plans for
# the very values look cheaper, and make one each time, for longer than it takes to answer.
_WAKE = text(f"""
WITH due AS (
    SELECT step.request_id, step.ordinal, request.paused FROM step JOIN request ON request.id = step.request_id
    WHERE step.state = 'parked' AND step.due <= statement_timestamp()
    ORDER BY step.due LIMIT {BATCH}
    -- The request too: an operator may be pausing it at this very moment.
    FOR UPDATE OF step SKIP LOCKED FOR SHARE OF request SKIP LOCKED
)
UPDATE step SET
    state = CASE WHEN due.paused THEN 'parked' ELSE 'ready' END,
    parked_for = CASE WHEN due.paused THEN 'pause' END,
    due = '9999-01-01T00:00:00Z', waiting_on = '', changed_at = now()
FROM due WHERE step.request_id = due.request_id AND step.ordinal = due.ordinal
RETURNING step.system, step.state""")  # noqa: S608 - our own number

_EXPIRED = text(f"""
SELECT step.request_id, step.ordinal, step.token, step.system FROM step JOIN request ON request.id = step.request_id
WHERE step.state = 'running' AND step.lease_until < statement_timestamp() ORDER BY step.lease_until LIMIT {BATCH}
-- A worker that stands still in the middle of a settle must not make the sweep stand still as well.
FOR UPDATE SKIP LOCKED""")  # noqa: S608 - our own number

_UNRUNG = text("""
SELECT c.system FROM connector_state c
-- Not EXISTS: of two with OR between, the planner makes a set of everything that is ready.
CROSS JOIN LATERAL (
    (SELECT 1 FROM step WHERE step.system = c.system AND step.state = 'ready' AND crashes = 0 LIMIT 1)
    UNION ALL (SELECT 1 FROM step WHERE step.system = c.system AND step.state = 'ready' AND crashes > 0 LIMIT 1)
    LIMIT 1
) AS found
WHERE NOT c.paused AND (c.breaker_until IS NULL OR c.breaker_until <= clock_timestamp())""")

_SHRED = text("""
WITH due AS (
    SELECT id FROM request WHERE shred_at <= statement_timestamp() ORDER BY shred_at LIMIT :n FOR UPDATE SKIP LOCKED
)
UPDATE request SET shred_at = NULL, fold_at = coalesce(closed_at, statement_timestamp()) + :keep
FROM due WHERE request.id = due.id RETURNING request.id""")

_FILES = text("""
SELECT bytes, digest, location FROM artifact WHERE request_id = ANY(:ids) AND location IS NOT NULL""")

_UNKNOWN_FILES = text("""
SELECT name FROM unnest(CAST(:names AS text[])) AS f(name)
WHERE NOT EXISTS (SELECT 1 FROM artifact WHERE location = f.name)""")

_OLD_REFUSALS = text("""
DELETE FROM quarantine WHERE id = ANY(ARRAY(
    SELECT id FROM quarantine WHERE at < statement_timestamp() - :keep ORDER BY at LIMIT :n))""")

# Entries of one moment stay together: the checkpoint covers all up to a time.
_COVERED = text("""
SELECT max(at) FROM (
    SELECT at FROM audit WHERE at > CAST(:since AS timestamptz) AND at <= :until ORDER BY at LIMIT :n
) AS oldest""")
_LAST_CHECKPOINT = text("SELECT facts, signature FROM audit_checkpoint ORDER BY id DESC LIMIT 1")
_CHECKPOINT = text(
    "INSERT INTO audit_checkpoint (at, facts, signature) VALUES (:at, CAST(:facts AS jsonb), :signature)"
)
