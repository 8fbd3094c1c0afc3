"""Settle: the results of a batch, in one transaction, and only under leases that are still in force."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from uuid import UUID

from sqlalchemy import Connection, select

from orchestrator import logs
from orchestrator.core import events as ev
from orchestrator.core.model import System
from orchestrator.core.vocabulary import Failure
from orchestrator.errors import Unavailable
from orchestrator.stages.advance import NOTHING, Advance, Advanced, Happening, Known
from orchestrator.stages.onward import Onward
from orchestrator.store import systems, tables
from orchestrator.store.database import Database

_log = logs.get("settle")

PATIENCE = 60.0
"""Seconds that a settle is sent again while the database is away, for what was done need not be done again. Each time
the tokens say whether it is still ours to do: if an attempt did commit, the next is fenced and changes nothing."""
PAUSE = 0.5
"""Seconds between two attempts; the second follows at once, for most often a connection was cut and no more."""

_SYSTEM_FAILED = frozenset({Failure.RETRYABLE, Failure.RATE_LIMITED, Failure.UNAUTHORISED})
"""Failures that speak of the system, not of one person's data: what the circuit breaker counts."""


class Said:
    """What came of one round, to be settled together."""

    def __init__(self, known: Known = NOTHING) -> None:
        """Nothing yet. ``known``: of the requests concerned."""
        self.known = known
        self.happenings: list[Happening] = []
        self.systems: set[str] = set()
        self.failed: set[str] = set()
        """Systems of which anything failed."""
        self.bytes = 0
        """Of gathered data that is held in memory until it is settled."""
        self._asked: dict[str, tuple[System, list[Happening]]] = {}

    def __len__(self) -> int:
        return len(self.happenings)

    def add(self, system: System, happening: Happening, *, asked: bool = True) -> None:
        """``asked``: the system was called, so that its circuit breaker can learn from what came of it."""
        self.happenings.append(happening)
        self.systems.add(system.name)
        if isinstance(happening.event, ev.Failed):
            self.failed.add(system.name)
        if happening.artifact is not None and happening.artifact["inline"] is not None:
            self.bytes += len(happening.artifact["inline"])
        if asked:
            self._asked.setdefault(system.name, (system, []))[1].append(happening)

    def answers(self, late: Sequence[Happening]) -> list[tuple[System, list[Happening]]]:
        """What each system said just now: not what came too late (or was sent twice), nor what it was never asked.

        In order of name: those who write what they learn of several systems never wait for each other in a circle.
        """
        without = {id(h) for h in late}
        return [
            (system, [h for h in said if id(h) not in without and not isinstance(h.event, ev.HandedBack)])
            for _, (system, said) in sorted(self._asked.items())
        ]


class Settle:
    """Writes results."""

    def __init__(self, database: Database, advance: Advance, patience: float = PATIENCE) -> None:
        """Shares ``Advance`` with the other stages. ``patience``: seconds."""
        self._database, self._advance, self._patience = database, advance, patience

    def settle(self, said: Said, onward: Onward | None = None) -> Advanced:
        """Settle, and take what is ready next, as ``onward`` says.

        Raises ``Unavailable`` when the database stays away: the leases then run out, and all is redone.
        """
        until = time.monotonic() + self._patience
        for attempt in count(1):
            try:
                with self._database.transaction() as tx:
                    learn = partial(_breakers, tx, said)
                    advanced = self._advance.apply(tx, said.happenings, said.known, onward, learn, commit=True)
                break
            except Unavailable:
                if time.monotonic() > until:
                    raise
                if attempt > 1:
                    _log.warning("database.unavailable", systems=sorted(said.systems), steps=len(said))
                    time.sleep(PAUSE)
        if advanced.fenced:
            _log.warning("steps.fenced", systems=sorted(said.systems), steps=len(advanced.fenced))
        _log.debug("steps.settled", systems=sorted(said.systems), steps=len(said), closed=len(advanced.closed))
        return advanced

    @staticmethod
    def locations(tx: Connection, requests: Sequence[UUID]) -> set[str]:
        """The artifact files that these requests have on record."""
        artifact = tables.artifact
        query = select(artifact.c.location).where(artifact.c.request_id.in_(requests), artifact.c.location.is_not(None))
        return set(tx.execute(query).scalars())


def _breakers(tx: Connection, said: Said, late: Sequence[Happening]) -> None:
    well: list[str] = []
    for system, happenings in said.answers(late):
        failed = [h.event for h in happenings if isinstance(h.event, ev.Failed) and h.event.failure in _SYSTEM_FAILED]
        if len(failed) < len(happenings):
            well.append(system.name)
        elif failed:
            systems.note_success(tx, well)  # before: whoever has several rows in hand took them in order of name
            well = []
            systems.note_failures(
                tx,
                system.name,
                len(failed),
                failed[-1].message,
                system.limits.breaker_failures,
                system.limits.breaker_rest,
            )
    systems.note_success(tx, well)
