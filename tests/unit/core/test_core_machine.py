"""The state machine: every event in every state, and the laws it opens with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import events as ev
from orchestrator.core import machine
from orchestrator.core.alike import Alike
from orchestrator.core.commands import Announce, Command, Fence, Record, Ring
from orchestrator.core.model import Result, RetryPolicy, Run, Step
from orchestrator.core.transitions import TRANSITIONS, Impossible, Move, move
from orchestrator.core.vocabulary import Action, EventKind, Failure, Outcome, ParkedFor, Resolution, StepState
from tests.support.runs import NOW, a_run, a_step, claimed, finish

TOKEN, OTHER = UUID(int=7), UUID(int=8)
DONE = Result(Outcome.EXECUTED)
S = StepState


def in_state(state: StepState, parked_for: ParkedFor = ParkedFor.REPORT) -> Run:
    """A run of one step in a state, beside one that waits for ever."""
    step = a_step(state=state)
    if state is S.RUNNING:
        step = replace(step, token=TOKEN)
    if state is S.PARKED:
        step = replace(step, parked_for=parked_for, due=NOW)
    if state is S.DONE:
        step = replace(step, result=DONE)
    blocker = a_step(1, system="other", state=S.PARKED, parked_for=ParkedFor.REPORT)
    return Run(UUID(int=1), a_run(a_step()).right, (step, blocker), NOW, paused=parked_for is ParkedFor.PAUSE)


EVENTS: dict[str, tuple[ev.Event, dict[StepState, StepState]]] = {
    "finished": (ev.Finished(0, TOKEN, DONE), {S.RUNNING: S.DONE}),
    "parked": (ev.Parked(0, TOKEN, {"job": 1}, NOW + timedelta(days=1), "them"), {S.RUNNING: S.PARKED}),
    "failed": (ev.Failed(0, TOKEN, Failure.RETRYABLE, "x"), {S.RUNNING: S.PARKED}),
    "failed for good": (ev.Failed(0, TOKEN, Failure.FATAL, "x"), {S.RUNNING: S.ATTENTION}),
    "declined": (ev.GateDeclined(0, TOKEN, "other"), {S.RUNNING: S.DONE}),
    "handed back": (ev.HandedBack(0, TOKEN), {S.RUNNING: S.READY}),
    "lease expired": (ev.LeaseExpired(0, TOKEN), {S.RUNNING: S.READY}),
    "woken": (ev.Woken(0), {S.PARKED: S.READY}),
    "reported": (ev.Reported(0, {"decision": "done"}), {S.PARKED: S.READY}),
    "retry": (ev.RetryAsked(0, "ops"), {S.PARKED: S.READY, S.ATTENTION: S.READY}),
    "skip": (ev.SkipAsked(0, "ops", "why"), dict.fromkeys(set(S) - {S.RUNNING, S.DONE}, S.DONE)),
    "done": (ev.DoneAsked(0, "ops", "how"), dict.fromkeys(set(S) - {S.RUNNING, S.DONE}, S.DONE)),
}
"""Event → which states it moves, and whereto. In all others it changes nothing, or is refused."""


@pytest.mark.parametrize(("name", "state"), list(product(EVENTS, StepState)))
def test_each_event_in_each_state_moves_as_told_or_changes_nothing(name: str, state: StepState) -> None:
    event, moves = EVENTS[name]
    # A step that needs nothing does not stay waiting: its moves are looked at with a need that is not settled.
    before = in_state(state)
    if state is S.WAITING:
        before = machine._with(before, replace(before.steps[0], needs=frozenset({1})))
    if state in moves:
        after, _ = machine.advance(before, event, NOW)
        assert after.steps[0].state is moves[state]
    elif isinstance(event, ev.FENCED):
        after, commands = machine.advance(before, event, NOW)
        assert after.steps[0] == before.steps[0]
        assert Fence(0) in commands
    else:
        with pytest.raises(Impossible, match="step 0"):
            machine.advance(before, event, NOW)


@pytest.mark.parametrize(("state", "how"), list(product(StepState, Move)))
def test_a_step_moves_only_as_the_table_says(state: StepState, how: Move) -> None:
    step = in_state(state).steps[0]
    if (state, how) in TRANSITIONS:
        assert move(step, how).state is TRANSITIONS[state, how]
    else:
        with pytest.raises(Impossible):
            move(step, how)


def test_done_is_final_and_every_other_state_has_a_way_there() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is S.DONE]
    reach = {S.DONE}
    while more := {a for (a, _), b in TRANSITIONS.items() if b in reach} - reach:
        reach |= more
    assert reach == set(S)


@pytest.mark.parametrize("name", [n for n, (e, _) in EVENTS.items() if hasattr(e, "token")])
def test_a_workers_event_with_another_token_changes_nothing(name: str) -> None:
    before = in_state(S.RUNNING)
    event = replace(EVENTS[name][0], token=OTHER)  # type: ignore[call-arg,type-var]
    after, commands = machine.advance(before, event, NOW)
    assert (after, commands) == (before, (Fence(0),))


def test_a_timer_that_rings_early_changes_nothing() -> None:
    before = in_state(S.PARKED)
    after, commands = machine.advance(before, ev.Woken(0), NOW - timedelta(seconds=1))
    assert (after, commands) == (before, (Fence(0),))


def test_a_step_that_backs_off_awaits_no_report() -> None:
    with pytest.raises(Impossible, match="awaits no report"):
        machine.advance(in_state(S.PARKED, ParkedFor.RETRY), ev.Reported(0, {}), NOW)


# Failures. -----------------------------------------------------------------------------------------------------------


def fail(run: Run, failure: Failure, **more: object) -> Run:
    event = ev.Failed(0, TOKEN, failure, "away", **more)  # type: ignore[arg-type]
    return machine.advance(claimed(run, 0, TOKEN), event, NOW)[0]


def wake(run: Run) -> Run:
    event = ev.RetryAsked(0, "ops") if run.steps[0].state is S.ATTENTION else ev.Woken(0)
    return machine.advance(run, event, NOW + timedelta(days=9))[0]


def test_a_retryable_failure_is_tried_as_often_as_the_policy_says() -> None:
    run, policy = a_run(a_step()), RetryPolicy(attempts=3)
    states = []
    for _ in range(3):
        run = fail(run, Failure.RETRYABLE, policy=policy)
        states.append(run.steps[0].state)
        run = wake(run)
    assert states == [S.PARKED, S.PARKED, S.ATTENTION]
    assert (run.steps[0].failures, run.steps[0].attempt) == (0, 3)


def test_a_busy_system_uses_up_no_attempt() -> None:
    run = a_run(a_step())
    for _ in range(50):
        run = wake(fail(run, Failure.RATE_LIMITED, policy=RetryPolicy(attempts=1)))
    assert (run.steps[0].state, run.steps[0].failures) == (S.READY, 0)


@pytest.mark.parametrize("failure", [Failure.UNAUTHORISED, Failure.FATAL])
def test_what_cannot_get_better_wants_an_operator_at_once(failure: Failure) -> None:
    assert fail(a_run(a_step()), failure).steps[0].state is S.ATTENTION


def test_a_step_is_given_up_after_so_many_lost_workers() -> None:
    run, policy = a_run(a_step()), RetryPolicy(crashes=2)
    expired = ev.LeaseExpired(0, TOKEN, policy)
    run, _ = machine.advance(claimed(run, 0, TOKEN), expired, NOW)
    assert (run.steps[0].state, run.steps[0].crashes) == (S.READY, 1)
    run, commands = machine.advance(claimed(run, 0, TOKEN), expired, NOW)
    assert run.steps[0].state is S.ATTENTION
    assert Announce(EventKind.WAITING, {"ordinal": 0, "on": "an operator"}) in commands


def test_an_answer_clears_what_failed_before() -> None:
    run = wake(fail(a_run(a_step()), Failure.CRASHED))
    run, _ = machine.advance(claimed(run, 0, TOKEN), ev.Parked(0, TOKEN, {"job": 1}, NOW), NOW)
    assert (run.steps[0].failures, run.steps[0].crashes, run.steps[0].error) == (0, 0, "")


def test_what_a_step_waits_for_is_announced_once_however_often_it_is_asked() -> None:
    run, said = a_run(a_step()), []
    for _ in range(3):
        event = ev.Parked(0, TOKEN, {"job": 1}, NOW, "the vendor")
        run, commands = machine.advance(claimed(run, 0, TOKEN), event, NOW)
        said += [c for c in commands if isinstance(c, Announce)]
        run, _ = machine.advance(run, ev.Woken(0), NOW)
    assert len(said) == 1


# The end. ------------------------------------------------------------------------------------------------------------


def test_a_declined_gate_ends_the_request_with_its_reason() -> None:
    run = a_run(a_step(action=Action.GATE, system="desk"), a_step(1, needs=frozenset({0})))
    run, commands = machine.advance(claimed(run, 0, TOKEN), ev.GateDeclined(0, TOKEN, "suspected_fraud"), NOW)
    assert (run.resolution, run.stop_reason) == (Resolution.DENIED, "suspected_fraud")
    assert run.steps[1].result == Result(Outcome.SKIPPED, note="the request was denied")
    assert Announce(EventKind.COMPLETED) in commands


def test_a_gate_that_nobody_answers_expires_the_request() -> None:
    run = a_run(a_step(action=Action.GATE))
    run, _ = machine.advance(claimed(run, 0, TOKEN), ev.GateDeclined(0, TOKEN, "other", expired=True), NOW)
    assert run.resolution is Resolution.EXPIRED


def test_a_cancelled_run_lets_what_runs_end_and_names_what_cannot_be_taken_back() -> None:
    run = a_run(a_step(0, system="a"), a_step(1, system="b"), a_step(2, system="c"), a_step(3, system="d"))
    run, _ = finish(run, 0)
    run, _ = finish(run, 3, Outcome.NO_MATCH)
    run = claimed(run, 1, TOKEN)
    run, commands = machine.advance(run, ev.CancelAsked("ops", "asked"), NOW)
    assert [s.state for s in run.steps] == [S.DONE, S.RUNNING, S.DONE, S.DONE]
    assert run.open
    [record] = [c for c in commands if isinstance(c, Record)]
    assert record.facts["irrevocable"] == ["a", "b"]
    run, commands = machine.advance(run, ev.Failed(1, TOKEN, Failure.FATAL, "x"), NOW)
    assert run.resolution is Resolution.CANCELLED
    assert [c.kind for c in commands if isinstance(c, Announce)] == [EventKind.COMPLETED]


def test_a_paused_run_begins_nothing_and_goes_on_where_it_was() -> None:
    run = a_run(a_step(0), a_step(1, needs=frozenset({0})), a_step(2))
    run = claimed(run, 0, TOKEN)
    run, _ = machine.advance(run, ev.PauseAsked("ops", "legal"), NOW)
    run, commands = machine.advance(run, ev.Finished(0, TOKEN, DONE), NOW)
    assert [s.state for s in run.steps] == [S.DONE, S.PARKED, S.PARKED]
    assert not [c for c in commands if isinstance(c, Ring)]
    run, commands = machine.advance(run, ev.ResumeAsked("ops"), NOW)
    assert [s.state for s in run.steps] == [S.DONE, S.READY, S.READY]
    assert Ring("crm") in commands


def test_a_report_that_comes_while_paused_is_kept_for_later() -> None:
    run = in_state(S.PARKED)
    run, _ = machine.advance(run, ev.PauseAsked("ops", ""), NOW)
    run, _ = machine.advance(run, ev.Reported(0, {"decision": "done"}), NOW)
    assert (run.steps[0].state, run.steps[0].parked_for) == (S.PARKED, ParkedFor.PAUSE)
    run, _ = machine.advance(run, ev.ResumeAsked("ops"), NOW)
    assert (run.steps[0].state, run.steps[0].signal) == (S.READY, {"decision": "done"})


@pytest.mark.parametrize("outcome", [Outcome.NO_MATCH, Outcome.UNSUPPORTED, Outcome.SKIPPED])
def test_a_check_of_what_was_never_done_ends_as_that_did(outcome: Outcome) -> None:
    run = a_run(a_step(), a_step(1, action=Action.VERIFY, needs=frozenset({0})))
    run, _ = finish(run, 0, outcome)
    assert run.steps[1].result is not None
    assert run.steps[1].result.outcome is outcome
    assert not run.open


@pytest.mark.parametrize("outcome", [Outcome.EXECUTED, Outcome.RETAINED, Outcome.ACCEPTED, Outcome.RESIDUAL])
def test_a_check_of_what_was_done_is_made(outcome: Outcome) -> None:
    run = a_run(a_step(), a_step(1, action=Action.VERIFY, needs=frozenset({0})))
    assert finish(run, 0, outcome)[0].steps[1].state is S.READY


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_that_is_not_plainly_done_makes_an_exception(outcome: Outcome) -> None:
    plain = {Outcome.EXECUTED, Outcome.VERIFIED, Outcome.NO_MATCH}
    run, _ = finish(a_run(a_step()), 0, outcome)
    assert run.resolution == (Resolution.COMPLETED if outcome in plain else Resolution.COMPLETED_WITH_EXCEPTIONS)


def test_a_run_in_which_nothing_can_be_done_closes_when_it_begins() -> None:
    step = a_step(state=S.DONE, result=Result(Outcome.UNSUPPORTED, note="why"))
    run, commands = machine.begin(Run(UUID(int=1), a_run(a_step()).right, (step,), NOW))
    assert run.resolution is Resolution.COMPLETED_WITH_EXCEPTIONS
    assert [c.kind for c in commands if isinstance(c, Announce)] == [EventKind.ACCEPTED, EventKind.COMPLETED]


# The laws, for any run and any events. --------------------------------------------------------------------------------


@st.composite
def any_run(draw: st.DrawFn) -> Run:
    n = draw(st.integers(1, 6))
    steps: list[Step] = []
    for i in range(n):
        needs = draw(st.frozensets(st.integers(0, i - 1), max_size=3)) if i else frozenset()
        action = draw(st.sampled_from([Action.DISCOVER, Action.ERASE, Action.VERIFY, Action.GATE]))
        steps.append(a_step(i, system=draw(st.sampled_from("abc")), action=action, needs=needs))
    return a_run(*steps)


ordinals, tokens = st.integers(0, 5), st.sampled_from([TOKEN, OTHER])
results = st.sampled_from(list(Outcome)).map(Result)
any_event = st.one_of(
    st.builds(ev.Finished, ordinals, tokens, results),
    st.builds(ev.Parked, ordinals, tokens, st.just({"j": 1}), st.just(NOW), st.sampled_from(["", "them"])),
    st.builds(ev.Failed, ordinals, tokens, st.sampled_from(list(Failure)), st.just("x")),
    st.builds(ev.GateDeclined, ordinals, tokens, st.just("other"), st.booleans()),
    st.builds(ev.HandedBack, ordinals, tokens),
    st.builds(ev.LeaseExpired, ordinals, tokens),
    st.builds(ev.Woken, ordinals),
    st.builds(ev.Reported, ordinals, st.just({"decision": "done"})),
    st.builds(ev.RetryAsked, ordinals, st.just("ops")),
    st.builds(ev.SkipAsked, ordinals, st.just("ops"), st.just("why")),
    st.builds(ev.DoneAsked, ordinals, st.just("ops"), st.just("how")),
    st.builds(ev.CancelAsked, st.just("ops"), st.just("why")),
    st.builds(ev.PauseAsked, st.just("ops"), st.just("why")),
    st.builds(ev.ResumeAsked, st.just("ops")),
)
claim_events = st.builds(lambda n, t: ("claim", n, t), ordinals, tokens)


def histories(run: Run, happenings: list[object]) -> Iterator[tuple[Run, Run, object, tuple[Command, ...]]]:
    """Every run with the one before it, what happened between, and what was commanded."""
    for what in happenings:
        if isinstance(what, tuple):
            _, ordinal, token = what
            if ordinal < len(run.steps) and run.steps[ordinal].state is S.READY:
                run = claimed(run, ordinal, token)
            continue
        if getattr(what, "ordinal", 0) >= len(run.steps):
            continue
        try:
            after, commands = machine.advance(run, what, NOW)  # type: ignore[arg-type]
        except Impossible:
            continue
        yield run, after, what, commands
        run = after


@given(any_run(), st.lists(claim_events | any_event, max_size=40))
def test_the_laws_hold_for_any_run_and_any_events(run: Run, happenings: list[object]) -> None:
    closings = int(not run.open)
    for before, after, what, commands in histories(run, happenings):
        done = {s.ordinal for s in after.steps if s.state is S.DONE}
        for old, new in zip(before.steps, after.steps, strict=True):
            if old.state is S.DONE:
                assert new == old, "done is final"
            if new.state in {S.READY, S.RUNNING}:
                assert new.needs <= done, "a step is ready only when all that it needs is done"
            assert (new.state is S.DONE) == (new.result is not None)
            assert (new.token is None) == (new.state is not S.RUNNING)
            if new.state is S.READY:
                assert not after.paused
                assert after.stopping is None, "nothing begins while it is stopped or paused"
        if any(isinstance(c, Fence) for c in commands):
            assert (after, len(commands)) == (before, 1), f"a fenced {what} changes nothing"
        assert after.open == (len(done) < len(after.steps)), "it closes exactly when all is done"
        closings += sum(isinstance(c, Announce) and c.kind is EventKind.COMPLETED for c in commands)
        assert closings == int(not after.open), "with one announcement"
        became = {n.system for o, n in zip(before.steps, after.steps, strict=True) if n.state is S.READY != o.state}
        assert {c.system for c in commands if isinstance(c, Ring)} == became


def copies(run: Run, n: int) -> list[Run]:
    """Runs that stand alike: other requests, the same values."""
    return [replace(run, request=UUID(int=i)) for i in range(n)]


@given(any_run(), st.lists(claim_events | any_event, max_size=40), results)
def test_of_runs_that_go_the_same_way_each_becomes_what_it_would_alone(
    run: Run, happenings: list[object], result: Result
) -> None:
    alike = Alike(NOW)
    for before, after, what, commands in histories(run, happenings):
        for one in copies(before, 3):
            assert alike.advance(one, what) == (replace(after, request=one.request), commands)  # type: ignore[arg-type]
        if isinstance(what, ev.Finished):
            other = replace(what, result=result)  # another value at another place, and nothing else is different
            for one in copies(before, 2):
                assert alike.advance(one, other) == machine.advance(one, other, NOW)
