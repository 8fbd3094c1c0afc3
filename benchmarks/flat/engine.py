"""The whole engine in this process, on one database: messages in at one end, closed requests out at the other.

No broker: what is measured is what grows with the database, and a broker's queues do not. Each stage is called as its
process calls it; the relay reads and marks the outbox as always, and publishes to nowhere.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from sqlalchemy import text

from benchmarks.figures import WrongResult
from orchestrator.broker import tasks
from orchestrator.broker.bell import Bell
from orchestrator.broker.relay import Relay
from orchestrator.messages.envelope import Delivery
from orchestrator.messages.names import REQUEST_TYPE
from orchestrator.privacy.vault import MasterKeys
from orchestrator.runtime import Runtime
from orchestrator.settings import Settings
from orchestrator.store import migrate

SOURCE = "urn:shop:accounts"
SHIPPED = Path(__file__).parents[2] / "workflows"
MASTER = MasterKeys.generate("flat")
NOOP = "benchmarks.noop:Noop"
STEPS = 6
"""Of a request: discover, three erasures side by side, one in the system that others are found by, one after it."""
INTAKE, CLAIM = 200, 300
"""Messages admitted, and steps claimed, at once."""
RIGHT = "erasure"


class Nowhere(Relay):
    """The relay without a broker."""

    def _send(self, rows: Sequence[Any]) -> None:
        """To nobody."""


class _Rung(Bell):
    """Doorbells that nobody has answered yet, each of them once."""

    def __init__(self, systems: Iterable[str]) -> None:
        self.systems = dict.fromkeys(systems)

    def ring(self, systems: Mapping[str, int]) -> None:
        self.systems.update(dict.fromkeys(systems))


class Engine:
    """A deployment of systems that do nothing, worked on by this process."""

    def __init__(self, url: str, folder: Path) -> None:
        """``url``: an empty database, or one that another engine of this run has used."""
        self.runtime = Runtime(_settings(url, folder), "habeas flat")
        self.relay = Nowhere(self.runtime.settings, self.runtime.database)
        migrate.upgrade(self.runtime.database)
        self.runtime.register_systems()
        self.runtime.after_fork()  # a worker is a forked child, and collects garbage as one

    def admit(self, deliveries: Sequence[Delivery]) -> list[UUID]:
        """Hand messages to intake, a batch at a time."""
        ids: list[UUID] = []
        for start in range(0, len(deliveries), INTAKE):
            admitted = self.runtime.intake.admit(deliveries[start : start + INTAKE])
            ids += admitted.accepted
        if len(ids) != len(deliveries):
            raise WrongResult(f"{len(ids)} of {len(deliveries)} messages were accepted")
        return ids

    def drain(self) -> None:
        """Answer doorbells as a worker of all systems does until nothing rings; then publish."""
        served = sorted(self.runtime.definitions.systems)
        bell = _Rung(served)
        while bell.systems:
            system = next(iter(bell.systems))
            del bell.systems[system]
            tasks.answer(self.runtime, bell, system, served)
        self.relay.publish()

    def closed(self, ids: Sequence[UUID]) -> None:
        """Raises ``WrongResult`` unless all of them closed as completed, every step executed."""
        rows = self.rows(
            "SELECT count(*) FROM request WHERE id = ANY(:ids) AND resolution = 'completed' AND audit_seq > :steps",
            ids=list(ids),
            steps=STEPS,
        )
        if rows[0][0] != len(ids):
            raise WrongResult(f"{rows[0][0]} of {len(ids)} requests were completed")

    def close(self) -> None:
        """Let go of connections."""
        self.runtime.close()

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """What a query finds."""
        with self.runtime.database.transaction() as tx:
            result = tx.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    @contextmanager
    def autocommit(self) -> Iterator[Any]:
        """A connection on which each statement is its own transaction."""
        with self.runtime.database.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")


def messages(number: int, *, verified: bool = True) -> list[Delivery]:
    """Erasure requests of as many people. ``verified``: their source vouches for them, so that nobody need be asked."""
    return [_message(f"{secrets.token_hex(6)}@example.org", verified=verified) for _ in range(number)]


def _message(person: str, *, verified: bool) -> Delivery:
    body: dict[str, Any] = {"right": RIGHT, "subject": {"identities": [{"type": "email", "value": person}]}}
    if verified:
        body["verification"] = {"method": "login", "verified_at": "2026-01-01T00:00:00Z"}
    envelope = {
        "specversion": "1.0",
        "id": secrets.token_hex(16),
        "source": SOURCE,
        "type": REQUEST_TYPE,
        "datacontenttype": "application/json",
        "data": body,
    }
    return Delivery(json.dumps(envelope).encode(), datetime.now(UTC), "application/cloudevents+json", {})


def _settings(url: str, folder: Path) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    workflows = folder / "workflows"
    if not workflows.exists():
        shutil.copytree(SHIPPED, workflows, ignore=shutil.ignore_patterns("schemas", "*.md"))
        _write(workflows / "categories.yaml", {"categories": {"everything": ["user"]}})
        _write(workflows / "erasure.yaml", _WORKFLOW)
        source = {"source": SOURCE, "unsigned": "allowed", "trusted_to_verify": True, "regulation": "gdpr"}
        _write(folder / "sources.yaml", {"sources": [source]})
        _write(folder / "systems.yaml", {"systems": _SYSTEMS})
    return Settings.model_validate(
        {
            "database_url": url,
            "master_key": MASTER,
            "systems": folder / "systems.yaml",
            "sources": folder / "sources.yaml",
            "workflows": workflows,
            "artifacts": folder / "artifacts",
            "claim_batch": CLAIM,
            "intake_batch": INTAKE,
        }
    )


def _write(path: Path, data: Any) -> None:
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


_WORKFLOW = {
    "workflow": RIGHT,
    "version": 1,
    "right": RIGHT,
    "keep_days": 30,
    "steps": [
        {
            "id": "identity",
            "gate": "identity_verification",
            "unless_verified": True,
            "with": {"by": "the data subject", "expires_after": 2592000},
        },
        {"id": "discover", "action": "discover", "needs": ["identity"]},
        {"id": "erase", "action": "erase", "needs": ["identity", "discover"]},
    ],
}


def _system(name: str, identified_by: str, discovers: tuple[str, ...] = (), **entry: Any) -> dict[str, Any]:
    config = {"identified_by": [identified_by], "discovers": list(discovers)}
    cannot = dict.fromkeys(("access", "rectify", "restrict", "suppress"), "not in this benchmark")
    return {"name": name, "connector": NOOP, "cannot": cannot, "config": config, **entry}


_SYSTEMS = [
    _system("users", "email", ("user_id",)),
    *(_system(name, "user_id") for name in ("crm", "mail", "shop")),
    _system("archive", "email", erase_after=["users"]),
]
