"""The engine in virtual time: the real planner and the real machine over a small, faithful model of the store.

What the model keeps of the store: a claim is one atomic statement (ready steps of one system, oldest first, a lost one
alone); every other event loads the run, advances it and writes it back; a settle may go on to what it makes ready, in
the same transaction; wakes are done by the sweep's statement, which leaves the steps of a paused request parked;
doorbells are lost or doubled at will; workers die between any two steps.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from orchestrator.core import events as ev
from orchestrator.core import machine
from orchestrator.core.commands import Announce, Command, Fence, Ring
from orchestrator.core.model import NEVER, Ask, Clock, Result, RetryPolicy, Run, Step, StepTemplate, System, Workflow
from orchestrator.core.planner import CyclicOrder, NothingToDo, plan
from orchestrator.core.transitions import Impossible, Move, move
from orchestrator.core.vocabulary import Action, EventKind, Failure, Outcome, ParkedFor, Right, StepState
from orchestrator.stages.onward import Following, Onward
from tests.support.going_on import go_on
from tests.support.going_on import onward as going_on

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)
SWEEP = timedelta(seconds=1)
CHAOS_ENDS = timedelta(minutes=20)
"""After this much virtual time nothing fails any more: then everything must come to rest."""
HORIZON = timedelta(days=40)
S = StepState

POLICY = RetryPolicy(attempts=4, base=timedelta(seconds=1), cap=timedelta(seconds=20), crashes=3)
KINDS = ("email", "user_id", "device_id")
WORK = (Action.ACCESS, Action.RECTIFY, Action.ERASE, Action.RESTRICT, Action.SUPPRESS)


@dataclass(slots=True)
class Batch:
    """What one worker has claimed."""

    token: UUID
    system: str
    steps: list[tuple[UUID, Step]]


@dataclass(slots=True)
class Simulation:
    """One seeded schedule."""

    random: Random
    systems: dict[str, System] = field(default_factory=dict)
    runs: dict[UUID, Run] = field(default_factory=dict)
    leases: dict[tuple[UUID, int], datetime] = field(default_factory=dict)
    now: datetime = START
    skew: timedelta = timedelta()
    agenda: list[tuple[datetime, int, Callable[[], None]]] = field(default_factory=list)
    counter: int = 0
    completed: Counter[UUID] = field(default_factory=Counter)
    settled: Counter[tuple[UUID, int]] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    handled: int = 0
    calm: bool = False
    """People have come to help: nothing fails any more."""
    muted: frozenset[int] = frozenset()
    """Numbers of misfortunes that do not happen, though they were drawn: how a broken schedule is shrunk."""
    struck: int = 0
    """Misfortunes drawn so far."""

    # The agenda. ------------------------------------------------------------------------------------------------------

    def after(self, wait: timedelta, act: Callable[[], None]) -> None:
        """Do something later."""
        self.counter += 1
        heapq.heappush(self.agenda, (self.now + wait, self.counter, act))

    def chance(self, share: float) -> bool:
        """Whether misfortune strikes; never once the chaos has ended."""
        return not self.calm and self.now - START < CHAOS_ENDS and self.random.random() < share and self.misfortune()

    def misfortune(self) -> bool:
        """Number one more misfortune; whether it happens."""
        self.struck += 1
        return self.struck not in self.muted

    def seconds(self, low: float, high: float) -> timedelta:
        """A random time."""
        return timedelta(seconds=self.random.uniform(low, high))

    def id(self) -> UUID:
        """A random id."""
        return UUID(int=self.random.getrandbits(128))

    # The world. -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Random systems, a random workflow, some requests, and the clock that sweeps."""
        for name in self.random.sample("abcdefg", self.random.randint(1, 4)):
            able = frozenset(a for a in (*WORK, Action.DISCOVER, Action.VERIFY) if self.random.random() < 0.85)
            self.systems[name] = System(
                name,
                "simulated",
                able,
                frozenset({"user"}),
                frozenset(self.random.sample(KINDS, self.random.randint(1, 2))),
                frozenset(k for k in KINDS if self.random.random() < 0.3),
                frozenset(o for o in self.systems if self.random.random() < 0.3),
                retry=POLICY,
            )
        flow = a_random_workflow(self.random, sorted(self.systems))
        for _ in range(self.random.randint(1, 4)):
            self.after(self.seconds(0, 30), lambda: self.admit(flow))
        for _ in range(self.random.randint(0, 5)):
            self.after(self.seconds(0, 600), self.interfere)
        if self.random.random() < 0.3:
            self.after(self.seconds(0, 300), self.jump)
        self.after(SWEEP, self.sweep)

    def admit(self, flow: Workflow) -> None:
        """A request comes in."""
        known = frozenset(self.random.sample(KINDS, self.random.randint(1, 3)))
        ask = Ask(flow.right, "gdpr", "s", self.now, known, verified=self.random.random() < 0.5)
        try:
            planned = plan(ask, flow, self.systems, Clock("gdpr", months=1))
        except (NothingToDo, CyclicOrder):
            return
        request = self.id()
        run, commands = machine.begin(Run(request, flow.right, planned.steps, planned.deadline))
        self.write(None, run, commands, "admitted")

    def jump(self) -> None:
        """The database's clock is set, forwards or backwards."""
        self.skew = self.seconds(-120, 120)

    @property
    def clock(self) -> datetime:
        """The database's clock."""
        return self.now + self.skew

    # The store. -------------------------------------------------------------------------------------------------------

    def apply(self, request: UUID, event: ev.Event, onward: Onward | None = None) -> Following | None:
        """Load, advance, write back: one transaction. With ``onward`` it may take what it makes ready."""
        before = self.runs[request]
        run, commands = machine.advance(before, event, self.clock)
        fenced = any(isinstance(c, Fence) for c in commands)
        token = getattr(event, "token", None)
        if token is not None:
            step = before.steps[event.ordinal]  # type: ignore[union-attr]
            in_force = step.state is S.RUNNING and step.token == token
            assert fenced != in_force, "an event counts exactly under the lease that is in force"
        if fenced:
            assert run == before, "a fenced event changes nothing"
        after = {request: run}
        following = go_on(before, after, onward, self.runs.values()) if onward else None
        if isinstance(event, ev.OWN_STEP):
            was_ready = ((b, a) for b, a in zip(before.steps, after[request].steps, strict=True) if b.state is S.READY)
            assert all(a == b for b, a in was_ready), "what is ready is left to the claims"
        self.write(before, after[request], commands, "GoneOn" if following else type(event).__name__)
        for claimed in following.taken.values() if following else ():
            self.leases.update({(request, c.step.ordinal): self.clock + LEASE for c in claimed})
        return following

    def write(self, before: Run | None, run: Run, commands: tuple[Command, ...], what: str) -> None:
        """Commit, check, and ring."""
        self.runs[run.request] = run
        self.trace.append(f"{(self.now - START).total_seconds():.3f} {what} {[str(s.state) for s in run.steps]}")
        done = {s.ordinal for s in run.steps if s.state is S.DONE}
        for old, new in zip(before.steps if before else run.steps, run.steps, strict=True):
            if new.state is S.DONE and (before is None or old.state is not S.DONE):
                self.settled[run.request, new.ordinal] += 1
            if new.state in {S.READY, S.RUNNING}:
                assert new.needs <= done, "no step starts before its needs are settled"
            begins = new.state is S.RUNNING and old.state is not S.RUNNING
            assert not begins or new.attempt == old.attempt + 1, "each beginning is counted"
            begins = begins or new.state is S.READY
            assert not begins or not (run.stopping or run.paused), "nothing begins that was stopped"
            assert before is None or old.state is not S.DONE or new == old, "an outcome is settled once"
        self.completed[run.request] += sum(isinstance(c, Announce) and c.kind is EventKind.COMPLETED for c in commands)
        assert self.completed[run.request] == int(not run.open), "one COMPLETED, when it closes"
        for command in commands:
            if isinstance(command, Ring):
                self.ring(command.system)

    def ring(self, system: str) -> None:
        """A doorbell: lost, doubled, or late."""
        if self.chance(0.3):
            return
        for _ in range(2 if self.chance(0.2) else 1):
            self.after(self.seconds(0, 2), lambda: self.work(system))

    def sweep(self) -> None:
        """Wake what is due, take back what was lost, ring for what is ready."""
        for run in [r for r in self.runs.values() if r.open]:
            due = [s for s in run.steps if s.state is S.PARKED and s.due <= self.clock]
            for step in due:
                woken = move(step, Move.WAKE)
                if run.paused:
                    woken = replace(step, parked_for=ParkedFor.PAUSE, due=NEVER, waiting_on="")
                current = self.runs[run.request]
                self.write(current, machine._with(current, woken), (), "woken")
            for step in run.steps:
                if step.token is not None and self.leases[run.request, step.ordinal] < self.clock:
                    self.apply(run.request, ev.LeaseExpired(step.ordinal, step.token, POLICY))
        # Sorted: a set's order changes from process to process, and a seed must play the same everywhere.
        for name in sorted({s.system for r in self.runs.values() for s in r.steps if s.state is S.READY}):
            self.ring(name)
        busy = any(r.open for r in self.runs.values()) or self.agenda
        if busy and self.now - START < HORIZON:
            self.after(self.pace(), self.sweep)

    def pace(self) -> timedelta:
        """The sweep's rhythm; through waits in which nothing is ready, virtual time goes faster."""
        steps = [(r.request, s) for r in self.runs.values() if r.open for s in r.steps]
        if any(s.state is S.READY for _, s in steps):
            return SWEEP
        waits = [s.due - self.clock for _, s in steps if s.state is S.PARKED]
        waits += [self.leases[request, s.ordinal] - self.clock for request, s in steps if s.token]
        return max(SWEEP, min([*waits, 5 * SWEEP if self.agenda else 60 * SWEEP]))

    # Workers. ---------------------------------------------------------------------------------------------------------

    def work(self, system: str) -> None:
        """Claim a batch, and work on it."""
        batch = self.claim(system)
        if batch is not None:
            self.carry_out(batch)

    def carry_out(self, batch: Batch) -> None:
        """Settle it after a while, unless the worker dies first."""
        if self.chance(0.1):  # died right after the claim
            return
        slow = self.chance(0.15)
        self.after(self.seconds(12, 60) if slow else self.seconds(0, 3), lambda: self.settle(batch))

    def claim(self, system: str) -> Batch | None:
        ready = [(r.deadline, r.request, s) for r in self.runs.values() for s in r.steps if s.state is S.READY]
        ready = sorted((x for x in ready if x[2].system == system), key=lambda x: (x[0], x[1], x[2].ordinal))
        lost = [x for x in ready if x[2].crashes]
        taken = lost[:1] or ready[: self.random.randint(1, 4)]
        if not taken:
            return None
        token = self.id()
        for _, request, step in taken:
            assert not self.runs[request].paused, "nothing of a paused request begins"
            claimed = move(step, Move.CLAIM, token=token, attempt=step.attempt + 1)
            self.leases[request, step.ordinal] = self.clock + LEASE
            self.write(self.runs[request], machine._with(self.runs[request], claimed), (), "claimed")
        return Batch(token, system, [(request, step) for _, request, step in taken])

    def settle(self, batch: Batch) -> None:
        """Report one step after the other: a worker may die in between, and may report twice."""
        for request, step in batch.steps:
            if self.chance(0.05):
                return
            event = self.answer(step, batch.token)
            served = {name: self.id() for name in sorted({*self.systems, step.system}) if self.random.random() < 0.5}
            onward = going_on(self.runs[request], served, self.random.randint(1, 4), LEASE)
            following = self.apply(request, event, onward)
            if self.chance(0.1):  # of whose commit nobody heard
                following = self.apply(request, event, onward)
            for system, taken in following.taken.items() if following else ():
                self.carry_out(Batch(onward.tokens[system], system, [(c.request, c.step) for c in taken]))

    def answer(self, step: Step, token: UUID) -> ev.WorkerEvent:
        """What the system says."""
        if self.chance(0.25):
            failure = self.random.choice(list(Failure))
            return ev.Failed(step.ordinal, token, failure, "x", POLICY, self.random.random())
        if self.chance(0.1):
            return ev.HandedBack(step.ordinal, token)
        if step.action is Action.GATE and self.chance(0.15):
            return ev.GateDeclined(step.ordinal, token, "other", expired=self.random.random() < 0.5)
        if self.chance(0.3) or (step.action is Action.GATE and step.handle is None):
            forever = self.chance(0.2)
            until = NEVER if forever else self.clock + self.seconds(1, 300)
            return ev.Parked(step.ordinal, token, {"job": 1}, until, "somebody")
        outcome = self.random.choice([o for o in Outcome if o is not Outcome.SKIPPED])
        return ev.Finished(step.ordinal, token, Result(outcome))

    # Operators. -------------------------------------------------------------------------------------------------------

    def interfere(self) -> None:
        """An operator does something to some request, fitting or not."""
        if not self.runs or not self.misfortune():
            return
        run = self.random.choice(list(self.runs.values()))
        if not run.steps:
            return
        ordinal = self.random.randrange(len(run.steps))
        asked: list[ev.Event] = [
            ev.RetryAsked(ordinal, "ops"),
            ev.SkipAsked(ordinal, "ops", "why"),
            ev.DoneAsked(ordinal, "ops", "how"),
            ev.Reported(ordinal, {"decision": "done"}),
            ev.CancelAsked("ops", "why"),
            ev.PauseAsked("ops", "why"),
        ]
        event = self.random.choice(asked)
        try:
            self.apply(run.request, event)
        except Impossible:
            assert self.runs[run.request] == run, "a refusal changes nothing"
        if isinstance(event, ev.PauseAsked):
            self.after(self.seconds(1, 900), lambda: self.resume(run.request))

    def resume(self, request: UUID) -> None:
        """The pause ends."""
        if self.runs[request].open:
            self.apply(request, ev.ResumeAsked("ops"))

    def help_out(self) -> None:
        """Once all is quiet an operator answers whatever waits for people: no request may wait for anything else."""
        self.calm = True
        for run in list(self.runs.values()):
            for step in run.steps:
                named = step.state is S.ATTENTION or (step.state is S.PARKED and step.waiting_on and step.due >= NEVER)
                if named and self.runs[run.request].open:
                    event = ev.RetryAsked(step.ordinal, "ops")
                    if step.state is S.PARKED:
                        self.apply(run.request, ev.Reported(step.ordinal, {"decision": "done"}))
                    else:
                        self.apply(run.request, event)

    # All of it. -------------------------------------------------------------------------------------------------------

    def play(self, most: int = 20_000) -> None:
        """To the end. Raises ``AssertionError`` when an invariant breaks."""
        self.begin()
        for _ in range(10):
            self.drain(most)
            for run in self.runs.values():
                for step in run.steps:
                    self.names_what_it_waits_for(run, step)
            if not any(r.open for r in self.runs.values()):
                break
            self.help_out()
            self.after(SWEEP, self.sweep)
        assert not [r for r in self.runs.values() if r.open], "every request closes"
        steps = {(r.request, s.ordinal) for r in self.runs.values() for s in r.steps}
        assert set(self.settled) == steps
        assert set(self.settled.values()) <= {1}, "one settled outcome for each step"

    def drain(self, most: int) -> None:
        while self.agenda:
            self.handled += 1
            assert self.handled < most, "no livelock"
            if self.quiet():
                self.agenda.clear()
                return
            moment, _, act = heapq.heappop(self.agenda)
            self.now = max(self.now, moment)
            act()

    def quiet(self) -> bool:
        """Whether nothing will happen any more but by people's hands."""
        if len(self.agenda) > 1 or self.now - START <= timedelta(seconds=31):
            return False
        return not any(
            s.state in {S.READY, S.RUNNING} or (s.state is S.PARKED and s.due < NEVER)
            for r in self.runs.values()
            for s in r.steps
        )

    @staticmethod
    def names_what_it_waits_for(run: Run, step: Step) -> None:
        """At rest each step that is not done waits for something that has a name."""
        if step.state is S.DONE:
            return
        if step.state is S.WAITING:
            assert any(run.steps[n].state is not S.DONE for n in step.needs), "waits for nothing"
            return
        assert step.state is S.ATTENTION or (step.state is S.PARKED and (step.waiting_on or run.paused)), step.state
        assert step.state is not S.ATTENTION or step.error, "attention says why"


def a_random_workflow(random: Random, systems: list[str]) -> Workflow:
    """Some entries that may need those before them."""
    entries: list[StepTemplate] = []
    for n in range(random.randint(1, 6)):
        action = random.choice([*WORK, Action.DISCOVER, Action.VERIFY, Action.GATE, Action.ERASE])
        before = [e.id for e in entries]
        some = tuple(sorted(random.sample(systems, random.randint(1, len(systems)))))
        entries.append(
            StepTemplate(
                f"e{n}",
                action,
                None if action is Action.GATE or random.random() < 0.7 else some,
                tuple(b for b in before if random.random() < 0.35),
                tuple(b for b in before if random.random() < 0.25),
                unless_verified=action is Action.GATE and random.random() < 0.5,
            )
        )
    return Workflow("w", 1, Right.ERASURE, tuple(entries))
