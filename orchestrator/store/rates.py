"""Rates: one bucket for each system, in its row of ``connector_state``, by the database's clock."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.core.bucket import Bucket, Permit, Rate


@dataclass(frozen=True, slots=True)
class Looked:
    """A bucket as it was at a moment; nobody else changes it before the transaction ends."""

    bucket: Bucket
    at: datetime


def look(tx: Connection, system: str, rate: Rate) -> Looked | None:
    """The system's bucket now; ``None`` where the system has no row."""
    row = tx.execute(_LOOK, {"system": system}).one_or_none()
    if row is None:
        return None
    bucket = Bucket(row.tokens, {holder: Permit(steps, lasts) for holder, (steps, lasts) in row.permits.items()})
    at = max(row.now, row.tokens_at)
    return Looked(bucket.after((at - row.tokens_at).total_seconds(), rate), at)


def take(tx: Connection, system: str, looked: Looked, token: UUID, steps: int, lasts: timedelta) -> None:
    """So many of its steps were claimed, no more than there are tokens."""
    _save(tx, system, replace(looked, bucket=looked.bucket.taken(str(token), steps, lasts.total_seconds())))


def keep(tx: Connection, system: str, rate: Rate, token: UUID, unbegun: int, lasts: timedelta) -> bool:
    """Of what was claimed all but so many have begun; whether these still may."""
    looked = look(tx, system, rate)
    if looked is None or str(token) not in looked.bucket.permits:
        return False
    _save(tx, system, replace(looked, bucket=looked.bucket.kept(str(token), unbegun, lasts.total_seconds())))
    return True


def end(tx: Connection, system: str, rate: Rate, token: UUID, unbegun: int) -> None:
    """Give back what was claimed and will not begin."""
    looked = look(tx, system, rate)
    if looked is not None:
        _save(tx, system, replace(looked, bucket=looked.bucket.ended(str(token), unbegun)))


def _save(tx: Connection, system: str, looked: Looked) -> None:
    permits = json.dumps({holder: (permit.steps, permit.lasts) for holder, permit in looked.bucket.permits.items()})
    tx.execute(_SAVE, {"system": system, "tokens": looked.bucket.tokens, "at": looked.at, "permits": permits})


_LOOK = text("""
SELECT tokens, tokens_at, permits, clock_timestamp() AS now FROM connector_state WHERE system = :system FOR UPDATE""")
_SAVE = text("""
UPDATE connector_state SET tokens = :tokens, tokens_at = :at, permits = CAST(:permits AS jsonb)
WHERE system = :system""")
