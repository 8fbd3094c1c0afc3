"""Why a request is where it is: for each thing it waits on, the true reason in words, and what would help.

A step that waits for other steps is explained by the root of it, never by the chain: "erase in users waits for step 3
(erase in payments), which wants attention". So one broken system is seen to stop its dependents and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from orchestrator.core.model import NEVER, Run, Step, System
from orchestrator.core.vocabulary import Action, Failure, ParkedFor, Resolution, StepState
from orchestrator.core.words import by, duration, moment, things

SOON = timedelta(seconds=3)
"""After this long, what should be taken or published at once is worth asking the broker about."""
UNCLAIMED = timedelta(seconds=30)
"""A ready step that nothing holds back is claimed within moments; after this long it is worth a question."""


class Kind(StrEnum):
    """What it is that a request waits for."""

    PERSON = "person"
    """A decision or a report of people."""
    SYSTEM = "system"
    """A system that takes its time, or a time that must pass."""
    RETRY = "retry"
    """The end of a back-off after a failure."""
    ATTENTION = "attention"
    """An operator."""
    PAUSED_REQUEST = "paused_request"
    PAUSED_SYSTEM = "paused_system"
    BREAKER = "breaker"
    """The circuit breaker of a system that keeps failing."""
    RUNNING = "running"
    """Work under way."""
    QUEUE = "queue"
    """Its turn."""
    NO_WORKER = "no_worker"
    """Somebody to take it."""


@dataclass(frozen=True, slots=True)
class SystemState:
    """What is known of one system besides its definition."""

    paused: bool = False
    paused_by: str = ""
    paused_reason: str = ""
    failures: int = 0
    """Steps failing one after another."""
    breaker_until: datetime | None = None
    last_error: str = ""
    running: int = 0
    """Steps under way for any request."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What the store knows of one step besides its state."""

    changed_at: datetime
    lease_until: datetime | None = None
    ahead: int = 0
    """Ready steps of the same system that come before this one."""


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that the answer is drawn from."""

    run: Run
    times: Mapping[int, StepTimes]
    """By ordinal."""
    states: Mapping[str, SystemState]
    """By system."""
    systems: Mapping[str, System] = field(default_factory=dict)
    """The definitions, as far as they are at hand; without them limits and attempts are left unsaid."""
    paused_by: str = ""
    paused_reason: str = ""
    broker_away: bool = False
    """The broker was asked, and does not answer."""
    unpublished: int = 0
    """Events about the request that wait to be published."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that the request waits for."""

    kind: Kind
    ordinal: int
    step: str
    """e.g. ``erase in payments``."""
    text: str
    help: str = ""
    """What an operator can do about it; empty when nothing needs doing."""
    since: datetime | None = None
    until: datetime | None = None
    holds_up: tuple[int, ...] = ()
    """Ordinals of the steps that wait for this one, directly or through others."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that others must come before: explained by the roots alone."""

    ordinal: int
    step: str
    roots: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Why:
    """The answer."""

    summary: str
    reasons: tuple[Reason, ...] = ()
    """The roots, those that want somebody to act first."""
    waiting: tuple[Waiting, ...] = ()
    overdue: timedelta | None = None
    """How long the deadline has been over; ``None`` while it is not."""
    stuck: bool = False
    """Something should have been taken or published by now: it is worth asking whether the broker answers."""


_ORDER = tuple(Kind(k) for k in (Kind.ATTENTION, Kind.NO_WORKER, Kind.PAUSED_REQUEST, Kind.PAUSED_SYSTEM, Kind.PERSON))


