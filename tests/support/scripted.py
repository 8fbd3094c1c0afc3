"""A connector whose behaviour a test writes down, person by person, and which remembers every call and every effect."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from connectors.contract import (
    Action,
    Call,
    Connector,
    ConnectorConfig,
    ConnectorError,
    Done,
    Identity,
    Outcome,
    Result,
    Results,
    Task,
)

NAME = "scripted"
TARGET = ("tests.support.scripted:Scripted", "")
"""What ``connectors.registry.BUILT_IN`` holds for it while a test runs."""

Behaviour = Result | Exception | Callable[[Task, Call], Result]

ALL = ("discover", "access", "rectify", "erase", "restrict", "suppress", "verify")
CHANGES = frozenset({Action.RECTIFY, Action.ERASE, Action.RESTRICT, Action.SUPPRESS})


class ScriptedConfig(ConnectorConfig):
    """What the system says of itself."""

    actions: tuple[Action, ...] = tuple(Action(a) for a in ALL)
    categories: frozenset[str] = frozenset({"user"})
    identified_by: frozenset[str] = frozenset({"email"})
    discovers: frozenset[str] = frozenset()


class Scripted(Connector[ScriptedConfig]):
    """Does as it was told; by default everything succeeds."""

    Config = ScriptedConfig

    def __init__(self, system: str, config: ScriptedConfig) -> None:
        super().__init__(system, config)
        self.calls: list[tuple[Task, ...]] = []
        """Every batch that came, in order."""
        self.effects: Counter[str] = Counter()
        """``Task.key`` → how often the system was changed for it; an idempotent system would take each once."""
        self.script: dict[str, deque[Behaviour]] = {}
        self.during: Callable[[Sequence[Task]], None] = lambda _: None
        """Called in the middle of every call."""

    def on(self, person: str, *behaviours: Behaviour) -> None:
        """What happens, call by call, to the person with this identity value; afterwards the default again."""
        self.script.setdefault(person, deque()).extend(behaviours)

    def people(self) -> list[set[str]]:
        """Who was in each batch, by all values known."""
        return [{i.value for t in batch for i in t.identities} for batch in self.calls]

    def supports(self) -> frozenset[Action]:
        return frozenset(self.config.actions)

    def categories(self) -> frozenset[str]:
        return self.config.categories

    def identified_by(self) -> frozenset[str]:
        return self.config.identified_by

    def discovers(self) -> frozenset[str]:
        return self.config.discovers

    def _many(self, tasks: Sequence[Task], call: Call) -> Results:
        self.calls.append(tuple(tasks))
        self.during(tasks)
        return {task.key: self._one(task, call) for task in tasks}

    discover_many = access_many = rectify_many = erase_many = restrict_many = suppress_many = verify_many = _many

    def _one(self, task: Task, call: Call) -> Result:
        for identity in task.identities:
            waiting = self.script.get(identity.value)
            if waiting:
                behaviour = waiting.popleft()
                if isinstance(behaviour, ConnectorError):
                    return behaviour
                if isinstance(behaviour, Exception):
                    raise behaviour
                return behaviour(task, call) if callable(behaviour) else behaviour
        return self.default(task, call)

    def default(self, task: Task, call: Call) -> Result:
        """Success, with the effect noted."""
        if task.action in CHANGES:
            self.effects[task.key] += 1
            return Done(Outcome.EXECUTED, counts={"rows": 1})
        if task.action is Action.ACCESS:
            call.sink(task).write("rows", {"who": task.identities[0].value})
            return Done(Outcome.EXECUTED, counts={"rows": 1})
        if task.action is Action.DISCOVER:
            found = [Identity(kind, f"{kind}-of-{task.identities[0].value}") for kind in sorted(self.config.discovers)]
            return Done(Outcome.EXECUTED, found=tuple(found))
        return Done(Outcome.VERIFIED)


def system(
    name: str,
    *,
    actions: Iterable[str] = ALL,
    discovers: Iterable[str] = (),
    identified_by: Iterable[str] = ("email",),
    categories: Iterable[str] = ("user",),
    **entry: Any,
) -> Mapping[str, Any]:
    """An entry of a systems file. What it can't do, it gives a reason for."""
    actions = tuple(actions)
    cannot = {a: f"{name} has no way to {a}" for a in ALL if a not in actions and a not in {"discover", "verify"}}
    config = {
        "actions": list(actions),
        "discovers": list(discovers),
        "identified_by": list(identified_by),
        "categories": list(categories),
    }
    return {"name": name, "connector": NAME, "cannot": cannot, "config": config, **entry}
