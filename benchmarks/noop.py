"""A connector that does nothing, at once: what is left is the engine."""

from __future__ import annotations

from collections.abc import Sequence

from connectors.contract import Action, Call, Connector, ConnectorConfig, Done, Identity, Outcome, Results, Task


class NoopConfig(ConnectorConfig):
    """What the system pretends to hold."""

    categories: frozenset[str] = frozenset({"user"})
    identified_by: frozenset[str] = frozenset({"email"})
    discovers: frozenset[str] = frozenset()


class Noop(Connector[NoopConfig]):
    """Answers every batch at once."""

    Config = NoopConfig
    batch = 1000

    def supports(self) -> frozenset[Action]:
        """Discovery only where something is configured to be found."""
        actions = self.actions()
        return actions if self.config.discovers else actions - {Action.DISCOVER}

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
        """Nothing, successfully; for people found the way that was configured."""
        known = {t.key: bool(self.config.identified_by & {i.type for i in t.identities}) for t in tasks}
        done, unknown = Done(Outcome.EXECUTED, counts={"rows": 1}), Done(Outcome.NO_MATCH)
        return {key: done if found else unknown for key, found in known.items()}

    def verify_many(self, tasks: Sequence[Task], _call: Call) -> Results:
        """Looks nowhere, and finds all well."""
        return {t.key: Done(Outcome.VERIFIED) for t in tasks}
