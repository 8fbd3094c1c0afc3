"""The state machine of a run: one function that applies events, by the table in ``transitions``.

The laws, which the simulation and the property tests hold it to:

1. A step moves only as ``TRANSITIONS`` says; ``DONE`` is final.
2. A worker's event counts only with the token of the lease that is in force. Any other changes nothing (``Fence``).
3. A step is ready only when all that it needs is done.
4. A run closes exactly when all its steps are done, once, with one ``COMPLETED`` announcement.
5. While a run is being stopped nothing begins; what runs may end. While it is paused nothing begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeGuard, TypeVar

from orchestrator.core import events as ev
from orchestrator.core.commands import Announce, Command, Fence, Record, Ring
from orchestrator.core.model import Result, Run, Step
from orchestrator.core.retry import delay
from orchestrator.core.transitions import Impossible, Move, move
from orchestrator.core.vocabulary import (
    CHANGES_DATA,
    EXCEPTIONS,
    Action,
    DenialReason,
    EventKind,
    Failure,
    Outcome,
    ParkedFor,
    Resolution,
    StepState,
)

_S = StepState


def begin(run: Run) -> tuple[Run, tuple[Command, ...]]:
    """A newly planned run with its first steps released."""
    return _settle_down(run, run, [Announce(EventKind.ACCEPTED), Record("accepted", None, {"steps": len(run.steps)})])


def advance(run: Run, event: ev.Event, now: datetime) -> tuple[Run, tuple[Command, ...]]:
    """The run after an event, and what is to be done about it.

    Raises ``Impossible`` when an operator or a reporter asks what the state forbids. Events of workers and of the sweep
    that come too late are never an error: they change nothing and yield a ``Fence``.
    """
    if not run.open and not isinstance(event, ev.FENCED):
        raise Impossible(f"the request is closed ({run.resolution})")
    handler: Callable[[Run, Any, datetime], tuple[Run, list[Command]]] = _HANDLERS[type(event)]
    after, commands = handler(run, event, now)
    return _settle_down(run, after, commands)


# Events of workers and of the sweep. --------------------------------------------------------------------------------

_Fenced = TypeVar("_Fenced", bound="ev.WorkerEvent | ev.LeaseExpired")


def _fenced(
    apply: Callable[[Step, _Fenced, datetime], tuple[Step, list[Command]]],
) -> Callable[[Run, _Fenced, datetime], tuple[Run, list[Command]]]:
    def handle(run: Run, event: _Fenced, now: datetime) -> tuple[Run, list[Command]]:
        # A request closed long ago has no steps any more.
        step = run.steps[event.ordinal] if event.ordinal < len(run.steps) else None
        if step is None or step.state is not _S.RUNNING or step.token != event.token:
            return run, [Fence(event.ordinal)]
        after, commands = apply(step, event, now)
        return _with(run, after), commands

    return handle


def _finished(step: Step, event: ev.Finished, _now: datetime) -> tuple[Step, list[Command]]:
    step = move(step, Move.FINISH, result=event.result, failure=None, error="", handle=None, signal=None)
    return step, [_outcome(step, event.result)]


def _parked(step: Step, event: ev.Parked, _now: datetime) -> tuple[Step, list[Command]]:
    asked_before = step.handle is not None and not step.signal
    step = move(
        step,
        Move.PARK,
        handle=event.handle,
        signal=None,
        due=event.until,
        parked_for=ParkedFor.REPORT,
        waiting_on=event.waiting_on,
        failures=0,
        crashes=0,
        failure=None,
        error="",
    )
    if asked_before or not event.waiting_on:
        return step, []
    facts = {"step": step.name, "system": step.system, "on": event.waiting_on}
    return step, [_waiting(step, event.waiting_on), Record("waiting", step.ordinal, facts)]


def _failed(step: Step, event: ev.Failed, now: datetime) -> tuple[Step, list[Command]]:
    counted = event.failure is not Failure.RATE_LIMITED
    failures = step.failures + counted
    crashes = step.crashes + (event.failure is Failure.CRASHED)
    hopeless = event.failure in {Failure.UNAUTHORISED, Failure.FATAL}
    said = {"failure": event.failure, "error": event.message, "failures": failures, "crashes": crashes}
    if hopeless or failures >= event.policy.attempts or crashes >= event.policy.crashes:
        step = move(step, Move.GIVE_UP, **said)
        return step, _attention(step)
    until = now + delay(event.policy, max(failures, 1), event.jitter, event.after)
    step = move(step, Move.BACK_OFF, due=until, parked_for=ParkedFor.RETRY, **said)
    return step, [Record("failed", step.ordinal, {"failure": event.failure, "error": event.message})]


def _handed_back(step: Step, _event: ev.HandedBack, _now: datetime) -> tuple[Step, list[Command]]:
    return move(step, Move.HAND_BACK), []


def _lease_expired(step: Step, event: ev.LeaseExpired, _now: datetime) -> tuple[Step, list[Command]]:
    crashes = step.crashes + 1
    said = {"crashes": crashes, "failure": Failure.CRASHED, "error": "the worker that had it was lost"}
    if crashes >= event.policy.crashes:
        step = move(step, Move.GIVE_UP, **said)
        return step, _attention(step)
    return move(step, Move.LOSE, **said), [Record("lost", step.ordinal, {"crashes": crashes})]


def _gate_declined(run: Run, event: ev.GateDeclined, now: datetime) -> tuple[Run, list[Command]]:
    def apply(step: Step, event: ev.GateDeclined, _now: datetime) -> tuple[Step, list[Command]]:
        result = Result(Outcome.EXECUTED, note=event.note, evidence={"declined": event.reason})
        step = move(step, Move.FINISH, result=result, handle=None, signal=None)
        return step, [Record("declined", step.ordinal, {"reason": event.reason, "expired": event.expired})]

    before = run
    run, commands = _fenced(apply)(run, event, now)
    if run is not before and run.stopping is None:
        stopping = Resolution.EXPIRED if event.expired else Resolution.DENIED
        run = replace(run, stopping=stopping, stop_reason=event.reason or DenialReason.OTHER)
    return run, commands


def _woken(run: Run, event: ev.Woken, now: datetime) -> tuple[Run, list[Command]]:
    step = run.steps[event.ordinal]
    if step.state is not _S.PARKED or step.due > now:
        return run, [Fence(event.ordinal)]
    return _with(run, move(step, Move.WAKE)), []


# Events of operators and reporters. ---------------------------------------------------------------------------------


def _reported(run: Run, event: ev.Reported, _now: datetime) -> tuple[Run, list[Command]]:
    step = _step(run, event.ordinal)
    if step.parked_for is not ParkedFor.REPORT:
        raise Impossible(f"step {step.ordinal} ({step.name} in {step.system}) is {step.state}: it awaits no report")
    facts = {k: event.signal[k] for k in ("decision", "actor", "reason") if k in event.signal}
    step = move(step, Move.WAKE, signal=dict(event.signal))
    return _with(run, step), [Record("reported", step.ordinal, facts)]


def _retry_asked(run: Run, event: ev.RetryAsked, _now: datetime) -> tuple[Run, list[Command]]:
    step = _step(run, event.ordinal)
    if step.parked_for is ParkedFor.PAUSE:
        raise Impossible("the request is paused: resume it instead")
    step = move(step, Move.WAKE, failures=0, crashes=0)
    return _with(run, step), [Record("retry", step.ordinal, {"actor": event.actor})]


def _skip_asked(run: Run, event: ev.SkipAsked, _now: datetime) -> tuple[Run, list[Command]]:
    return _settled_by_hand(run, event.ordinal, Result(Outcome.SKIPPED, note=event.reason), "skipped", event.actor)


def _done_asked(run: Run, event: ev.DoneAsked, _now: datetime) -> tuple[Run, list[Command]]:
    result = Result(Outcome.EXECUTED, evidence={"by_hand": event.evidence, "actor": event.actor})
    return _settled_by_hand(run, event.ordinal, result, "done by hand", event.actor)


def _settled_by_hand(run: Run, ordinal: int, result: Result, what: str, actor: str) -> tuple[Run, list[Command]]:
    step = _step(run, ordinal)
    if step.state is _S.RUNNING:
        raise Impossible(f"step {ordinal} ({step.name} in {step.system}) is running: wait for it, or for its lease")
    step = move(step, Move.SETTLE, result=result, handle=None, signal=None)
    return _with(run, step), [Record(what, ordinal, {"actor": actor, "note": result.note, **result.evidence})]


def _cancel_asked(run: Run, event: ev.CancelAsked, _now: datetime) -> tuple[Run, list[Command]]:
    if run.stopping is not None:
        return run, []
    irrevocable = sorted(
        {s.system for s in run.steps if s.action in CHANGES_DATA and s.state in {_S.DONE, _S.RUNNING} and _acted(s)}
    )
    run = replace(run, stopping=Resolution.CANCELLED, stop_reason=event.reason)
    facts = {"actor": event.actor, "reason": event.reason, "irrevocable": irrevocable}
    return run, [Record("cancelled", None, facts)]


def _pause_asked(run: Run, event: ev.PauseAsked, _now: datetime) -> tuple[Run, list[Command]]:
    held = (move(s, Move.HOLD, parked_for=ParkedFor.PAUSE) for s in run.steps if s.state is _S.READY)
    record = Record("paused", None, {"actor": event.actor, "reason": event.reason})
    return replace(_with(run, *held), paused=True), [record]


def _resume_asked(run: Run, event: ev.ResumeAsked, _now: datetime) -> tuple[Run, list[Command]]:
    woken = (move(s, Move.WAKE) for s in run.steps if s.parked_for is ParkedFor.PAUSE)
    return replace(_with(run, *woken), paused=False), [Record("resumed", None, {"actor": event.actor})]


_HANDLERS: Final[Mapping[type, Callable[[Run, Any, datetime], tuple[Run, list[Command]]]]] = {
    ev.Finished: _fenced(_finished),
    ev.Parked: _fenced(_parked),
    ev.Failed: _fenced(_failed),
    ev.HandedBack: _fenced(_handed_back),
    ev.LeaseExpired: _fenced(_lease_expired),
    ev.GateDeclined: _gate_declined,
    ev.Woken: _woken,
    ev.Reported: _reported,
    ev.RetryAsked: _retry_asked,
    ev.SkipAsked: _skip_asked,
    ev.DoneAsked: _done_asked,
    ev.CancelAsked: _cancel_asked,
    ev.PauseAsked: _pause_asked,
    ev.ResumeAsked: _resume_asked,
}


# After every event. -------------------------------------------------------------------------------------------------


def _settle_down(before: Run, run: Run, commands: list[Command]) -> tuple[Run, tuple[Command, ...]]:
    """Release what may begin, drop what may not, ring for what became ready, close what is done."""
    if not run.open:
        return run, tuple(commands)
    run, more = (_drop(run), []) if run.stopping else _release(run)
    commands += more
    if run.paused:
        run = _with(run, *(move(s, Move.HOLD, parked_for=ParkedFor.PAUSE) for s in run.steps if s.state is _S.READY))
    # Nobody waits for a step that was dropped in the same breath.
    commands = [c for c in commands if not (_is_waiting(c) and run.steps[c.facts["ordinal"]].state is _S.DONE)]
    was = {s.ordinal for s in before.steps if s.state is _S.READY}
    ready = {s.system for s in run.steps if s.state is _S.READY and s.ordinal not in was}
    commands += [Ring(system) for system in sorted(ready)]
    if all(s.state is _S.DONE for s in run.steps):
        run = replace(run, resolution=run.stopping or _resolution(run.steps))
        facts = {"resolution": run.resolution, **({"reason": run.stop_reason} if run.stop_reason else {})}
        commands += [
            Announce(EventKind.COMPLETED),
            Record("closed", None, facts),
        ]
    return run, tuple(commands)


def _release(run: Run) -> tuple[Run, list[Command]]:
    commands: list[Command] = []
    while True:
        done = {s.ordinal for s in run.steps if s.state is _S.DONE}
        free = [s for s in run.steps if s.state is _S.WAITING and s.needs <= done]
        if not free:
            return run, commands
        for step in free:
            inherited = _inherited(run, step)
            if inherited is None:
                run = _with(run, move(step, Move.RELEASE))
            else:
                run = _with(run, move(step, Move.SETTLE, result=inherited))
                commands.append(_outcome(step, inherited))


def _inherited(run: Run, step: Step) -> Result | None:
    """A check of what was never done has nothing to look for: it ends as what it would check ended."""
    if step.action is not Action.VERIFY:
        return None
    idle = {Outcome.NO_MATCH, Outcome.UNSUPPORTED, Outcome.SKIPPED}
    checked = [run.steps[n].result for n in step.needs if run.steps[n].system == step.system]
    results = [r for r in checked if r is not None]
    if not results or any(r.outcome not in idle for r in results):
        return None
    return Result(results[0].outcome, note=results[0].note)


def _drop(run: Run) -> Run:
    live = [s for s in run.steps if s.state not in {_S.DONE, _S.RUNNING}]
    result = Result(Outcome.SKIPPED, note=f"the request was {run.stopping}")
    return _with(run, *(move(s, Move.SETTLE, result=result, handle=None, signal=None) for s in live))


def _resolution(steps: Iterable[Step]) -> Resolution:
    if any(s.result is not None and s.result.outcome in EXCEPTIONS for s in steps):
        return Resolution.COMPLETED_WITH_EXCEPTIONS
    return Resolution.COMPLETED


def _attention(step: Step) -> list[Command]:
    facts = {"failure": step.failure, "error": step.error}
    return [_waiting(step, "an operator"), Record("attention", step.ordinal, facts)]


def _waiting(step: Step, on: str) -> Announce:
    return Announce(EventKind.WAITING, {"ordinal": step.ordinal, "on": on})


def _is_waiting(command: Command) -> TypeGuard[Announce]:
    return isinstance(command, Announce) and command.kind is EventKind.WAITING


def _acted(step: Step) -> bool:
    return step.result is None or step.result.outcome not in {Outcome.NO_MATCH, Outcome.UNSUPPORTED, Outcome.SKIPPED}


def _outcome(step: Step, result: Result) -> Record:
    # The chain keeps this for ever: what is empty is left out.
    more = {"counts": dict(result.counts), "evidence": dict(result.evidence), "note": result.note}
    return Record("settled", step.ordinal, {"outcome": result.outcome, **{k: v for k, v in more.items() if v}})


def _step(run: Run, ordinal: int) -> Step:
    if not 0 <= ordinal < len(run.steps):
        raise Impossible(f"there is no step {ordinal}; there are 0 to {len(run.steps) - 1}")
    return run.steps[ordinal]


def _with(run: Run, *changed: Step) -> Run:
    if not changed:
        return run
    by_ordinal = {s.ordinal: s for s in changed}
    return replace(run, steps=tuple(by_ordinal.get(s.ordinal, s) for s in run.steps))
