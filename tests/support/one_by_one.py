"""A connector that calls its system for each person, and remembers whom, in order."""

from __future__ import annotations

from collections.abc import Callable

from connectors.contract import Call, Connector, ConnectorConfig, Done, Outcome, Task


class OneByOne(Connector[ConnectorConfig]):
    """Everything succeeds."""

    Config = ConnectorConfig
    parallel = 1

    def __init__(self, system: str, config: ConnectorConfig) -> None:
        super().__init__(system, config)
        self.called: list[str] = []
        self.during: Callable[[int], None] = lambda _: None
        """Called in the middle of every call, with how many there were."""

    def categories(self) -> frozenset[str]:
        return frozenset({"user"})

    def identified_by(self) -> frozenset[str]:
        return frozenset({"email"})

    def erase(self, task: Task, _call: Call) -> Done:
        self.called += task.values("email")
        self.during(len(self.called))
        return Done(Outcome.EXECUTED, {"people": 1})