def why(known: Known, now: datetime) -> Why:
    """Why the request is where it is."""
    run = known.run
    if run.resolution is not None:
        return Why(_closed(run) + _answerless(known), stuck=known.unpublished > 0)
    roots = {s.ordinal: _roots(run, s) for s in run.steps if s.state is StepState.WAITING}
    reasons = [
        _with_dependents(_reason(known, step, now), roots)
        for step in run.steps
        if step.state not in {StepState.DONE, StepState.WAITING}
    ]
    reasons.sort(key=lambda r: (_ORDER.index(r.kind) if r.kind in _ORDER else len(_ORDER), r.ordinal))
    by_ordinal = {r.ordinal: r for r in reasons}
    waiting = tuple(
        Waiting(n, label(run.steps[n]), root, _chain(run.steps[n], [by_ordinal[r] for r in root]))
        for n, root in roots.items()
    )
    overdue = now - run.deadline if now > run.deadline else None
    stuck = any(r.kind in {Kind.QUEUE, Kind.NO_WORKER} and now - (r.since or now) > SOON for r in reasons)
    return Why(_open(known, reasons, overdue), tuple(reasons), waiting, overdue, stuck)


def label(step: Step) -> str:
    """A step in words: what is done, and where."""
    if step.action is Action.GATE:
        return f"gate {step.name}"
    if step.action is Action.PACKAGE:
        return "package"
    return f"{step.action} in {step.system}"


# The request as a whole. --------------------------------------------------------------------------------------------


def _closed(run: Run) -> str:
    said = {
        Resolution.COMPLETED: "the request is completed; nothing is waited for",
        Resolution.COMPLETED_WITH_EXCEPTIONS: "the request is completed, with exceptions that `habeas show` lists",
        Resolution.DENIED: "the request was denied",
        Resolution.CANCELLED: "the request was cancelled",
        Resolution.EXPIRED: "the request expired: nobody answered in time",
    }[run.resolution or Resolution.COMPLETED]
    return f"{said} ({run.stop_reason})" if run.stop_reason else said


def _answerless(known: Known) -> str:
    if not known.unpublished:
        return ""
    cause = "the broker does not answer" if known.broker_away else "is a clock running?"
    return f"; its sender does not know yet: {cause}"


def _open(known: Known, reasons: list[Reason], overdue: timedelta | None) -> str:
    run = known.run
    done = sum(s.state is StepState.DONE for s in run.steps)
    parts = [f"{done} of {len(run.steps)} steps are done"]
    if run.stopping is not None:
        ends = "it closes when what runs has ended"
        parts = [f"the request is being wound up ({run.stopping}: {run.stop_reason}); {ends}"]
    elif run.paused:
        parts.append(f"the request is paused{by(known.paused_by, known.paused_reason)}")
    act = [r for r in reasons if r.kind in {Kind.ATTENTION, Kind.NO_WORKER}]
    if act:
        parts.append(f"{things(len(act), 'step wants', 'steps want')} somebody to act")
    if overdue is not None:
        parts.append(f"the legal deadline passed {duration(overdue)} ago")
    return "; ".join(parts)


def _roots(run: Run, step: Step) -> tuple[int, ...]:
    """The steps that really stand in the way: neither done nor themselves waiting for others."""
    found: set[int] = set()
    seen: set[int] = set()
    todo = list(step.needs)
    while todo:
        ordinal = todo.pop()
        if ordinal in seen:
            continue
        seen.add(ordinal)
        other = run.steps[ordinal]
        if other.state is StepState.WAITING:
            todo += other.needs
        elif other.state is not StepState.DONE:
            found.add(ordinal)
    return tuple(sorted(found))


def _with_dependents(reason: Reason, roots: Mapping[int, tuple[int, ...]]) -> Reason:
    held = tuple(n for n, root in roots.items() if reason.ordinal in root)
    return replace(reason, holds_up=held)


def _chain(step: Step, roots: list[Reason]) -> str:
    said = "; and for ".join(f"step {r.ordinal} ({r.step}), which {r.text}" for r in roots)
    return f"{label(step)} waits for {said}"


# One step. ----------------------------------------------------------------------------------------------------------


