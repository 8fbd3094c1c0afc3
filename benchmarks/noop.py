"""A connector that does nothing, at once: what is left is the engine."""

from __future__ import annotations

from collections.abc import Sequence

from connectors.contract import Call, Connector, ConnectorConfig, Done, Identity, Outcome, Results, Task


class NoopConfig(ConnectorConfig):
    """What the system pretends to hold."""

    categories: frozenset[str] = frozenset({"user"})
    identified_by: frozenset[str] = frozenset({"email"})
    discovers: frozenset[str] = frozenset()


class Noop(Connector[NoopConfig]):
    """Answers every batch at once."""

    Config = NoopConfig
    batch = 1000

    def supports(self) -> frozenset:  # type: ignore[type-arg]
        """Discovery only where something is configured to be found."""
        actions = self.actions()
        return actions if self.config.discovers else actions - {"discover"}

    def categories(self) -> frozenset[str]:
        """As configured."""
        return self.config.categories

    def identified_by(self) -> frozenset[str]:
        """As configured."""
        return self.config.identified_by

    def discovers(self) -> frozenset[str]:
        """As configured."""
        return self.config.discovers

    def discover_many(self, tasks: Sequence[Task], _call: Call) -> Results:
        """One identity for each person."""
        kind = next(iter(self.config.discovers), "user_id")
        return {t.key: Done(Outcome.EXECUTED, found=(Identity(kind, f"u-{t.key}"),)) for t in tasks}

    def erase_many(self, tasks: Sequence[Task], _call: Call) -> Results:
        """Nothing, successfully."""
        return {t.key: Done(Outcome.EXECUTED, counts={"rows": 1}) for t in tasks}
