"""The test's side of the oracle: its process, the files of a deployment on it, and somebody who asks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from orchestrator.broker import topology
from orchestrator.core.vocabulary import EventKind
from orchestrator.publish import Publisher
from orchestrator.settings import Settings
from tests.support.oracle import Client
from tests.support.oracle_server import Mode

SECRET = "whsec_b3JhY2xlLXRlc3RzLW9yYWNsZS10ZXN0cy1vcmFjbGU="
SOURCE = "/oracle/accounts"
ROOT = Path(__file__).resolve().parents[2]


class Target:
    """The oracle as the test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = Client(url)

    def behave(
        self, system: str, mode: Mode = "ok", *, seconds: float = 0.0, times: int | None = None, what: str = ""
    ) -> None:
        """From now on; a change lets go of the calls that are held. ``what``: ``act`` or ``look``; empty: both."""
        behaviour = {"mode": mode, "seconds": seconds, "times": times, "what": what}
        self._client.call("POST", f"/{system}/behave", behaviour)

    def held(self, system: str) -> int:
        """Calls that are held at this moment."""
        return int(self._client.call("GET", f"/{system}/held")["held"])

    def ledger(self) -> Mapping[str, Mapping[str, Any]]:
        """System → ``effects`` ``[[action, person, n]]``, ``keys`` ``[[action, person, {key: n}]]``, ``calls``."""
        told: Mapping[str, Mapping[str, Any]] = self._client.call("GET", "/ledger")
        return told


@dataclass(frozen=True)
class Asked:
    """One request that was sent, and confirmed by the broker."""

    message_id: str
    right: str
    person: str


class Sender:
    """Publishes requests, all of people nobody asked for before."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.completed: dict[str, set[str]] = {}
        """Message id → ids of the completion events heard."""

    def ask(self, right: str, person: str = "", message_id: str = "") -> Asked:
        """One request; the same ``message_id`` and person again is a duplicate."""
        asked = Asked(message_id or str(uuid4()), right, person or f"p{uuid4().hex}@oracle.example")
        verified = {"method": "login", "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        self.publisher.request(right, email=asked.person, message_id=asked.message_id, verification=verified)
        return asked

    def listen(self, seconds: float) -> None:
        """Hear answers for a while. Raises ``Unavailable``."""
        for answer in self.publisher.answers(timeout=seconds):
            if answer.kind is EventKind.COMPLETED:
                self.completed.setdefault(answer.message_id, set()).add(answer.event_id)

    def erase(self) -> Asked:
        """Erase somebody: discover, erase and verify in both systems."""
        return self.ask("erasure")

    def access(self) -> Asked:
        """Gather somebody's records from both systems into a package."""
        return self.ask("access")


@dataclass(frozen=True)
class World:
    """The oracle, and the files that a deployment needs to work on it."""

    folder: Path
    target: Target
    environment: Mapping[str, str]

    @contextmanager
    def sender(self, settings: Settings) -> Iterator[Sender]:
        """Publishes over the broker of a deployment's settings."""
        options = topology.transport_options(settings) if topology.is_pgmq(settings) else None
        url = settings.broker_url.get_secret_value()
        with Publisher(url, source=SOURCE, secret=SECRET, replies="oracle_accounts", transport_options=options) as it:
            yield Sender(it)


@contextmanager
def oracle_world(
    folder: Path,
    *,
    reaped: Callable[[int], None] = lambda _: None,
    system: Mapping[str, Any] | None = None,
    **config: Any,
) -> Iterator[World]:
    """An oracle and the files for it. ``system``: over each system's entry; ``config``: over its connector's settings.

    ``reaped``: the fixture of that name, so that a killed test leaves no server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.support.oracle_server"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    reaped(server.pid)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield World(folder, Target(url), _environment(folder, url, dict(system or {}), config))
    finally:
        server.kill()
        server.wait()


def _environment(folder: Path, url: str, entry: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    common = {
        "connector": "tests.support.oracle:Oracle",
        "cannot": dict.fromkeys(("rectify", "restrict", "suppress"), "the oracle has no way to"),
        "batch": 20,
        # Faults come and go within seconds here, so nothing rests for long.
        "retry": {"attempts": 50, "base_seconds": 0.1, "cap_seconds": 1, "crashes": 5},
        "breaker": {"failures": 200, "rest_seconds": 1},
        **entry,
    }
    systems = [
        {**common, "name": "keyed", "config": {"url": url, "discovers": True, **config}},
        {**common, "name": "unkeyed", "config": {"url": url, "keyed": False, **config}},
    ]
    (folder / "systems.yaml").write_text(yaml.safe_dump({"systems": systems}))
    rights = ["access", "erasure"]
    source = {"source": SOURCE, "secrets": [{"env": "ORACLE_SECRET"}], "rights": rights, "trusted_to_verify": True}
    (folder / "sources.yaml").write_text(yaml.safe_dump({"sources": [source]}))
    return {
        "HABEAS_SYSTEMS": str(folder / "systems.yaml"),
        "HABEAS_SOURCES": str(folder / "sources.yaml"),
        "ORACLE_SECRET": SECRET,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
    }
