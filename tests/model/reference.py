"""What the store must do, said without a database: the pure core on a dictionary, and the rules of a claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from operator import itemgetter
from uuid import UUID

from orchestrator.core import events as ev
from orchestrator.core import machine
from orchestrator.core.commands import Announce, Command, Fence, Record, Ring
from orchestrator.core.model import Run, Step, System
from orchestrator.core.transitions import Move, move
from orchestrator.core.vocabulary import Action, Failure, Outcome, ParkedFor, Right, StepState

Key = tuple[UUID, int]
"""A step: its request and its ordinal."""

PAST = datetime(2000, 1, 1, tzinfo=UTC)
"""The due time of a parked step whose time has come."""
_SYSTEM_FAILED = {Failure.RETRYABLE, Failure.RATE_LIMITED, Failure.UNAUTHORISED}
_ERASED = {Outcome.EXECUTED, Outcome.RETAINED, Outcome.RESIDUAL, Outcome.ACCEPTED}


class Breaker(StrEnum):
    """A circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass
class State:
    """What all workers share about one system."""

    paused: bool = False
    failures: int = 0
    breaker: Breaker = Breaker.CLOSED
    fenced: int = 0


@dataclass
class Chronicle:
    """What has been written down about one request."""

    records: list[tuple[str, int | None]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    findings: set[int] = field(default_factory=set)
    artifacts: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Said:
    """A happening as a test composes it: what a worker says of one step."""

    request: UUID
    event: ev.WorkerEvent
    finding: bool = False
    artifact: bool = False


@dataclass(frozen=True)
class View:
    """The engine's state as one session saw it."""

    runs: Mapping[UUID, Run]
    systems: Mapping[str, State]

    def ready(self, system: str) -> list[tuple[datetime, Step]]:
        """What is ready there, in order of claiming: the place, and the step."""
        ready = [(r.deadline, s) for r in self.runs.values() for s in r.steps if s.state is StepState.READY]
        return sorted(((at, s) for at, s in ready if s.system == system), key=itemgetter(0))

    def takes(self, system: str, deadline: datetime) -> bool:
        """Whether a claim on the system could take a step of this deadline, and nobody stands before."""
        state, ready = self.systems[system], self.ready(system)
        if state.paused or state.breaker is not Breaker.CLOSED or any(s.crashes for _, s in ready):
            return False
        return not ready or deadline <= ready[0][0]


class Reference:
    """The engine's state."""

    def __init__(self, systems: Mapping[str, System]) -> None:
        self.configured = systems
        self.runs: dict[UUID, Run] = {}
        self.chronicles: dict[UUID, Chronicle] = {}
        self.systems = {name: State() for name in systems}
        self.conflicts = 0
        """Messages refused because their id was used before for something else."""
        self.expired: set[UUID] = set()
        """Tokens whose lease has run out."""

    # Looking. --------------------------------------------------------------------------------------------------------

    def steps(self, *states: StepState) -> list[tuple[UUID, Step]]:
        """The steps in these states."""
        return [(id_, s) for id_, run in self.runs.items() for s in run.steps if s.state in states]

    def erased(self) -> set[UUID]:
        """The closed erasures by which something was erased."""
        return {
            id_
            for id_, run in self.runs.items()
            if run.right is Right.ERASURE
            and not run.open
            and any(s.action is Action.ERASE and s.result and s.result.outcome in _ERASED for s in run.steps)
        }

    def tally(self) -> Counter[tuple[str, str]]:
        """Requests as they came and went."""
        closed = Counter((str(r.right), str(r.resolution)) for r in self.runs.values() if not r.open)
        return closed + Counter((str(r.right), "admitted") for r in self.runs.values())

    # What can happen. ------------------------------------------------------------------------------------------------

    def admit(self, run: Run, commands: Sequence[Command]) -> None:
        """A request that was planned and begun."""
        self.chronicles[run.request] = Chronicle()
        self._note(run, commands)

    def happen(self, request: UUID, event: ev.Event, now: datetime) -> tuple[Command, ...]:
        """An event of a run. Raises ``Impossible``."""
        run, commands = machine.advance(self.runs[request], event, now)
        self._note(run, commands)
        return commands

    def settle(self, system: str, said: Sequence[Said], now: datetime) -> set[str]:
        """What a worker says of its steps; which systems are to be rung for. Late words count for nothing."""
        counted: list[ev.WorkerEvent] = []
        rings: set[str] = set()
        for one in said:
            commands = self.happen(one.request, one.event, now)
            if any(isinstance(c, Fence) for c in commands):
                self._fenced(one.request, one.event.ordinal)
                continue
            counted.append(one.event)
            rings |= {c.system for c in commands if isinstance(c, Ring)}
            chronicle = self.chronicles[one.request]
            chronicle.findings |= {one.event.ordinal} if one.finding else set()
            chronicle.artifacts |= {one.event.ordinal} if one.artifact else set()
        self._judge(system, [e for e in counted if not isinstance(e, ev.HandedBack)])
        return rings

    def view(self) -> View:
        """What a session sees that begins now."""
        return View(dict(self.runs), {name: replace(state) for name, state in self.systems.items()})

    def following(self, view: View, asked: Collection[UUID], room: Mapping[str, int]) -> list[Key]:
        """What a settle of these requests takes that is ready by it; it saw the rest as it was in ``view``."""
        left, keys = Counter(room), []
        for request in sorted(asked, key=lambda id_: (self.runs[id_].deadline, id_)):
            for old, step in zip(view.runs[request].steps, self.runs[request].steps, strict=True):
                if step.system not in room or step.state is not StepState.READY:
                    continue
                if old.state is not StepState.WAITING:
                    return []  # for a claim, which has more people to a call by it
                if view.takes(step.system, self.runs[request].deadline) and left[step.system] > 0:
                    left[step.system] -= 1
                    keys.append((request, step.ordinal))
        return keys

    def take(self, keys: Iterable[Key], tokens: Mapping[str, UUID]) -> dict[Key, Step]:
        """A settle takes these."""
        return {(request, ordinal): self._begin(request, ordinal, tokens) for request, ordinal in keys}

    def claim(self, system: str, n: int, token: UUID, held: Collection[Key] = ()) -> dict[Key, Step]:
        """The steps that a claim must take; ``held``: those that somebody else is just working on."""
        room = self._room(system, n)
        ready = sorted(
            (self.runs[id_].deadline, id_, s.ordinal)
            for id_, s in self.steps(StepState.READY)
            if s.system == system and (id_, s.ordinal) not in held
        )
        keys = [(id_, ordinal) for _, id_, ordinal in ready]
        lost = [k for k in keys if self.runs[k[0]].steps[k[1]].crashes > 0]
        taken: dict[Key, Step] = {}
        for request, ordinal in (lost[:1] or keys[:room]) if room else []:
            taken[request, ordinal] = self._begin(request, ordinal, {system: token})
        return taken

    def wake(self, now: datetime, held: Collection[UUID] = ()) -> set[str]:
        """Parked steps whose time has come; which systems have work by that."""
        woken: set[str] = set()
        for request, step in self.steps(StepState.PARKED):
            if step.due <= now and request not in held:
                self.happen(request, ev.Woken(step.ordinal), now)
                woken |= {step.system} - ({step.system} if self.runs[request].paused else set())
        return woken

    def take_back(self, now: datetime) -> None:
        """Steps whose lease ran out."""
        for request, step in self.steps(StepState.RUNNING):
            if step.token in self.expired:
                assert step.token is not None
                policy = self.configured[step.system].retry
                self.happen(request, ev.LeaseExpired(step.ordinal, step.token, policy), now)

    def rung(self) -> set[str]:
        """The systems that the sweep must ring for."""
        able = {name for name, s in self.systems.items() if not s.paused and s.breaker is not Breaker.OPEN}
        return able & {s.system for _, s in self.steps(StepState.READY)}

    def put(self, run: Run, step: Step) -> None:
        """Replace one step."""
        steps = tuple(step if s.ordinal == step.ordinal else s for s in run.steps)
        self.runs[run.request] = replace(run, steps=steps)

    def take_times(self, stored: Mapping[UUID, Run], slack: float) -> None:
        """Take over from the store when a back-off ends: its clock is the one that counts. ``slack``: seconds."""
        for request, run in stored.items():
            for step in run.steps:
                mine = self.runs[request].steps[step.ordinal]
                if mine.parked_for is ParkedFor.RETRY and mine.due not in {PAST, step.due}:
                    assert 0 <= (step.due - mine.due).total_seconds() <= slack, (mine.due, step.due)
                    self.put(self.runs[request], replace(mine, due=step.due))

    # Small parts. ----------------------------------------------------------------------------------------------------

    def _note(self, run: Run, commands: Sequence[Command]) -> None:
        self.runs[run.request] = run
        chronicle = self.chronicles[run.request]
        chronicle.records += [(c.what, c.ordinal) for c in commands if isinstance(c, Record)]
        chronicle.told += [str(c.kind) for c in commands if isinstance(c, Announce)]

    def _begin(self, request: UUID, ordinal: int, tokens: Mapping[str, UUID]) -> Step:
        run = self.runs[request]
        step = run.steps[ordinal]
        step = move(step, Move.CLAIM, token=tokens[step.system], attempt=step.attempt + 1)
        self.put(run, step)
        return step

    def _fenced(self, request: UUID, ordinal: int) -> None:
        self.systems[self.runs[request].steps[ordinal].system].fenced += 1

    def _room(self, system: str, n: int) -> int:
        state, limits = self.systems[system], self.configured[system].limits
        running = {s.token for _, s in self.steps(StepState.RUNNING) if s.system == system}
        if state.paused or state.breaker is Breaker.OPEN:
            return 0
        if state.breaker is Breaker.HALF_OPEN:
            if not any(s.system == system for _, s in self.steps(StepState.READY)):
                return 0
            state.breaker = Breaker.OPEN
            return 1
        if limits.concurrency is not None and len(running) >= limits.concurrency:
            return 0
        return min(n, limits.batch)

    def _judge(self, system: str, events: Sequence[ev.WorkerEvent]) -> None:
        """What the breaker makes of it."""
        state = self.systems[system]
        failed = sum(isinstance(e, ev.Failed) and e.failure in _SYSTEM_FAILED for e in events)
        if failed < len(events):
            state.failures, state.breaker = 0, Breaker.CLOSED
        elif failed:
            state.failures += failed
            if state.failures >= self.configured[system].limits.breaker_failures:
                state.breaker = Breaker.OPEN