def _reason(known: Known, step: Step, now: datetime) -> Reason:
    match step.state:
        case StepState.ATTENTION:
            return _attention(known, step)
        case StepState.RUNNING:
            return _running(known, step, now)
        case StepState.READY:
            return _ready(known, step, now)
        case StepState.PARKED:
            return _parked(known, step, now)
        case StepState.WAITING | StepState.DONE:
            raise AssertionError("these are explained by others")
        case _:
            assert_never(step.state)


def _attention(known: Known, step: Step) -> Reason:
    since = known.times[step.ordinal].changed_at
    advice = {
        Failure.UNAUTHORISED: "renew the credentials in the systems file, then",
        Failure.FATAL: "put right what the error names, then",
        Failure.CRASHED: "look at the worker's log for a defect, then",
    }.get(step.failure or Failure.RETRYABLE, "see that the system works again, then")
    request, n = known.run.request, step.ordinal
    instead = f"habeas skip {request} --step {n} --reason …, or habeas done {request} --step {n} --evidence …"
    return Reason(
        Kind.ATTENTION,
        n,
        label(step),
        f"wants attention: {_error(step)}",
        f"{advice}: habeas retry {request} --step {n}; or instead: {instead}",
        since,
    )


def _running(known: Known, step: Step, now: datetime) -> Reason:
    times = known.times[step.ordinal]
    text = f"is running since {moment(times.changed_at)}"
    if times.lease_until is not None and times.lease_until < now:
        text += "; its lease ran out, so its worker is gone, and the clock will give it to another"
        aid = "if this stays so: is a clock running?"
        return Reason(Kind.RUNNING, step.ordinal, label(step), text, aid, times.changed_at, times.lease_until)
    if times.lease_until is not None:
        text += f", under a lease until {moment(times.lease_until)}"
    return Reason(Kind.RUNNING, step.ordinal, label(step), text, "", times.changed_at, times.lease_until)


def _parked(known: Known, step: Step, now: datetime) -> Reason:
    times = known.times[step.ordinal]
    until = step.due if step.due < NEVER else None
    due = f" until {moment(until)} at the latest" if until else ""
    match step.parked_for:
        case ParkedFor.PAUSE:
            text = f"is held: the request is paused{by(known.paused_by, known.paused_reason)}"
            aid = f"habeas resume {known.run.request}"
            return Reason(Kind.PAUSED_REQUEST, step.ordinal, label(step), text, aid, times.changed_at)
        case ParkedFor.RETRY:
            return _backing_off(known, step, now)
        case ParkedFor.REPORT | None:
            pass
    since = _asked_at(step) or times.changed_at
    if "legal_hold" in (step.handle or {}):
        text = f"is held back: it waits for {step.waiting_on}"
        aid = f"if the case is over: habeas hold release --case {(step.handle or {})['legal_hold']}"
        return Reason(Kind.PERSON, step.ordinal, label(step), text, aid, since, until)
    if not _asks_people(step):
        what = f"waits for {step.waiting_on}" if step.waiting_on else "waits for the system to finish"
        again = f"; it is asked again at {moment(until)}" if until else ""
        return Reason(Kind.SYSTEM, step.ordinal, label(step), what + again, _clock_aid(until, now), since, until)
    text = f"waits for {step.waiting_on or 'an answer'} since {moment(since)}{due}"
    if (step.handle or {}).get("gate") == "cooling_off":
        text = f"waits for {step.waiting_on or 'a time'}" + (f" at {moment(until)}" if until else "")
        return Reason(Kind.SYSTEM, step.ordinal, label(step), text, _clock_aid(until, now), since, until)
    request, n = known.run.request, step.ordinal
    yes = f"habeas approve {request} --step {n}"
    if step.action is not Action.GATE:
        yes = f"when it is done: habeas done {request} --step {n} --evidence …"
    aid = f"{yes}, or habeas decline {request} --step {n} --reason …"
    return Reason(Kind.PERSON, n, label(step), text, aid, since, until)


