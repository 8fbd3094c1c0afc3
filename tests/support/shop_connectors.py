"""The demo shop's systems file, carried out by hand: connectors called directly, without the engine."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import yaml

from connectors import registry
from connectors.contract import Action, Connector, Done, Identity, Result, Task
from examples.shop.people import Request
from examples.shop.world import SYSTEMS, Shop

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

ACTIONS = {
    "access": Action.ACCESS,
    "portability": Action.ACCESS,
    "rectification": Action.RECTIFY,
    "erasure": Action.ERASE,
    "restriction": Action.RESTRICT,
    "objection": Action.SUPPRESS,
}
"""What each right asks of a system."""


@dataclass
class Gathered:
    """A sink that keeps records."""

    records: dict[str, list[Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        self.records[collection].append(record)

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        records = [json.loads(line) for line in lines.decode().removesuffix("\n").split("\n")]
        assert lines.endswith(b"\n")
        assert len(records) == count
        for record in records:
            self.write(collection, record)

    def attach(self, name: str, chunks: Any) -> None:
        self.records[name] = list(chunks)


@dataclass
class DirectCall:
    """What the engine would lend a connector."""

    now: datetime = NOW
    sinks: dict[str, Gathered] = field(default_factory=lambda: defaultdict(Gathered))

    def sink(self, task: Task) -> Gathered:
        return self.sinks[task.key]


def _with_secrets(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"env"}:
            return environment[value["env"]]
        return {name: _with_secrets(item, environment) for name, item in value.items()}
    return [_with_secrets(item, environment) for item in value] if isinstance(value, list) else value


def entries() -> list[dict[str, Any]]:
    """The systems as the file has them."""
    systems: list[dict[str, Any]] = yaml.safe_load(SYSTEMS.read_text())["systems"]
    return systems


@contextmanager
def connected(shop: Shop) -> Iterator[dict[str, Connector[Any]]]:
    """The shop's systems, by name, in the order in which they are erased."""
    made: dict[str, Connector[Any]] = {}
    for entry in sorted(entries(), key=lambda entry: len(entry.get("erase_after", ()))):
        kind = registry.load(entry["connector"])
        config = _with_secrets(entry["config"], shop.environment())
        settings = kind.Config.model_validate(config, context={"directory": SYSTEMS.parent})
        made[entry["name"]] = kind(entry["name"], settings)
    try:
        yield made
    finally:
        for connector in made.values():
            connector.close()


def can(system: str, action: Action, connector: Connector[Any]) -> bool:
    """Whether the file and the connector say so."""
    entry = next(entry for entry in entries() if entry["name"] == system)
    return action in connector.supports() and action.value not in entry.get("cannot", {})


def perform(connector: Connector[Any], action: Action, tasks: Sequence[Task], call: DirectCall) -> dict[str, Done]:
    """Results by task; anything but an end is an error of the test."""
    wanted = [replace(task, action=action) for task in tasks]
    results: dict[str, Result] = {task.key: result for task, result in connector.perform(action, wanted, call)}
    ended = {key: result for key, result in results.items() if isinstance(result, Done)}
    assert ended.keys() == results.keys(), [result for result in results.values() if not isinstance(result, Done)]
    return ended


def tasks_of(requests: Sequence[Request]) -> list[Task]:
    """One task for each request, with what it brings."""
    return [
        Task(
            key=f"{request.id}/1",
            action=ACTIONS[request.right],
            identities=tuple(Identity(kind, value) for kind, value in request.identities),
            corrections=dict(request.corrections),
            purposes=request.purposes,
        )
        for request in requests
    ]


def discovered(connectors: Mapping[str, Connector[Any]], tasks: Sequence[Task], call: DirectCall) -> list[Task]:
    """The tasks with every identity that the user database, which knows them all, finds."""
    found = perform(connectors["users"], Action.DISCOVER, tasks, call)
    return [
        replace(task, identities=tuple(dict.fromkeys((*task.identities, *found[task.key].found)))) for task in tasks
    ]


def carry_out(connectors: Mapping[str, Connector[Any]], requests: Sequence[Request]) -> None:
    """Every request in every system that can, in batches, and looked up afterwards."""
    call = DirectCall()
    tasks = discovered(connectors, tasks_of(requests), call)
    for name, connector in connectors.items():
        for action in dict.fromkeys(ACTIONS.values()):
            mine = [task for task in tasks if task.action is action]
            if not mine or not can(name, action, connector):
                continue
            perform(connector, action, mine, call)
            if action is not Action.ACCESS:
                looks = [replace(task, key=f"{task.key}v", options={"of": action.value}) for task in mine]
                perform(connector, Action.VERIFY, looks, call)
