"""Small runs and systems for tests of the pure core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core import events as ev
from orchestrator.core import machine
from orchestrator.core.commands import Command
from orchestrator.core.model import Ask, Clock, Plan, Result, Run, Step, StepTemplate, System, Workflow
from orchestrator.core.planner import plan
from orchestrator.core.transitions import Move, move
from orchestrator.core.vocabulary import Action, Outcome, Right, StepState

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
GDPR = Clock("gdpr", months=1, extension_months=2)
CHANGES = (Action.RECTIFY, Action.ERASE, Action.RESTRICT, Action.SUPPRESS)
ALL = frozenset(a for a in Action if a not in {Action.GATE, Action.PACKAGE})


def a_system(name: str, **more: Any) -> System:
    """A system that can do everything and finds people by e-mail."""
    values: dict[str, Any] = {
        "connector": "scripted",
        "actions": ALL,
        "categories": frozenset({"user"}),
        "identified_by": frozenset({"email"}),
    }
    sets = {"identified_by", "discovers", "erase_after", "categories", "actions"}
    return System(name, **{**values, **{k: frozenset(v) if k in sets else v for k, v in more.items()}})


def a_workflow(*steps: StepTemplate, right: Right = Right.ERASURE, **more: Any) -> Workflow:
    """A workflow of these entries."""
    return Workflow(str(right), 1, right, steps, **more)


def an_ask(right: Right = Right.ERASURE, **more: Any) -> Ask:
    """Somebody known by e-mail asks."""
    values = {"regulation": "gdpr", "source": "s", "received_at": NOW, "identity_types": frozenset({"email"})}
    return Ask(right, **{**values, **more})


def planned(systems: Iterable[System], /, *steps: StepTemplate, **ask: Any) -> Plan:
    """The plan of these entries on these systems."""
    return plan(an_ask(**ask), a_workflow(*steps), {s.name: s for s in systems}, GDPR)


def table(of: Plan) -> Mapping[str, set[str]]:
    """``name@system`` → what it waits for, by the same names."""
    label = {s.ordinal: f"{s.name}@{s.system}" for s in of.steps}
    return {label[s.ordinal]: {label[n] for n in s.needs} for s in of.steps}


def a_run(*steps: Step, **more: Any) -> Run:
    """A run of these steps, begun."""
    return machine.begin(Run(UUID(int=1), Right.ERASURE, steps, NOW + timedelta(days=30), **more))[0]


def a_step(ordinal: int = 0, **more: Any) -> Step:
    """A waiting step."""
    values = {"name": f"s{ordinal}", "system": "crm", "action": Action.ERASE, "state": StepState.WAITING, **more}
    return Step(ordinal, **values)


def claimed(run: Run, ordinal: int, token: UUID) -> Run:
    """The run with a step claimed, as the store's statement does it."""
    step = move(run.steps[ordinal], Move.CLAIM, token=token, attempt=run.steps[ordinal].attempt + 1)
    return machine._with(run, step)


def finish(run: Run, ordinal: int, outcome: Outcome = Outcome.EXECUTED) -> tuple[Run, tuple[Command, ...]]:
    """Claim a step and let it end."""
    token = UUID(int=1000 + ordinal)
    return machine.advance(claimed(run, ordinal, token), ev.Finished(ordinal, token, Result(outcome)), NOW)