def _backing_off(known: Known, step: Step, now: datetime) -> Reason:
    system = known.systems.get(step.system)
    of = f" of {system.retry.attempts}" if system else ""
    count = f"failure {step.failures}{of}" if step.failures else f"attempt {step.attempt}"
    overdue = _clock_aid(step.due, now)
    return Reason(
        Kind.RETRY,
        step.ordinal,
        label(step),
        f"backs off until {moment(step.due)} after {count}: {_error(step)}",
        overdue or f"to try at once: habeas retry {known.run.request} --step {step.ordinal}",
        known.times[step.ordinal].changed_at,
        step.due,
    )


def _ready(known: Known, step: Step, now: datetime) -> Reason:
    times, state = known.times[step.ordinal], known.states.get(step.system, SystemState())
    system, since = known.systems.get(step.system), times.changed_at

    def reason(kind: Kind, text: str, aid: str = "", until: datetime | None = None) -> Reason:
        return Reason(kind, step.ordinal, label(step), text, aid, since, until)

    if state.paused:
        text = f"is held: system {step.system} is paused{by(state.paused_by, state.paused_reason)}"
        return reason(Kind.PAUSED_SYSTEM, text, f"habeas resume --system {step.system}")
    if state.breaker_until is not None:
        when = f"until {moment(state.breaker_until)}" if state.breaker_until > now else "for one more trial"
        failed = f"after {things(state.failures, 'failure', 'failures')} in a row" if state.failures else "for failing"
        error = f": {state.last_error}" if state.last_error else ""
        text = f"is held {when}: the circuit breaker of {step.system} opened {failed}{error}"
        aid = f"it closes by itself; to close it now: habeas resume --system {step.system}"
        return reason(Kind.BREAKER, text, aid, state.breaker_until)
    if known.systems and system is None:
        text = f"is ready since {moment(since)}, and no system {step.system} is configured any more"
        aid = f"put {step.system} back into the systems file, or skip the step"
        return reason(Kind.NO_WORKER, text, aid)
    ahead = f", behind {things(times.ahead, 'other step', 'other steps')} of {step.system}" if times.ahead else ""
    text = f"is ready since {moment(since)}{ahead}"
    if step.failure is Failure.CRASHED:
        text = f"is ready again since {moment(since)}{ahead}: {step.error}"
    if state.running:
        under_way = things(state.running, "step of that system is", "steps of that system are")
        return reason(Kind.QUEUE, f"{text}; {under_way} under way")
    rate = system.limits.per_second if system else None
    if rate is not None and times.ahead:
        return reason(Kind.QUEUE, f"{text}; {step.system} is limited to {rate:g} a second")
    gather = system.limits.gather if system else timedelta()
    if known.broker_away:
        aid = "workers and the clock come back by themselves when it does"
        return reason(Kind.NO_WORKER, f"{text}, and no worker hears of it: the broker does not answer", aid)
    if now - since > max(UNCLAIMED, gather * 2):
        return reason(
            Kind.NO_WORKER,
            f"{text}, and no worker takes it",
            f"is a worker for {step.system} running? start one with: habeas worker -Q {step.system}",
        )
    return reason(Kind.QUEUE, f"{text}, and is taken in a moment")


def _error(step: Step) -> str:
    kind = str(step.failure or "failed").replace("_", " ")
    return f"{kind}: {step.error}" if step.error else kind


def _asks_people(step: Step) -> bool:
    return step.action is Action.GATE or "gate" in (step.handle or {})


def _asked_at(step: Step) -> datetime | None:
    said = (step.handle or {}).get("asked_at")
    if not isinstance(said, str):
        return None
    try:
        return datetime.fromisoformat(said)
    except ValueError:
        return None


def _clock_aid(until: datetime | None, now: datetime) -> str:
    return "its time has come: is a clock running?" if until is not None and now - until > UNCLAIMED else ""
