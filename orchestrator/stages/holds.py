"""Legal holds: while one is in force, nothing of the person is erased or changed, whatever was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, select, text, update
from sqlalchemy.sql import func

from orchestrator.core.events import Parked
from orchestrator.core.model import JSON, Identity, Step
from orchestrator.core.vocabulary import Action
from orchestrator.errors import NotFound
from orchestrator.privacy.ledger import Ledger
from orchestrator.stages.ids import new_id
from orchestrator.stages.secrets import Opened
from orchestrator.store import tables
from orchestrator.store.claims import Claimed

HELD_BACK = frozenset({Action.ERASE, Action.RECTIFY})
"""Actions that would destroy or change what must be preserved."""
LOOK_AGAIN = timedelta(days=1)
"""How long a held step is parked before it is looked whether the hold is still in force."""
_HELD = "legal_hold"
"""The key of a handle that stands for a hold: it carries what the step's own handle was."""


def parked_by_hold(one: Claimed, case: str, now: datetime) -> Parked:
    """The step waits for the end of a hold, and keeps its connector's handle and what was reported to it."""
    handle = {_HELD: case, "handle": handle_of(one.step), "signal": signal_of(one.step)}
    return Parked(one.step.ordinal, one.token, handle, now + LOOK_AGAIN, _waiting_on(case))


def handle_of(step: Step) -> Mapping[str, JSON] | None:
    """The step's own handle, also when it was held back in between."""
    if step.handle is not None and _HELD in step.handle:
        own: Mapping[str, JSON] | None = step.handle["handle"]
        return own
    return step.handle


def signal_of(step: Step) -> Mapping[str, JSON] | None:
    """What was reported to the step, also when it was held back in between."""
    if step.signal is None and step.handle is not None and _HELD in step.handle:
        reported: Mapping[str, JSON] | None = step.handle["signal"]
        return reported
    return step.signal


def _waiting_on(case: str) -> str:
    return f"the end of legal hold {case}"


class Holds:
    """Known to Habeas only as keyed hashes: who is under hold can't be read from the database."""

    def __init__(self, ledger: Ledger) -> None:
        """Shares the ledger's key."""
        self._ledger = ledger

    def place(self, tx: Connection, identities: Sequence[Identity], case: str, actor: str) -> list[UUID]:
        """Put identities under hold for a case; the ids of the new holds."""
        rows = [{"id": new_id(), "hash": self._ledger.hash(i), "case_name": case, "actor": actor} for i in identities]
        tx.execute(tables.hold.insert(), rows)
        return [UUID(str(r["id"])) for r in rows]

    @staticmethod
    def release(tx: Connection, case: str) -> int:
        """End all holds of a case; how many. What waited for it wakes with the next sweep. Raises ``NotFound``."""
        hold = tables.hold
        statement = update(hold).where(hold.c.case_name == case, hold.c.released_at.is_(None))
        n = tx.execute(statement.values(released_at=func.now())).rowcount
        if not n:
            raise NotFound(f"no hold is in force for case {case!r}")
        tx.execute(_WAKE, {"words": _waiting_on(case), "within": LOOK_AGAIN})
        return int(n)

    @staticmethod
    def any(tx: Connection, actions: Iterable[Action]) -> bool:
        """Whether any hold is in force that might hold back one of these actions."""
        if HELD_BACK.isdisjoint(actions):
            return False
        hold = tables.hold
        return tx.execute(select(hold.c.id).where(hold.c.released_at.is_(None)).limit(1)).first() is not None

    def cases(self, tx: Connection, tasks: Iterable[tuple[Claimed, Opened]]) -> dict[UUID, str]:
        """Which of these requests are held back, and by which case."""
        owners: dict[bytes, set[UUID]] = {}
        for one, facts in tasks:
            for identity in facts.identities if one.step.action in HELD_BACK else ():
                for digest in self._ledger.candidates(identity):
                    owners.setdefault(digest, set()).add(one.request)
        hold = tables.hold
        query = select(hold.c.hash, hold.c.case_name).where(hold.c.released_at.is_(None), hold.c.hash.in_(owners))
        return {request: row.case_name for row in tx.execute(query) for request in owners[row.hash]}


# Held steps are due within a day, so the timers' index finds them among any number of parked ones.
_WAKE = text("""
WITH held AS (
    SELECT request_id, ordinal FROM step
    WHERE state = 'parked' AND parked_for = 'report' AND due <= statement_timestamp() + :within AND waiting_on = :words
    FOR UPDATE SKIP LOCKED
)
UPDATE step SET due = clock_timestamp() FROM held
WHERE step.request_id = held.request_id AND step.ordinal = held.ordinal""")
