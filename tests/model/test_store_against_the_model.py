"""The real store and the pure core side by side: whatever is done to them, they say the same.

``HABEAS_TEST_EXAMPLES`` sets how many histories are tried (40 of them by default).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from orchestrator.core import events as ev
from orchestrator.core.model import Run
from orchestrator.core.vocabulary import StepState
from orchestrator.messages import inbound
from orchestrator.messages.envelope import Delivery
from orchestrator.store import claims, runs, trail
from tests.model.acts import LEASE, SECOND, Act, Batch, Claim, Cut, Meeting, Operated, Settled
from tests.model.comparison import EVERYTHING, QUERIES, TABLES, must
from tests.model.engine import ACCESS, ERASURE, NAMES, SYSTEMS
from tests.model.reference import PAST, Breaker, Reference, Said
from tests.model.words import asking, asks, saying, words
from tests.support.worlds import MakeWorld, World, delivery

EXAMPLES = int(os.environ.get("HABEAS_TEST_EXAMPLES", "40"))
STEPS = 40
REQUESTS = 6
"""The most in one history: enough for every meeting, few enough to compare them all after each act."""

Room = dict[str, int] | None
any_of = st.integers(0, 10_000)
"""Picks one of whatever there is."""
some_words = st.lists(words, min_size=4, max_size=4)
onwards = st.none() | st.dictionaries(st.sampled_from(["crm", "desk"]), st.integers(0, 3), min_size=1)
"""Where a worker goes on to: not to ``pay``, whose limits have more to ask."""


class StoreMachine(RuleBasedStateMachine):
    """Histories."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        world = self.world
        with world.runtime.database.transaction() as tx:
            tx.execute(text(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY CASCADE"))
        world.runtime.register_systems()
        self.reference = Reference(world.runtime.definitions.systems)
        self.asked: list[tuple[UUID, Delivery]] = []
        self.hands: list[Batch] = []
        """Batches that a worker has in hand."""
        self.stale: list[Batch] = []
        """Batches that were settled, or whose worker is believed dead."""
        self._before = self.began = self._clock()

    # In. -------------------------------------------------------------------------------------------------------------

    @initialize(
        first=st.lists(st.tuples(st.sampled_from(["erasure", "access"]), st.booleans()), min_size=2, max_size=4)
    )
    def begin(self, first: list[tuple[str, bool]]) -> None:
        for n, (right, verified) in enumerate(first):
            self.ask(right=right, verified=verified, early=n * 7 % 3)

    @precondition(lambda self: len(self.asked) < REQUESTS)
    @rule(right=st.sampled_from(["erasure", "erasure", "access"]), verified=st.booleans(), early=any_of)
    def ask(self, *, right: str, verified: bool, early: int) -> None:
        received = datetime.now(UTC) - timedelta(minutes=early)
        message = replace(delivery(right, f"p{len(self.asked)}@example.org", verified=verified), received_at=received)
        [request] = self.world.admit(message).accepted
        runtime = self.world.runtime
        wanted = inbound.receive(message, runtime.sources)
        planned = runtime.planner.plan(wanted)
        self.reference.admit(planned.run(request), planned.route.commands)
        self.asked.append((request, message))

    @rule(pick=any_of)
    def the_same_message_comes_again(self, pick: int) -> None:
        request, message = self._one(self.asked, pick)
        assert self.world.admit(message).repeated == [request]
        told = self.reference.chronicles[request].told
        told.append(told[-1])

    @rule(pick=any_of)
    def another_message_comes_under_the_same_id(self, pick: int) -> None:
        _, message = self._one(self.asked, pick)
        other = replace(message, body=message.body.replace(b"@example.org", b"@example.com"))
        assert len(self.world.admit(other).refused) == 1
        self.reference.conflicts += 1

    # Workers. --------------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), n=st.sampled_from([1, 1, 2, 4]), second=st.booleans())
    def claim(self, *, name: str, n: int, second: bool) -> None:
        act = Claim(name, n)
        self._do(act, second=second)
        self._keep(act)

    @precondition(lambda self: self.hands)
    @rule(pick=any_of, said=some_words, second=st.booleans(), part=st.booleans(), room=onwards)
    def settle(self, *, pick: int, said: list[str], second: bool, part: bool, room: Room) -> None:
        act = self._settling(pick, said, room, part=part)
        self._do(act, second=second)
        self.hands += act.following()

    @precondition(lambda self: self.hands)
    @rule(pick=any_of, room=onwards, meanwhile=st.none() | asks)
    def a_chain_of_quick_steps(self, *, pick: int, room: Room, meanwhile: str | None) -> None:
        """As a worker has it who is told nothing but good. Between two links an operator may do something."""
        first = self._take(pick)
        chain = [first]
        for batch in chain:
            self.hands.append(batch)
            if meanwhile is not None and batch is not first:
                its = [request for request, _ in self.asked].index(batch.claimed[0].request)
                self._do(self._operation(its, meanwhile), second=True)
            act = self._settling(len(self.hands) - 1, ["finish"] * 4, room)
            self._do(act)
            chain += act.following()

    @precondition(lambda self: self.stale)
    @rule(pick=any_of, said=some_words, room=onwards)
    def settle_too_late(self, pick: int, said: list[str], room: Room) -> None:
        batch = self._one(self.stale, pick)
        act = Settled(batch, self._said(batch, said), room)
        self._do(act)
        self.hands += act.following()  # of a crash that nobody noticed, all is as if it had not been

    @precondition(lambda self: self.hands)
    @rule(pick=any_of, said=some_words, room=onwards)
    def settle_and_never_hear_of_the_commit(self, pick: int, said: list[str], room: Room) -> None:
        act = self._settling(pick, said, room)
        self.world.runtime.database.silent_commits = 1  # type: ignore[attr-defined]
        act.run(self.world.runtime)
        assert act.advanced is not None
        assert len(act.advanced.fenced) == len(act.said)
        act.mirror(self.reference, self._before, set(), set())  # what the first attempt took, the second has
        self.reference.settle(act.system, act.said, self._before)  # sent again, and fenced
        self.hands += act.following()

    @precondition(lambda self: self.hands)
    @rule(pick=any_of, noticed=st.booleans())
    def crash(self, *, pick: int, noticed: bool) -> None:
        batch = self._take(pick)
        self._expire(batch)
        self.stale.append(batch)
        if noticed:
            self.sweep()
            self.claim(name=batch.system, n=3, second=True)

    @precondition(lambda self: self.hands)
    @rule(pick=any_of)
    def stall_past_the_lease(self, pick: int) -> None:
        self._expire(self._one(self.hands, pick))

    @precondition(lambda self: self.hands)
    @rule(pick=any_of)
    def beat(self, pick: int) -> None:
        token = self._one(self.hands, pick).claimed[0].token
        with self.world.runtime.database.transaction() as tx:
            extended = claims.extend(tx, [token], LEASE)
        assert extended == sum(s.token == token for _, s in self.reference.steps(StepState.RUNNING))
        self.reference.expired.discard(token)

    # Two at once. ----------------------------------------------------------------------------------------------------

    @rule(first=any_of, second=any_of, kinds=st.tuples(*[st.sampled_from(["claim", "settle", "operate"])] * 2),
          name=st.sampled_from(NAMES), said=some_words, what=asks, commits=st.booleans(), room=onwards)  # fmt: skip
    def two_at_once(
        self, *, first: int, second: int, kinds: tuple[str, str], name: str, said: list[str], what: str, commits: bool,
        room: Room,
    ) -> None:  # fmt: skip
        picks = zip(kinds, (first, second), strict=True)
        acts = [
            self._settling(n, said, room) if kind == "settle" and self.hands else self._act(kind, n, name, what)
            for kind, n in picks
        ]
        half_open = any(s.breaker is Breaker.HALF_OPEN for s in self.reference.systems.values())
        if half_open and any(isinstance(a, Claim) for a in acts):
            return  # one probe, whoever comes first: told of in the tests of the claim
        meeting = Meeting(acts[0], acts[1], commits)
        world = self.world
        meeting.run(world.runtime, world.runtime.database, self.second, self.third)  # type: ignore[arg-type]
        meeting.mirror(self.reference, self._before)
        for n, act in enumerate(acts):
            if isinstance(act, Claim) and (n or commits):
                self._keep(act)
            if isinstance(act, Settled) and (n or meeting.commits):
                self.hands += act.following()

    # Time. -----------------------------------------------------------------------------------------------------------

    @rule()
    def sweep(self) -> None:
        advanced = self.world.tick()
        self.reference.wake(self._before)
        self.reference.take_back(self._before)
        assert self.reference.rung() <= advanced.rings.keys(), "what is ready is rung for"

    @precondition(lambda self: self.reference.steps(StepState.PARKED))
    @rule(pick=any_of, noticed=st.booleans())
    def a_time_comes(self, *, pick: int, noticed: bool) -> None:
        request, step = self._one(self.reference.steps(StepState.PARKED), pick)
        values = {"due": PAST, "id": request, "n": step.ordinal}
        self.world.rows("UPDATE step SET due = :due WHERE request_id = :id AND ordinal = :n", **values)
        self.reference.put(self.reference.runs[request], replace(step, due=PAST))
        if noticed:
            self.sweep()

    @precondition(lambda self: any(s.breaker is Breaker.OPEN for s in self.reference.systems.values()))
    @rule()
    def open_breakers_have_rested(self) -> None:
        self.world.rows("UPDATE connector_state SET breaker_until = :past WHERE breaker_until IS NOT NULL", past=PAST)
        for state in self.reference.systems.values():
            state.breaker = Breaker.HALF_OPEN if state.breaker is Breaker.OPEN else state.breaker

    # Operators. ------------------------------------------------------------------------------------------------------

    @rule(pick=any_of, what=asks, second=st.booleans())
    def operate(self, *, pick: int, what: str, second: bool) -> None:
        self._do(self._operation(pick, what), second=second)

    @rule(name=st.sampled_from(["crm", "pay"]), skip=st.booleans())
    def operate_on_all_that_want_attention(self, *, name: str, skip: bool) -> None:
        operate = self.world.runtime.operate
        if skip:
            operate.skip_all(name, "ops", "gone")
        else:
            operate.retry_all(name, "ops")
        for request, step in self.reference.steps(StepState.ATTENTION):
            if step.system == name:
                event = ev.SkipAsked(step.ordinal, "ops", "gone") if skip else ev.RetryAsked(step.ordinal, "ops")
                self.reference.happen(request, event, self._before)

    @rule(name=st.sampled_from(NAMES))
    def pause_or_resume_a_system(self, name: str) -> None:
        state, operate = self.reference.systems[name], self.world.runtime.operate
        if state.paused:
            operate.resume_system(name)
            state.paused, state.failures, state.breaker = False, 0, Breaker.CLOSED
        else:
            operate.pause_system(name, "ops", "maintenance")
            state.paused = True

    # After each. -----------------------------------------------------------------------------------------------------

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        reference = self.reference
        with self.world.runtime.database.transaction() as tx:
            moment = runs.now(tx)
            stored = {id_: s.run for id_, s in runs.lock(tx, reference.runs).stored.items()}
            reference.take_times(stored, (moment - self._before).total_seconds())
            assert stored == reference.runs
            found = tx.execute(EVERYTHING).scalar_one()
        for name in QUERIES:
            assert sorted(found[name] or []) == must(name, self.reference), name
        self._before = moment

    def teardown(self) -> None:
        with self.world.runtime.database.transaction() as tx:
            assert [v for v in trail.verify(tx) if v.fault] == []

    @invariant()
    def no_step_is_in_two_hands(self) -> None:
        tokens = [s.token for _, s in self.reference.steps(StepState.RUNNING)]
        assert None not in tokens
        held = [(c.request, c.step.ordinal, c.token) for b in self.hands + self.stale for c in b.claimed]
        running = {(id_, s.ordinal): s.token for id_, s in self.reference.steps(StepState.RUNNING)}
        assert all(sum(t == token for *k, t in held if tuple(k) == key) <= 1 for key, token in running.items())

    # Small parts. ----------------------------------------------------------------------------------------------------

    @property
    def second(self) -> Any:
        return self.world.second  # type: ignore[attr-defined]

    @property
    def third(self) -> Any:
        return self.world.third  # type: ignore[attr-defined]

    def _clock(self) -> datetime:
        with self.world.runtime.database.transaction() as tx:
            return runs.now(tx)

    def _do(self, act: Act, *, second: bool = False) -> None:
        act.run(self.second if second else self.world.runtime)
        act.mirror(self.reference, self._before, set(), set())

    @staticmethod
    def _one(things: Any, pick: int) -> Any:
        return things[pick % len(things)]

    def _take(self, pick: int) -> Batch:
        batch: Batch = self.hands.pop(pick % len(self.hands))
        return batch

    def _keep(self, act: Claim) -> None:
        if act.taken:
            self.hands.append(Batch(act.system, tuple(act.taken), act.known))

    def _expire(self, batch: Batch) -> None:
        token = batch.claimed[0].token
        self.world.rows("UPDATE step SET lease_until = :past WHERE token = :token", past=PAST, token=token)
        self.reference.expired.add(token)

    def _act(self, kind: str, pick: int, name: str, what: str) -> Act:
        return Claim(name, pick % 4 + 1) if kind == "claim" else self._operation(pick, what)

    def _settling(self, pick: int, said: list[str], room: Room, *, part: bool = False) -> Settled:
        """What the worker says of a batch, or of a part of it; the rest it keeps in hand."""
        batch = self._take(pick)
        now, rest = (batch.claimed[:1], batch.claimed[1:]) if part else (batch.claimed, ())
        spoken = replace(batch, claimed=now)
        self.stale.append(spoken)
        if rest:
            self.hands.append(replace(batch, claimed=rest))
        return Settled(spoken, self._said(spoken, said), room)

    def _said(self, batch: Batch, said: list[str]) -> list[Said]:
        policy = self.reference.configured[batch.system].retry
        return [saying(c, word, policy, self.began) for c, word in zip(batch.claimed, said, strict=False)]

    def _operation(self, pick: int, what: str) -> Operated:
        request = self._one(self.asked, pick)[0]
        run: Run = self.reference.runs[request]
        return Operated(request, asking(run, pick // REQUESTS % len(run.steps), what))


@pytest.fixture
def machine(make_world: MakeWorld) -> Iterator[type[StoreMachine]]:
    world = make_world(*SYSTEMS, workflows=[ERASURE, ACCESS])
    url = world.settings.database_url.get_secret_value()
    world.runtime.__dict__["database"] = Cut(url, name="habeas first")
    second, third = world.another(), Cut(url, name="habeas third")
    second.__dict__["database"] = Cut(url, name=SECOND)
    world.second, world.third = second, third  # type: ignore[attr-defined]
    told = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield type("Histories", (StoreMachine,), {"world": world})
    structlog.configure(**told)
    second.close()
    third.close()


def test_the_store_does_what_the_pure_core_does(machine: type[StoreMachine]) -> None:
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        database=None,
    )
    run_state_machine_as_test(machine, settings=how)
