"""What operators do to requests and systems. Every act is recorded under the operator's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args
from uuid import UUID

import click

from connectors.desk import Reason
from orchestrator.cli import output
from orchestrator.cli.common import actor_option, json_option, request_argument
from orchestrator.cli.doorbell import ring
from orchestrator.cli.engine import acted, found, opened
from orchestrator.core.commands import Record
from orchestrator.core.vocabulary import Failure
from orchestrator.errors import Conflict, NotFound
from orchestrator.runtime import Runtime
from orchestrator.stages.advance import Advanced
from orchestrator.store import queries, trail

_step = click.option("--step", type=click.IntRange(0), help="The step's number; see habeas show.")
_system = click.option("--system", help="A system instead of a request.")
_failure = click.option("--failure", type=click.Choice([f.value for f in Failure]), help="Only this class of failure.")
_all = click.option("--all", "all_", is_flag=True, help="All steps of the system that want attention.")
_message = click.option("--message", is_flag=True, help="REQUEST is the id of the message that asked.")
_perhaps_request = click.argument("request", metavar="[REQUEST]", required=False)


def _say(runtime: Runtime, what: str, actor: str, advanced: Advanced, as_json: bool, **facts: object) -> None:
    rung = ring(runtime, advanced.rings)
    acted(what, actor, **facts)
    closed = [str(id_) for id_ in advanced.closed]
    if as_json:
        output.emit({"done": what, **facts, "closed": closed, "rung": rung})
        return
    told = ", ".join(f"{k} {v}" for k, v in facts.items() if v not in {None, ""})
    click.echo(f"{what}: {told}" + ("; the request is closed" if closed else ""))


# Steps that want attention. -----------------------------------------------------------------------------------------


@click.command()
@_perhaps_request
@_message
@_step
@_system
@_failure
@_all
@actor_option
@json_option
def retry(
    request: str | None,
    message: bool,
    step: int | None,
    system: str | None,
    failure: str | None,
    all_: bool,
    actor: str,
    as_json: bool,
) -> None:
    """Try again now: one step, all of a request that want attention, or all of a system."""
    with opened() as runtime:
        operate = runtime.operate
        if system is not None:
            _whole_system(runtime, request, step, system, all_)
            advanced = operate.retry_all(system, actor, failure)
            _say(runtime, "retried", actor, advanced, as_json, system=system, steps=advanced.rings[system])
            return
        id_, ordinals = _steps_of(runtime, request, message, step, all_, failure)
        advanced = _each(ordinals, lambda n: operate.retry(id_, n, actor))
        _say(runtime, "retried", actor, advanced, as_json, request=str(id_), steps=_join(ordinals))


@click.command()
@_perhaps_request
@_message
@_step
@_system
@_failure
@_all
@click.option("--reason", required=True, help="Why; goes into the answer and the audit trail. No personal data.")
@actor_option
@json_option
def skip(
    request: str | None,
    message: bool,
    step: int | None,
    system: str | None,
    failure: str | None,
    all_: bool,
    reason: str,
    actor: str,
    as_json: bool,
) -> None:
    """Leave out: one step, all of a request that want attention, or all of a system."""
    with opened() as runtime:
        operate = runtime.operate
        if system is not None:
            _whole_system(runtime, request, step, system, all_)
            advanced = operate.skip_all(system, actor, reason, failure)
            _say(runtime, "skipped", actor, advanced, as_json, system=system)
            return
        id_, ordinals = _steps_of(runtime, request, message, step, all_, failure)
        advanced = _each(ordinals, lambda n: operate.skip(id_, n, actor, reason))
        _say(runtime, "skipped", actor, advanced, as_json, request=str(id_), steps=_join(ordinals))


@click.command()
@request_argument
@click.option("--step", type=click.IntRange(0), required=True, help="The step's number; see habeas show.")
@click.option("--evidence", required=True, help="How it is known that this was done. No personal data.")
@actor_option
@json_option
def done(request: str, message: bool, step: int, evidence: str, actor: str, as_json: bool) -> None:
    """Record that a step was carried out by hand."""
    with opened() as runtime:
        id_ = found(runtime, request, message=message)
        advanced = runtime.operate.done(id_, step, actor, evidence)
        _say(runtime, "done by hand", actor, advanced, as_json, request=str(id_), steps=step)


# Gates. -------------------------------------------------------------------------------------------------------------


@click.command()
@request_argument
@_step
@actor_option
@json_option
def approve(request: str, message: bool, step: int | None, actor: str, as_json: bool) -> None:
    """Say yes to what a request waits for: an identity verified, an approval given, a manual step done."""
    with opened() as runtime:
        id_ = found(runtime, request, message=message)
        advanced = runtime.operate.decide(id_, "approve", actor, ordinal=step)
        _say(runtime, "approved", actor, advanced, as_json, request=str(id_), steps=step)


@click.command()
@request_argument
@_step
@click.option("--reason", type=click.Choice(get_args(Reason)), help="As the Data Rights Protocol names them.")
@actor_option
@json_option
def decline(request: str, message: bool, step: int | None, reason: str | None, actor: str, as_json: bool) -> None:
    """Say no: the whole request ends, denied."""
    with opened() as runtime:
        id_ = found(runtime, request, message=message)
        advanced = runtime.operate.decide(id_, "decline", actor, reason or "", ordinal=step)
        _say(runtime, "declined", actor, advanced, as_json, request=str(id_), steps=step, reason=reason)


# Requests and systems as a whole. -----------------------------------------------------------------------------------


@click.command()
@request_argument
@click.option("--reason", required=True, help="Why; goes into the answer and the audit trail. No personal data.")
@actor_option
@json_option
def cancel(request: str, message: bool, reason: str, actor: str, as_json: bool) -> None:
    """Begin nothing more, and close when what runs has ended. What was done stays done."""
    with opened() as runtime:
        id_ = found(runtime, request, message=message)
        advanced = runtime.operate.cancel(id_, actor, reason)
        _say(runtime, "cancelled", actor, advanced, as_json, request=str(id_), reason=reason)


@click.command()
@_perhaps_request
@_message
@_system
@click.option("--reason", required=True, help="Why; shown by habeas why. No personal data.")
@actor_option
@json_option
def pause(request: str | None, message: bool, system: str | None, reason: str, actor: str, as_json: bool) -> None:
    """Begin nothing more, on a request or on a system, until it is resumed."""
    with opened() as runtime:
        if system is not None:
            _not_both(request)
            runtime.operate.pause_system(system, actor, reason)
            _note(runtime, system, "system paused", {"actor": actor, "reason": reason, "system": system})
            _say(runtime, "paused", actor, Advanced(), as_json, system=system, reason=reason)
            return
        id_ = found(runtime, _given(request), message=message)
        advanced = runtime.operate.pause(id_, actor, reason)
        _say(runtime, "paused", actor, advanced, as_json, request=str(id_), reason=reason)


@click.command()
@_perhaps_request
@_message
@_system
@actor_option
@json_option
def resume(request: str | None, message: bool, system: str | None, actor: str, as_json: bool) -> None:
    """Go on with a paused request, or with a system (its circuit breaker is closed too)."""
    with opened() as runtime:
        if system is not None:
            _not_both(request)
            advanced = runtime.operate.resume_system(system)
            _note(runtime, system, "system resumed", {"actor": actor, "system": system})
            _say(runtime, "resumed", actor, advanced, as_json, system=system)
            return
        id_ = found(runtime, _given(request), message=message)
        advanced = runtime.operate.resume(id_, actor)
        _say(runtime, "resumed", actor, advanced, as_json, request=str(id_))


# Shared. ------------------------------------------------------------------------------------------------------------


def _given(request: str | None) -> str:
    if request is None:
        raise click.UsageError("name a request, or a system with --system")
    return request


def _not_both(request: str | None) -> None:
    if request is not None:
        raise click.UsageError("name either a request or a system, not both")


def _whole_system(runtime: Runtime, request: str | None, step: int | None, system: str, all_: bool) -> None:
    _not_both(request)
    if step is not None or not all_:
        raise click.UsageError("with --system this concerns every step that wants attention: say so with --all")
    with runtime.database.transaction() as tx:
        if system not in queries.system_states(tx, [system]):
            raise NotFound(f"there is no system {system!r}")


def _steps_of(
    runtime: Runtime, request: str | None, message: bool, step: int | None, all_: bool, failure: str | None
) -> tuple[UUID, list[int]]:
    """The request, and which of its steps are meant."""
    if all_ or failure is not None:
        raise click.UsageError("--all and --failure belong to --system")
    id_ = found(runtime, _given(request), message=message)
    if step is not None:
        return id_, [step]
    with runtime.database.transaction() as tx:
        ordinals = queries.actionable(queries.detail(tx, id_).run)
    if not ordinals:
        raise Conflict("no step of this request wants attention; name one with --step")
    return id_, ordinals


def _each(ordinals: list[int], act: Callable[[int], Advanced]) -> Advanced:
    total = Advanced()
    for ordinal in ordinals:
        total.add(act(ordinal))
    return total


def _join(ordinals: list[int]) -> str:
    return ", ".join(str(n) for n in ordinals)


def _note(runtime: Runtime, system: str, what: str, facts: dict[str, str]) -> None:
    with runtime.database.transaction() as tx:
        trail.note_thing(tx, trail.thing("system", system), Record(what, None, facts))
