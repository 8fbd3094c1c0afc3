"""Advancing runs in the store: lock, ask the core, write back. Settle, sweep and operate all come through here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.core import events as ev
from orchestrator.core.alike import Alike
from orchestrator.core.commands import Announce, Command, Fence
from orchestrator.core.events import Event
from orchestrator.core.model import Run
from orchestrator.core.vocabulary import Action, Outcome, Right, StepState
from orchestrator.stages.answers import Answers
from orchestrator.stages.onward import Candidates, Following, Onward, candidates, take
from orchestrator.stages.secrets import Facts, Opened, Secrets
from orchestrator.store import bulk, claims, outbox, runs, systems, tables, tally


class Happening(NamedTuple):
    """An event of one run, and the rows that belong to it if it counts."""

    request: UUID
    event: Event
    finding: Mapping[str, Any] | None = None
    artifact: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of requests already, and need not be read again."""

    facts: Facts = field(default_factory=dict)
    runs: runs.Remembered = runs.NONE


NOTHING = Known()


@dataclass(slots=True)
class Advanced:
    """What came of it, for the time after the commit."""

    rings: Counter[str] = field(default_factory=Counter)
    """System → how many steps of the runs concerned are ready for it."""
    fenced: list[Happening] = field(default_factory=list)
    """Happenings that came too late and changed nothing."""
    closed: list[UUID] = field(default_factory=list)
    following: Following | None = None
    """What a settle took in the same breath."""
    known: Known = NOTHING
    """What is known of the requests whose steps it took."""

    def add(self, other: Advanced) -> None:
        """Take in another's."""
        self.rings += other.rings
        self.fenced += other.fenced
        self.closed += other.closed
        self.following, self.known = other.following, other.known


@dataclass(slots=True)
class _Turn:
    """A run on its way."""

    stored: runs.Stored
    after: Run
    commands: list[Command] = field(default_factory=list)


class _Asked:
    """What is asked beside locking the runs, to save a way to the server: who is first, and what was found since."""

    def __init__(self, secrets: Secrets, requests: Collection[UUID], known: Known, onward: Onward | None) -> None:
        self._secrets, self._requests, self._known = secrets, requests, known
        # What is remembered tells what may become ready.
        alike = {id(s.run.steps): s.run.steps for s in known.runs.stored.values()} if onward else {}
        waiting = {s.system for steps in alike.values() for s in steps if s.state is StepState.WAITING}
        self._expected = waiting & set(onward.room) if onward else set()
        self._firsts: Callable[[], claims.Firsts] | None = None
        self._facts: Callable[[], Facts] = lambda: known.facts

    def ask(self, tx: Connection, *, read: bool) -> None:
        """Ask, once the runs are locked: the answers come later. ``read``: others may have added to them."""
        if self._expected and self._firsts is None:
            self._firsts = claims.ask_firsts(tx, self._expected)
        if read and self._known.facts:
            opened = {id_: one for id_ in self._requests if isinstance(one := self._known.facts.get(id_), Opened)}
            self._facts = self._secrets.catch_up(tx, opened)

    def firsts(self, tx: Connection, found: Candidates) -> claims.Firsts:
        """Who stands first where we would go on."""
        wanted = {s.system for _, _, steps in found for s in steps}
        return (self._firsts if self._firsts and wanted <= self._expected else claims.ask_firsts(tx, wanted))()

    def facts(self, requests: Iterable[UUID], counted: Sequence[Happening]) -> Facts:
        """What is known of these requests by now, with what was found just now."""
        known = self._facts()
        facts = {id_: known[id_] for id_ in requests if id_ in known}
        for happening in counted:
            if happening.finding and happening.request in facts:
                facts[happening.request] = self._secrets.and_found(facts[happening.request], happening.finding)
        return facts


