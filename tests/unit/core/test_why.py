"""Every request that is open has a true reason, whatever state its steps are in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import NEVER, Limits, Result, RetryPolicy, Run, Step, System
from orchestrator.core.vocabulary import Action, Failure, Outcome, ParkedFor, Resolution, Right, StepState
from orchestrator.core.why import Kind, Known, StepTimes, SystemState, Why, why
from orchestrator.core.words import duration

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SINCE = NOW - timedelta(seconds=5)
S = StepState


def step(ordinal: int, state: StepState, system: str = "crm", needs: tuple[int, ...] = (), **more) -> Step:
    if state is S.DONE:
        more.setdefault("result", Result(Outcome.EXECUTED))
    if state is S.PARKED:
        more.setdefault("parked_for", ParkedFor.REPORT)
    if state is S.ATTENTION:
        more.setdefault("failure", Failure.FATAL)
        more.setdefault("error", "no such table")
    action = more.pop("action", Action.ERASE)
    return Step(ordinal, "erase", system, action, state, needs=frozenset(needs), **more)


def ask(*steps: Step, now: datetime = NOW, **more) -> Why:
    run_fields = {k: more.pop(k) for k in ("paused", "stopping", "stop_reason", "resolution", "deadline") if k in more}
    run = Run(UUID(int=7), Right.ERASURE, steps, run_fields.pop("deadline", NOW + timedelta(days=9)), **run_fields)
    times = more.pop("times", {})
    filled = {s.ordinal: StepTimes(SINCE) for s in steps} | times
    return why(Known(run, filled, more.pop("states", {}), **more), now)


def only(answer: Why):
    (reason,) = answer.reasons
    return reason


# Laws. --------------------------------------------------------------------------------------------------------------


@st.composite
def runs(draw) -> tuple[Step, ...]:
    """Steps in any state, each needing some of those before it; one that waits needs one that is not done."""
    steps: list[Step] = []
    for n in range(draw(st.integers(1, 7))):
        needs = tuple(draw(st.sets(st.sampled_from(range(n)))) if n else ())
        blocked = any(steps[i].state is not S.DONE for i in needs)
        state = draw(st.sampled_from([s for s in S if s is not S.WAITING])) if not blocked else S.WAITING
        system = draw(st.sampled_from(["a", "b", "c"]))
        parked_for = draw(st.sampled_from(ParkedFor)) if state is S.PARKED else None
        due = draw(st.sampled_from([NEVER, NOW + timedelta(hours=1), NOW - timedelta(hours=1)]))
        handle = draw(st.sampled_from([None, {}, {"gate": "approval"}, {"asked_at": 7}, {"legal_hold": "C-7"}]))
        steps.append(step(n, state, system, needs, parked_for=parked_for, due=due, handle=handle))
    return tuple(steps)


states = st.builds(
    SystemState,
    paused=st.booleans(),
    breaker_until=st.sampled_from([None, NOW - timedelta(1), NOW + timedelta(1)]),
    running=st.integers(0, 3),
)


@given(runs(), st.dictionaries(st.sampled_from("abc"), states))
def test_every_step_that_is_not_done_is_explained_and_every_root_is_a_reason(steps, by_system):
    answer = ask(*steps, states=by_system)
    explained = {r.ordinal for r in answer.reasons} | {w.ordinal for w in answer.waiting}
    assert explained == {s.ordinal for s in steps if s.state is not S.DONE}
    by_ordinal = {r.ordinal: r for r in answer.reasons}
    for waiting in answer.waiting:
        assert waiting.roots
        assert all(waiting.ordinal in by_ordinal[root].holds_up for root in waiting.roots)
    assert all(r.text for r in answer.reasons)


@given(runs())
def test_one_broken_system_holds_up_only_what_depends_on_it(steps):
    answer = ask(*steps)
    for reason in answer.reasons:
        for ordinal in reason.holds_up:
            assert reason.ordinal in ancestors(steps, ordinal)


def ancestors(steps, ordinal: int) -> set[int]:
    direct = set(steps[ordinal].needs)
    return direct.union(*(ancestors(steps, n) for n in direct)) if direct else set()


# Words. -------------------------------------------------------------------------------------------------------------


def test_the_root_is_named_and_not_the_chain():
    answer = ask(step(0, S.ATTENTION, "payments"), step(1, S.WAITING, "users", (0,)), step(2, S.WAITING, "users", (1,)))
    assert only(answer).holds_up == (1, 2)
    assert [w.text for w in answer.waiting] == [
        "erase in users waits for step 0 (erase in payments), which wants attention: fatal: no such table"
    ] * 2


def test_what_wants_somebody_to_act_comes_first():
    answer = ask(step(0, S.RUNNING, "a"), step(1, S.READY, "b"), step(2, S.ATTENTION, "c"))
    assert [r.kind for r in answer.reasons] == [Kind.ATTENTION, Kind.RUNNING, Kind.QUEUE]
    assert answer.summary == "0 of 3 steps are done; 1 step wants somebody to act"


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (Failure.UNAUTHORISED, "renew the credentials"),
        (Failure.FATAL, "put right what the error names"),
        (Failure.CRASHED, "look at the worker's log"),
        (Failure.RETRYABLE, "see that the system works again"),
    ],
)
def test_the_advice_fits_the_class_of_the_failure(failure, advice):
    assert only(ask(step(0, S.ATTENTION, failure=failure))).help.startswith(advice)


def test_a_back_off_counts_its_failures_against_the_policy():
    systems = {"crm": System("crm", "sql", frozenset(), retry=RetryPolicy(attempts=5))}
    parked = step(
        0, S.PARKED, parked_for=ParkedFor.RETRY, due=NOW + timedelta(minutes=2), failures=3,
        failure=Failure.RETRYABLE, error="503",
    )  # fmt: skip
    reason = only(ask(parked, systems=systems))
    assert reason.kind is Kind.RETRY
    assert "until 2026-11-22 12:02:00 UTC after failure 3 of 5: retryable: 503" in reason.text
    assert "after failure 3: retryable" in only(ask(parked)).text


def test_a_time_that_has_come_and_gone_asks_for_the_clock():
    late = step(0, S.PARKED, parked_for=ParkedFor.RETRY, due=NOW - timedelta(minutes=5), failures=1)
    assert "is a clock running?" in only(ask(late)).help


def test_a_manual_step_is_reported_as_done_and_a_gate_is_approved():
    handle = {"gate": "manual", "asked_at": (NOW - timedelta(days=1)).isoformat()}
    manual = only(ask(step(0, S.PARKED, handle=handle, waiting_on="erase in the archive by records")))
    assert manual.since == NOW - timedelta(days=1)
    assert manual.help.startswith("when it is done: habeas done")
    gate = only(ask(step(0, S.PARKED, "desk", action=Action.GATE, waiting_on="approval")))
    assert gate.help.startswith("habeas approve")


def test_a_cooling_off_wants_nobody():
    handle = {"gate": "cooling_off"}
    waiting = step(
        0, S.PARKED, "desk", action=Action.GATE, handle=handle, due=NOW + timedelta(days=1), waiting_on="time"
    )
    assert only(ask(waiting)).kind is Kind.SYSTEM


def test_a_paused_system_comes_before_its_breaker_and_its_queue():
    state = SystemState(paused=True, paused_by="eve", breaker_until=NOW + timedelta(1), running=2)
    assert only(ask(step(0, S.READY), states={"crm": state})).text == "is held: system crm is paused by eve"


def test_a_ready_step_is_asked_about_only_after_a_while_and_later_where_batches_gather():
    ready, old = step(0, S.READY), {0: StepTimes(NOW - timedelta(seconds=45))}
    assert only(ask(ready)).kind is Kind.QUEUE
    assert only(ask(ready, times=old)).kind is Kind.NO_WORKER
    gathers = {"crm": System("crm", "logs", frozenset(), limits=Limits(gather=timedelta(minutes=1)))}
    assert only(ask(ready, times=old, systems=gathers)).kind is Kind.QUEUE


def test_a_limited_rate_is_named_as_the_reason_of_a_queue():
    limited = {"crm": System("crm", "sql", frozenset(), limits=Limits(per_second=2.5))}
    old = {0: StepTimes(NOW - timedelta(minutes=9), ahead=40)}
    assert "behind 40 other steps of crm; crm is limited to 2.5 a second" in only(
        ask(step(0, S.READY), times=old, systems=limited)
    ).text  # fmt: skip


def test_a_system_that_is_no_longer_configured_is_named():
    other = {"erp": System("erp", "sql", frozenset())}
    assert "no system crm is configured any more" in only(ask(step(0, S.READY), systems=other)).text


def test_a_request_that_is_wound_up_says_so():
    answer = ask(step(0, S.RUNNING), stopping=Resolution.CANCELLED, stop_reason="withdrawn")
    assert answer.summary == (
        "the request is being wound up (cancelled: withdrawn); it closes when what runs has ended"
    )


@pytest.mark.parametrize("resolution", Resolution)
def test_a_closed_request_waits_for_nothing(resolution):
    answer = ask(step(0, S.DONE), resolution=resolution, stop_reason="other")
    assert answer.reasons == ()
    assert answer.summary.endswith("(other)")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400 * 9 + 59, "9 d")],
)
def test_lengths_of_time_are_told_in_their_two_largest_units(seconds, words):
    assert duration(timedelta(seconds=seconds)) == words


def test_the_deadline_passes_only_once_it_is_over():
    run = step(0, S.RUNNING)
    assert ask(run, deadline=NOW).overdue is None
    assert ask(run, deadline=NOW - timedelta(days=2)).overdue == timedelta(days=2)
