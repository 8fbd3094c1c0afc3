"""What the base class does for a connector that knows one person at a time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connectors import registry
from connectors.contract import Action, Connector, ConnectorConfig, Done, Identity, Outcome, Retryable, Sink, Task
from orchestrator.definitions.loader import load
from tests.support.worlds import write

WORKFLOWS = Path(__file__).parents[3] / "workflows"
TOGETHER = 40


class Meeting(Connector[ConnectorConfig]):
    """Nobody is done before so many are there."""

    Config = ConnectorConfig
    barrier = threading.Barrier(TOGETHER, timeout=30)

    def categories(self):
        return frozenset({"user"})

    def identified_by(self):
        return frozenset({"email"})

    def access(self, task, call):
        self.barrier.wait()
        return Done(Outcome.EXECUTED)


class Call:
    now = datetime(2026, 11, 1, tzinfo=UTC)

    def sink(self, task: Task) -> Sink:
        raise NotImplementedError


def people(number: int) -> list[Task]:
    return [Task(f"r/{n}", Action.ACCESS, (Identity("email", f"p{n}@people.example"),)) for n in range(number)]


def test_as_many_people_are_worked_on_at_once_as_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", lambda name: Meeting)
    cannot = dict.fromkeys(("rectify", "erase", "restrict", "suppress"), "not here")
    entry = {"name": "crm", "connector": "meeting", "parallel": TOGETHER, "cannot": cannot}
    systems = write(tmp_path / "systems.yaml", {"systems": [entry]})
    (tmp_path / "workflows").mkdir()
    write(tmp_path / "workflows" / "regulations.yaml", {"regulations": {"gdpr": {"months": 1}}})
    write(tmp_path / "workflows" / "categories.yaml", {"categories": {"all": ["user"]}})
    connector = load(tmp_path / "workflows", systems, builtin={}).connectors["crm"]
    results = list(connector.perform(Action.ACCESS, people(TOGETHER), Call()))
    assert len(results) == TOGETHER
    assert all(result == Done(Outcome.EXECUTED) for _, result in results)


def test_who_is_done_is_told_before_those_who_take_longer() -> None:
    slow = threading.Event()

    class Crm(Connector[ConnectorConfig]):
        def access(self, task, call):
            if task.key == "r/0":
                assert slow.wait(30)
                raise Retryable
            return Done(Outcome.EXECUTED)

    results = Crm("crm", ConnectorConfig()).perform(Action.ACCESS, people(5), Call())
    first = [next(results)[0].key for _ in range(4)]
    slow.set()
    [(last, failed)] = list(results)
    assert sorted(first) == ["r/1", "r/2", "r/3", "r/4"]
    assert last.key == "r/0"
    assert isinstance(failed, Retryable)
