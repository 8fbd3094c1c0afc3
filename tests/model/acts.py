"""What can be done to the engine: each act runs on the real store, and is mirrored on the reference."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from orchestrator.core import events as ev
from orchestrator.core.model import Identity
from orchestrator.core.transitions import Impossible
from orchestrator.core.vocabulary import StepState
from orchestrator.errors import Conflict, Unavailable
from orchestrator.runtime import Runtime
from orchestrator.stages.advance import NOTHING, Advanced, Happening, Known
from orchestrator.stages.onward import Onward
from orchestrator.stages.secrets import Opened
from orchestrator.stages.settle import Settle
from orchestrator.store import claims
from orchestrator.store.claims import Claimed
from orchestrator.store.database import Database
from tests.model.reference import Key, Reference, Said, View
from tests.support.worlds import said

LEASE = timedelta(hours=1)
"""No lease runs out by itself during a test."""
PATIENCE = 20.0
"""Seconds until two sessions that should have met are given up on."""


class Cut(Database):
    """A database whose next transaction is met in the middle, or whose commit is not heard of."""

    before_commit: Callable[[], None] | None = None
    silent_commits = 0
    """So many commits succeed, and the connection is lost before anybody is told."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as tx:
            driver: Any = tx.connection.driver_connection
            execute = driver.execute

            def executing(query: str, *values: object, **how: object) -> object:
                if query == "COMMIT":  # a settle commits with the last that it writes
                    with driver.pipeline():
                        pass  # what was sent has been done
                    self._meet()
                return execute(query, *values, **how)

            driver.execute = executing
            try:
                yield tx
            finally:
                del driver.execute
            self._meet()
        if self.silent_commits:
            self.silent_commits -= 1
            raise Unavailable("the connection to the database was cut")

    def _meet(self) -> None:
        met, self.before_commit = self.before_commit, None
        if met is not None:
            met()


class RolledBack(Exception):
    """The first of two sessions died before its commit."""


class Act(Protocol):
    """Something that one session does."""

    def run(self, runtime: Runtime) -> None:
        """Do it."""

    def touched(self) -> tuple[set[UUID], set[Key]]:
        """The runs and the steps that it locks."""

    def mirror(self, reference: Reference, now: datetime, runs: set[UUID], steps: set[Key]) -> None:
        """What must have come of it while these runs and steps were locked by another session."""


@dataclass
class Claim:
    """A worker takes steps."""

    system: str
    n: int
    token: UUID = field(default_factory=uuid4)
    taken: list[Claimed] = field(default_factory=list)
    known: Known = NOTHING

    def run(self, runtime: Runtime) -> None:
        limits = runtime.definitions.systems[self.system].limits
        with runtime.database.transaction() as tx:
            taken = claims.claim(tx, self.system, limits, self.n, self.token, LEASE)
            self.taken = sorted(taken, key=lambda c: (c.deadline, c.step.ordinal))
            self.known = Known(runtime.secrets.open(tx, {c.request for c in taken}))

    def touched(self) -> tuple[set[UUID], set[Key]]:
        return set(), {(c.request, c.step.ordinal) for c in self.taken}

    def mirror(self, reference: Reference, now: datetime, runs: set[UUID], steps: set[Key]) -> None:
        of_runs = {(id_, s.ordinal) for id_ in runs for s in reference.runs[id_].steps}
        state = reference.systems[self.system]
        ready = [(i, s.ordinal, s.crashes) for i, s in reference.steps(StepState.READY) if s.system == self.system]
        must = reference.claim(self.system, self.n, self.token, steps | of_runs)
        taken = {(c.request, c.step.ordinal): c.step for c in self.taken}
        assert taken == must, f"of {ready} without {steps | of_runs}, {state}"


@dataclass(frozen=True)
class Batch:
    """What a worker holds, or once held, and what it knows of the requests."""

    system: str
    claimed: tuple[Claimed, ...]
    known: Known = NOTHING


@dataclass
class Settled:
    """A worker says what became of steps it had claimed, and may take what follows."""

    batch: Batch
    said: Sequence[Said]
    room: Mapping[str, int] | None = None
    """System → how many steps it takes of it that become ready; ``None``: it doesn't go on."""
    advanced: Advanced | None = None
    seen: View | None = None
    """How everything stood before another session began that it met."""

    def __post_init__(self) -> None:
        ranks = {c.request: c.rank for c in self.batch.claimed}
        self.onward = None if self.room is None else Onward(self.room, LEASE, ranks)

    @property
    def system(self) -> str:
        """Whose steps they were."""
        return self.batch.system

    def run(self, runtime: Runtime) -> None:
        happenings = [_happening(runtime, one) for one in self.said]
        together = said(runtime, self.system, happenings)
        together.known = self.batch.known
        self.advanced = Settle(runtime.database, runtime.advance).settle(together, self.onward)

    def touched(self) -> tuple[set[UUID], set[Key]]:
        # A word about a step of one's own keeps no claim from what is ready in the same run.
        return {one.request for one in self.said if not isinstance(one.event, ev.OWN_STEP)}, set()

    def mirror(self, reference: Reference, now: datetime, runs: set[UUID], steps: set[Key]) -> None:
        before = reference.view()
        rings = reference.settle(self.system, self.said, now)
        assert self.advanced is not None
        self._mirror_following(reference, [before, *([self.seen] if self.seen else [])])
        mine = {s.system for one in self.said for s in reference.runs[one.request].steps if s.state is StepState.READY}
        rings = rings if self.onward is None else rings & mine
        assert rings <= self.advanced.rings.keys(), "a system that has work is rung for"

    def _mirror_following(self, reference: Reference, views: Sequence[View]) -> None:
        asked = {one.request for one in self.said}
        must = [reference.following(view, asked, self.room or {}) for view in views]
        taken = [c for batch in self.following() for c in batch.claimed]
        keys = [(c.request, c.step.ordinal) for c in taken]
        assert sorted(keys) in map(sorted, must), (keys, must)
        steps = reference.take(keys, self.onward.tokens if self.onward else {})
        assert {(c.request, c.step.ordinal): c.step for c in taken} == steps
        for one in taken:
            run = reference.runs[one.request]
            assert (one.token, one.deadline) == (one.step.token, run.deadline)
            assert one.rank in {c.rank for c in self.batch.claimed if c.request == one.request}
            facts = self.advanced.known.facts[one.request] if self.advanced else None
            assert isinstance(facts, Opened)
            assert facts.findings == reference.chronicles[one.request].findings
            assert len(facts.identities) == 1 + bool(facts.findings)

    def following(self) -> list[Batch]:
        """What it took."""
        if self.advanced is None or self.advanced.following is None:
            return []
        taken = self.advanced.following.taken
        return [Batch(system, tuple(its), self.advanced.known) for system, its in taken.items()]


