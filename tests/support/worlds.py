"""A whole engine in one process on a real database, with scripted systems. Conftests import the fixtures from here."""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import yaml
from psycopg import sql
from sqlalchemy import make_url, text

from connectors import registry
from orchestrator.messages.envelope import Delivery
from orchestrator.messages.names import REQUEST_TYPE
from orchestrator.privacy import audit as chain
from orchestrator.privacy.vault import MasterKeys
from orchestrator.runtime import Runtime
from orchestrator.settings import Settings
from orchestrator.stages.advance import Advanced, Happening
from orchestrator.stages.intake import Admitted
from orchestrator.stages.settle import Said
from orchestrator.store import migrate, runs
from orchestrator.store.database import Database
from tests.support import scripted
from tests.support.scripted import Scripted

SHIPPED = Path(__file__).parents[2] / "workflows"
SOURCE = "urn:test:accounts"
MASTER = MasterKeys.generate("test")
VERIFIED = {"method": "login", "verified_at": "2026-01-01T00:00:00Z"}

ONE_STEP = {
    "workflow": "erasure",
    "version": 1,
    "right": "erasure",
    "steps": [{"id": "erase", "action": "erase"}],
}
"""A workflow of one action, for tests that are about a single step."""

Yaml = Mapping[str, Any]


class World:
    """The engine, its database and its scripted systems."""

    def __init__(
        self, url: str, folder: Path, systems: Sequence[Yaml], workflows: Sequence[Yaml] = (), **settings: Any
    ) -> None:
        """``workflows`` replace the shipped ones of the same right."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(SHIPPED, folder / "workflows", ignore=shutil.ignore_patterns("schemas", "*.md"))
        write(folder / "workflows" / "categories.yaml", {"categories": {"everything": ["user"]}})
        for flow in workflows:
            write(folder / "workflows" / f"{flow['right']}.yaml", flow)
        write(folder / "systems.yaml", {"systems": list(systems)})
        known = {"source": SOURCE, "unsigned": "allowed", "trusted_to_verify": True, "regulation": "gdpr"}
        write(folder / "sources.yaml", {"sources": [known]})
        self.folder = folder
        values = {
            "database_url": url,
            "master_key": MASTER,
            "systems": folder / "systems.yaml",
            "sources": folder / "sources.yaml",
            "workflows": folder / "workflows",
            "artifacts": folder / "artifacts",
        }
        self.settings = Settings.model_validate({**values, **settings})
        self.runtime = self.another()
        self.runtime.register_systems()

    def another(self) -> Runtime:
        """One more runtime on the same deployment: as another process would have it, but with connectors of its own."""
        return Runtime(self.settings, "habeas test")

    def connector(self, name: str) -> Scripted:
        """A scripted system."""
        connector = self.runtime.definitions.connectors[name]
        assert isinstance(connector, Scripted)
        return connector

    # In. -------------------------------------------------------------------------------------------------------------

    def admit(self, *deliveries: Delivery) -> Admitted:
        """Hand messages to the intake stage."""
        return self.runtime.intake.admit(deliveries)

    def ask(self, right: str, person: str, **more: Any) -> UUID:
        """Admit one request that brings its verification; its id."""
        admitted = self.admit(delivery(right, person, **more))
        assert admitted.refused == []
        return admitted.accepted[0]

    # On. -------------------------------------------------------------------------------------------------------------

    def work(self, *systems: str, rounds: int = 50) -> Advanced:
        """Work on these systems (all, when none is named) until there is nothing ready that may be claimed."""
        total = Advanced()
        for _ in range(rounds):
            worked = [self.runtime.execute.work(s) for s in systems or self.runtime.definitions.systems]
            for one in worked:
                total.add(one.advanced)
            if not any(one.claimed for one in worked):
                return total
        raise AssertionError(f"still work after {rounds} rounds")

    def tick(self) -> Advanced:
        """One round of the clock."""
        return self.runtime.sweep.tick()

    def later(self, time: timedelta) -> None:
        """Let time pass, by moving everything that is written down as a time to the past."""
        with self.runtime.database.transaction() as tx:
            for table, columns in _TIMES.items():
                moves = ", ".join(f"{c} = {c} - :time" for c in columns)
                kept = " OR ".join(f"{c} < '9000-01-01'" for c in columns)
                tx.execute(text(f"UPDATE {table} SET {moves} WHERE {kept}"), {"time": time})

    def claim(self, system: str, n: int = 100, lease: timedelta = timedelta(seconds=10)) -> list[Any]:
        """Take steps as a worker would, and do nothing with them."""
        from uuid import uuid4  # noqa: PLC0415 - only here

        from orchestrator.store import claims  # noqa: PLC0415 - only here

        with self.runtime.database.transaction() as tx:
            return claims.claim(tx, system, self.runtime.definitions.systems[system].limits, n, uuid4(), lease)

    # What is. --------------------------------------------------------------------------------------------------------

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """What a query finds."""
        with self.runtime.database.transaction() as tx:
            result = tx.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def one(self, statement: str, **values: Any) -> Any:
        """The one value that a query finds."""
        [[value]] = self.rows(statement, **values)
        return value

    def steps(self, request: UUID) -> dict[str, Any]:
        """The rows of a request's steps, as ``name@system``."""
        rows = self.rows("SELECT * FROM step WHERE request_id = :id ORDER BY ordinal", id=request)
        return {f"{r.name}@{r.system}": r for r in rows}

    def states(self, request: UUID) -> dict[str, str]:
        """The states of a request's steps, as ``name@system``."""
        return {name: row.state for name, row in self.steps(request).items()}

    def resolution(self, request: UUID) -> str | None:
        """How a request closed, or ``None``."""
        value: str | None = self.one("SELECT resolution FROM request WHERE id = :id", id=request)
        return value

    def told(self, request: UUID) -> list[str]:
        """Which events there are about a request, in order."""
        return [r.kind for r in self.rows("SELECT kind FROM outbox WHERE request_id = :id ORDER BY id", id=request)]

    def broken_links(self) -> dict[UUID, chain.Break]:
        """Requests whose audit chain does not hold."""
        entries: dict[UUID, list[Any]] = {}
        for r in self.rows("SELECT * FROM audit ORDER BY request_id, seq"):
            entry = runs.audit_entry(r.request_id, r.seq, r.at, r.what, r.ordinal, r.facts)
            entries.setdefault(r.request_id, []).append((entry, bytes(r.hash)))
        found = {request: chain.verify_chain(links) for request, links in entries.items()}
        return {request: at for request, at in found.items() if at is not None}

    def everything_kept(self) -> str:
        """All rows of all tables as one text, to look for what must not be there."""
        names = [r[0] for r in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        return "\n".join(str(tuple(r)) for name in names for r in self.rows(f"SELECT * FROM {name}"))

    def close(self) -> None:
        """Let go of connections."""
        self.runtime.close()


_TIMES = {
    "step": ("due", "lease_until", "changed_at"),
    "connector_state": ("breaker_until", "tokens_at"),
    "request": ("shred_at", "fold_at", "closed_at"),
    "outbox": ("created_at",),
    "quarantine": ("at",),
}


def write(path: Path, data: Yaml) -> Path:
    """A YAML file."""
    path.write_text(yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False))
    return path


