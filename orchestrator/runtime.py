"""The composition root: builds everything once, from settings and definitions, and nothing before it is needed."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from connectors.contract import Connector
from connectors.desk import Desk, DeskConfig
from orchestrator.core.planner import DESK, PACKAGER
from orchestrator.definitions import loader
from orchestrator.definitions.loader import Definitions
from orchestrator.errors import ConfigurationError, Fault
from orchestrator.messages.signing import Secret
from orchestrator.messages.sources import Sources
from orchestrator.privacy.audit import Checkpoints
from orchestrator.privacy.ledger import Ledger
from orchestrator.privacy.vault import MasterKeys, Vault
from orchestrator.settings import Settings
from orchestrator.stages.advance import Advance
from orchestrator.stages.answers import Answers
from orchestrator.stages.execute import Execute
from orchestrator.stages.heartbeat import Heartbeat
from orchestrator.stages.holds import Holds
from orchestrator.stages.intake import Intake
from orchestrator.stages.operate import Operate
from orchestrator.stages.package import Packager
from orchestrator.stages.planning import Planner
from orchestrator.stages.quarantine import Quarantine
from orchestrator.stages.secrets import Secrets
from orchestrator.stages.settle import Settle
from orchestrator.stages.sweep import Keep, Sweep
from orchestrator.store import systems
from orchestrator.store.database import Database


@dataclass(frozen=True)
class Runtime:
    """Everything a process needs, each part built when first asked for."""

    settings: Settings
    name: str = "habeas"
    """Shown in ``pg_stat_activity``."""

    @cached_property
    def database(self) -> Database:
        """The truth."""
        return Database(self.settings.database_url.get_secret_value(), pool=self.settings.database_pool, name=self.name)

    @cached_property
    def masters(self) -> MasterKeys:
        """The master keys. Raises ``ConfigurationError``."""
        text = self.settings.master_key.get_secret_value()
        if not text:
            hint = "is not set; make one with: habeas new-key"
            raise ConfigurationError("", [Fault(hint, field="HABEAS_MASTER_KEY")])
        return MasterKeys.parse(text)

    @cached_property
    def vault(self) -> Vault:
        """Seals."""
        return Vault(self.masters)

    @cached_property
    def ledger(self) -> Ledger:
        """Keyed hashes."""
        return Ledger(self.masters)

    @cached_property
    def packager(self) -> Packager:
        """The engine's own system for packages."""
        return Packager(self.database, self.settings.artifacts)

    @cached_property
    def builtin(self) -> dict[str, Connector[Any]]:
        """The engine's own systems."""
        return {DESK: Desk(DESK, DeskConfig()), PACKAGER: self.packager}

    @cached_property
    def definitions(self) -> Definitions:
        """Workflows, systems, clocks, categories. Raises ``ConfigurationError`` with all faults."""
        definitions = loader.load(
            self.settings.workflows, self.settings.systems, self.settings.lookup(), builtin=self.builtin
        )
        self.packager.systems = definitions.systems
        if self.settings.default_regulation not in definitions.clocks:
            known = ", ".join(sorted(definitions.clocks))
            hint = f"names no regulation that is defined; there are: {known}"
            raise ConfigurationError("", [Fault(hint, field="HABEAS_DEFAULT_REGULATION")])
        return definitions

    @cached_property
    def sources(self) -> Sources:
        """Who may ask. Raises ``ConfigurationError`` with all faults."""
        return loader.load_sources(self.settings.sources, self.settings.lookup())

    @cached_property
    def planner(self) -> Planner:
        """Plans."""
        return Planner(self.definitions, self.settings.default_regulation)

    @cached_property
    def secrets(self) -> Secrets:
        """The sealed facts of requests."""
        return Secrets(self.vault, self.ledger)

    @cached_property
    def answers(self) -> Answers:
        """What upstream services are told."""
        secret = self.settings.event_secret.get_secret_value()
        return Answers(self.settings.event_source, [Secret(secret)] if secret else [])

    @cached_property
    def advance(self) -> Advance:
        """The core on stored runs."""
        return Advance(self.answers, self.secrets)

    @cached_property
    def quarantine(self) -> Quarantine:
        """Refused messages."""
        return Quarantine(self.vault)

    @cached_property
    def holds(self) -> Holds:
        """Legal holds."""
        return Holds(self.ledger)

    @cached_property
    def heartbeat(self) -> Heartbeat:
        """Keeps this process's leases."""
        return Heartbeat(self.database, timedelta(seconds=self.settings.lease_seconds))

    @cached_property
    def intake(self) -> Intake:
        """The intake stage."""
        return Intake(
            self.database,
            self.sources,
            self.planner,
            self.secrets,
            self.ledger,
            self.answers,
            self.quarantine,
            self.settings.max_message_bytes,
        )

    @cached_property
    def settle(self) -> Settle:
        """The settle stage."""
        return Settle(self.database, self.advance)

    @cached_property
    def execute(self) -> Execute:
        """The execute stage."""
        return Execute(
            self.database,
            self.definitions.systems,
            self.definitions.connectors,
            self.secrets,
            self.holds,
            self.settle,
            self.heartbeat,
            self.settings.artifacts,
            self.settings.claim_batch,
        )

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep stage."""
        keep = Keep(
            outbox=timedelta(days=self.settings.outbox_keep_days),
            quarantine=timedelta(days=self.settings.quarantine_keep_days),
            steps=timedelta(days=self.settings.steps_keep_days),
        )
        checkpoints = Checkpoints(self.masters)
        systems_ = self.definitions.systems
        return Sweep(self.database, systems_, self.advance, checkpoints, self.settings.artifacts, keep)

    @cached_property
    def operate(self) -> Operate:
        """Operators' hands."""
        return Operate(self.database, self.advance)

    def register_systems(self) -> None:
        """Give each configured system its row of shared state. Raises ``Unavailable``."""
        with self.database.transaction() as tx:
            systems.register(tx, self.definitions.systems)

    def after_fork(self) -> None:
        """In a child process: drop connections that belong to the parent, and collect garbage less eagerly."""
        self.database.forget()
        self.collect_less()

    @staticmethod
    def collect_less() -> None:
        """Collect garbage less eagerly: once what stays is loaded, in a process that works by the batch.

        A batch makes and drops some hundred thousand values without a cycle among them; looking for cycles at every
        700th took a quarter of a worker's time.
        """
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)

    def close(self) -> None:
        """Let go of connections, ours and the connectors'."""
        if "definitions" in self.__dict__:
            for connector in self.definitions.connectors.values():
                connector.close()
        if "database" in self.__dict__:
            self.database.close()