class Advance:
    """Applies happenings to stored runs, many at once, in the caller's transaction."""

    def __init__(self, answers: Answers, secrets: Secrets) -> None:
        """Holds no state of its own."""
        self._answers, self._secrets = answers, secrets

    def apply(
        self,
        tx: Connection,
        happenings: Sequence[Happening],
        known: Known = NOTHING,
        onward: Onward | None = None,
        learn: Callable[[Sequence[Happening]], None] = lambda _late: None,
        *,
        commit: bool = False,
    ) -> Advanced:
        """Apply in order. Raises ``machine.Impossible`` when an operator asks what a state forbids.

        ``known``: of some of the requests; ``onward``: what to take if it becomes ready; ``learn``: is told what came
        too late, and may write. ``commit``: the transaction ends with what is written, in the same round trip.
        """
        ready = not all(isinstance(h.event, ev.OWN_STEP) for h in happenings)
        requests = {h.request for h in happenings}
        asked = _Asked(self._secrets, requests, known, onward if not ready else None)
        locked = runs.lock(tx, requests, ready=ready, remembered=known.runs, also=partial(asked.ask, tx))
        turns = {id_: _Turn(stored, stored.run) for id_, stored in locked.stored.items()}
        advanced = Advanced()
        counted, advanced.fenced = _told(turns, happenings, locked.moment)
        found = candidates(((t.stored.run, t.after) for t in turns.values()), onward) if onward else ()
        if onward and any(s.state is StepState.RUNNING for _, _, steps in found for s in steps):
            claims.extend(tx, onward.tokens.values(), onward.lease)  # part of it passed before we knew
        # Those who go on, and those who close, for who was erased is told by all that was found.
        closed = (id_ for id_, turn in turns.items() if not turn.after.open)
        facts = asked.facts(chain((run.request for _, run, _ in found), closed), counted)
        if onward and found and (following := take(found, onward, asked.firsts(tx, found))):
            advanced.following = following
            for id_, run in following.runs.items():
                turns[id_].after = run
        changes = [runs.Change(t.stored.header, t.stored.run, t.after, t.commands) for t in turns.values()]
        chained = runs.chain(changes, locked.moment)
        if advanced.following:
            advanced.known = Known(facts, _left(advanced.following, locked.stored, chained))

        def also() -> None:
            _write_found(tx, counted)
            systems.count_fenced(tx, _late(locked.stored, advanced.fenced))
            learn(advanced.fenced)

        lease = onward.lease if onward else timedelta()
        self._save(tx, changes, chained, advanced, facts=facts, lease=lease, also=also, commit=commit)
        return advanced

    def save(self, tx: Connection, changes: Sequence[runs.Change], moment: datetime) -> Advanced:
        """Write changed or new runs, their audit, their announcements; tell what to ring for."""
        advanced = Advanced()
        self._save(tx, changes, runs.chain(changes, moment), advanced)
        return advanced

    def _save(
        self,
        tx: Connection,
        changes: Sequence[runs.Change],
        chained: runs.Chained,
        advanced: Advanced,
        *,
        facts: Facts = MappingProxyType({}),
        lease: timedelta = timedelta(),
        also: Callable[[], None] = lambda: None,
        commit: bool = False,
    ) -> None:
        """``facts``: known of some requests; ``lease``: for how long steps are taken; ``also``: writes more."""
        rows = [
            self._answers.announce(c.header, c.after, command, chained.moment)
            for c in changes
            for command in c.commands
            if isinstance(command, Announce)
        ]
        closed = [c for c in changes if not c.after.open and (c.before is None or c.before.open)]
        erased = self._erased(tx, [c.after for c in closed], facts)
        with bulk.together(tx, commit=commit):
            runs.save(tx, changes, chained, lease)
            # That a request has come is not said before its doorbell is rung, which intake does: the two would race.
            outbox.put(tx, rows, wake=any(c.before is not None for c in changes))
            bulk.insert(tx, tables.ledger, erased, ignore="hash, request_id")
            tally.count(tx, changes)
            also()
        # For what was ready before as well: a claim that came meanwhile passed over the runs that are locked here.
        advanced.rings += _ready(changes)
        advanced.closed += [c.header.id for c in closed]

    def _erased(self, tx: Connection, closed: Sequence[Run], facts: Facts) -> list[dict[str, Any]]:
        """Who was erased, as keyed hashes: so that they can be recognised if their data comes back."""
        erased = [r.request for r in closed if r.right is Right.ERASURE and _something_erased(r)]
        return [
            {"hash": digest, "request_id": request}
            for request, digests in self._secrets.identity_hashes(tx, erased, facts).items()
            for digest in digests
        ]


def _told(
    turns: Mapping[UUID, _Turn], happenings: Sequence[Happening], moment: datetime
) -> tuple[list[Happening], list[Happening]]:
    """Advance the runs by what happened; what of it counts, and what came too late."""
    alike, counted, fenced = Alike(moment), list[Happening](), list[Happening]()
    for happening in happenings:
        turn = turns.get(happening.request)
        if turn is None:
            fenced.append(happening)
            continue
        turn.after, said = alike.advance(turn.after, happening.event)
        turn.commands += said
        (fenced if Fence in map(type, said) else counted).append(happening)
    return counted, fenced


def _write_found(tx: Connection, counted: Sequence[Happening]) -> None:
    """What was found and gathered."""
    bulk.insert(tx, tables.finding, [h.finding for h in counted if h.finding], ignore="request_id, ordinal")
    bulk.insert(tx, tables.artifact, [h.artifact for h in counted if h.artifact])


def _ready(changes: Sequence[runs.Change]) -> Counter[str]:
    """System → how many steps are ready. Counted once for runs that went the same way: they share their steps."""
    alike = Counter(id(c.after.steps) for c in changes)
    steps = {id(c.after.steps): c.after.steps for c in changes}
    ready: Counter[str] = Counter()
    for key, n in alike.items():
        for step in steps[key]:
            if step.state is StepState.READY:
                ready[step.system] += n
    return ready


def _late(stored: Mapping[UUID, runs.Stored], fenced: Sequence[Happening]) -> Counter[str]:
    """System → how many results came too late."""
    return Counter(
        stored[h.request].run.steps[h.event.ordinal].system
        for h in fenced
        if h.request in stored
        and hasattr(h.event, "ordinal")
        and hasattr(h.event, "token")
        and h.event.ordinal < len(stored[h.request].run.steps)  # folded since
    )


def _left(following: Following, stored: Mapping[UUID, runs.Stored], chained: runs.Chained) -> runs.Remembered:
    """The runs as this transaction leaves them."""
    left: dict[UUID, runs.Stored] = {}
    for id_, run in following.runs.items():
        seq, head = chained.heads[id_]
        left[id_] = runs.Stored(stored[id_].header._replace(audit_seq=seq, audit_head=head), run)
    return runs.Remembered(following.by, left)


def _something_erased(run: Run) -> bool:
    settled = {Outcome.EXECUTED, Outcome.RETAINED, Outcome.RESIDUAL, Outcome.ACCEPTED}
    return any(s.action is Action.ERASE and s.result is not None and s.result.outcome in settled for s in run.steps)