def said(runtime: Runtime, system: str, happenings: Iterable[Happening]) -> Said:
    """What a worker settles after it has called a system."""
    together = Said()
    for happening in happenings:
        together.add(runtime.definitions.systems[system], happening)
    return together


def delivery(right: str, person: str = "", *, verified: bool = True, **more: Any) -> Delivery:
    """A message as the broker hands it over. ``more``: fields of the body; or ``message_id``, ``reply_to``, …"""
    envelope = {
        "specversion": "1.0",
        "id": more.pop("message_id", secrets.token_hex(8)),
        "source": more.pop("source", SOURCE),
        "type": more.pop("type", REQUEST_TYPE),
        "datacontenttype": "application/json",
    }
    reply_to, correlation_id = more.pop("reply_to", ""), more.pop("correlation_id", "")
    body: dict[str, Any] = {"right": right, "subject": {"identities": [{"type": "email", "value": person}]}}
    if verified:
        body["verification"] = VERIFIED
    if right == "rectification":
        body["corrections"] = {"user.name": "Ada Lovelace"}
    data = json.dumps({**envelope, "data": {**body, **more}}).encode()
    kind = "application/cloudevents+json"
    return Delivery(data, datetime.now(UTC), kind, {}, reply_to=reply_to, correlation_id=correlation_id)


def counts(rows: Sequence[Any]) -> Counter[Any]:
    """How often each value of a one-column answer comes."""
    return Counter(r[0] for r in rows)


# Fixtures. -----------------------------------------------------------------------------------------------------------

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> Iterator[str]:
    """Name of a database with all tables, to copy."""
    name = f"template_{secrets.token_hex(6)}"
    with _admin(postgres_server) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    database = Database(make_url(postgres_server).set(database=name).render_as_string(hide_password=False))
    migrate.upgrade(database)
    database.close()
    yield name
    with _admin(postgres_server) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def migrated_database(postgres_server: str, migrated_template: str) -> Iterator[str]:
    """URL of a fresh database with all tables."""
    name = f"t{secrets.token_hex(6)}"
    with _admin(postgres_server) as connection:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(copy.format(sql.Identifier(name), sql.Identifier(migrated_template)))
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with _admin(postgres_server) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def make_world(migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorld]:
    """``make_world(system("crm"), …, workflows=[…], **settings)``: an engine on a fresh database."""
    monkeypatch.setitem(registry.BUILT_IN, scripted.NAME, scripted.TARGET)
    made: list[World] = []

    def make(*systems: Yaml, workflows: Sequence[Yaml] = (), **settings: Any) -> World:
        world = World(migrated_database, tmp_path / f"world-{len(made)}", systems, workflows, **settings)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


def _admin(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True, connect_timeout=10)