def _happening(runtime: Runtime, one: Said) -> Happening:
    finding = artifact = None
    ordinal = one.event.ordinal
    with runtime.database.engine.begin() as tx:
        if one.finding:
            found = [Identity("user_id", f"user-{one.request}")]
            finding = runtime.secrets.seal_finding(runtime.secrets.key(tx, one.request), one.request, ordinal, found)
    if one.artifact:
        artifact = {"request_id": one.request, "ordinal": ordinal, "system": "crm", "records": 1, "bytes": 1}
        artifact |= {"counts": {}, "digest": "00", "inline": b"x", "location": None}
    return Happening(one.request, one.event, finding, artifact)


@dataclass
class Operated:
    """An operator, or somebody who reports, does something to a request."""

    request: UUID
    event: ev.Event
    refused: str | None = None

    def run(self, runtime: Runtime) -> None:
        try:
            runtime.operate.apply(self.request, self.event)
        except Conflict as reason:
            self.refused = str(reason)

    def touched(self) -> tuple[set[UUID], set[Key]]:
        return {self.request}, set()

    def mirror(self, reference: Reference, now: datetime, runs: set[UUID], steps: set[Key]) -> None:
        refused = None
        try:
            reference.happen(self.request, self.event, now)
        except Impossible as reason:
            refused = str(reason)
        assert self.refused == refused


@dataclass
class Meeting:
    """Two sessions at once: the second begins when the first has done all but its commit."""

    first: Act
    second: Act
    commits: bool
    waited: bool = False
    """The second had to wait for the first."""

    def run(self, runtime: Runtime, database: Cut, other: Runtime, watch: Database) -> None:
        faults: list[BaseException] = []
        thread = threading.Thread(target=self._second, args=(other, faults), daemon=True)

        def meet() -> None:
            thread.start()
            self.waited = _ended_or_waits(thread, watch)
            if not self.commits:
                raise RolledBack

        database.before_commit = meet
        with contextlib.suppress(RolledBack):
            self.first.run(runtime)
        if database.before_commit is not None:
            # The first was refused and had nothing to commit: they met one after the other.
            database.before_commit, self.waited, self.commits = None, True, True
            thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the second session never got its turn"
        if faults:
            raise faults[0]

    def _second(self, other: Runtime, faults: list[BaseException]) -> None:
        try:
            self.second.run(other)
        except BaseException as fault:  # noqa: BLE001 - raised again in the test's own thread
            faults.append(fault)

    def mirror(self, reference: Reference, now: datetime) -> None:
        """Whoever had to wait came second; where nobody had to, neither saw anything of the other.

        Who waits only at its end (for a system's row) has looked around before.
        """
        for act in (self.first, self.second):
            if isinstance(act, Settled):
                act.seen = reference.view()
        if self.waited:
            if self.commits:
                self.first.mirror(reference, now, set(), set())
            self.second.mirror(reference, now, set(), set())
            return
        runs, steps = self.first.touched()
        acts: list[tuple[Act, set[UUID], set[Key]]] = [(self.second, runs, steps)]
        acts += [(self.first, set(), set())] if self.commits else []
        for act, held_runs, held_steps in sorted(acts, key=lambda a: _order(a[0])):
            act.mirror(reference, now, held_runs, held_steps)


def _order(act: Act) -> int:
    """What looks at more than it locks belongs before what the other changes: 0 does, 2 does not."""
    if isinstance(act, Claim):
        return 0
    return 2 if isinstance(act, Settled) and all(isinstance(s.event, ev.Failed) for s in act.said) else 1


SECOND = "habeas second"
"""The second session's name in ``pg_stat_activity``."""


def _ended_or_waits(thread: threading.Thread, watch: Database) -> bool:
    until = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < until:
        with watch.transaction() as tx:
            if tx.execute(_WAITS, {"name": SECOND}).first():
                return True
        thread.join(0.002)
    return False


_WAITS = text("""
SELECT 1 FROM pg_stat_activity
WHERE application_name = :name AND datname = current_database() AND wait_event_type = 'Lock'""")
