"""The oracle: a target system outside Habeas that keeps a ledger of what was done to it, and a world around it.

    with oracle_world(tmp_path) as world, deployed(tmp_path / "d", {**world.environment, …URLs…}, "intake", "worker",
                                                   "clock") as deployment:
        with world.sender(deployment.settings) as sender:
            asked = [sender.erase() for _ in range(100)]
            world.target.behave("keyed", "hold_before")       # … and any fault
            world.await_closed(deployment, asked)
        assert verdict(world, deployment, asked) == []        # tests.support.oracle_check

Two systems are configured. ``keyed`` takes ``Task.key`` as idempotency key: one effect per key, whatever happens.
``unkeyed`` takes none: the connector looks before it acts, a call that was cut off may be made twice, and the verify
step that follows says whether the person's state is right. ``world.target.behave(system, mode, times=…)`` makes a
system slow, failing, rate-limiting, cut the connection before or after the effect, or hold calls until told otherwise
(modes: ``tests.support.oracle_server.Mode``); ``world.target.held(system)`` counts the calls that are held.

This module holds the connector as well (``connector: tests.support.oracle:Oracle``).
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import yaml

from connectors.contract import (
    Action,
    Call,
    Connector,
    ConnectorConfig,
    Done,
    Identity,
    Outcome,
    RateLimited,
    Results,
    Retryable,
    Task,
)
from tests.support.oracle_server import Mode

SECRET = "whsec_b3JhY2xlLXRlc3RzLW9yYWNsZS10ZXN0cy1vcmFjbGU="
SOURCE = "/oracle/accounts"
ROOT = Path(__file__).resolve().parents[2]


class Client:
    """HTTP to the oracle, one connection for each thread."""

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        where = urlsplit(url)
        self._host, self._port, self._timeout = where.hostname or "127.0.0.1", where.port or 80, timeout
        self._local = threading.local()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer. Raises ``Retryable``, ``RateLimited``."""
        connection = getattr(self._local, "connection", None)
        if connection is None or self._local.pid != os.getpid():
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            self._local.connection, self._local.pid = connection, os.getpid()
        try:
            connection.request(method, path, body=json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Retryable("the oracle cut the connection") from error
        if answer.status == 429:
            raise RateLimited("the oracle asks for fewer calls")
        if answer.status != 200:
            raise Retryable(f"the oracle answered {answer.status}")
        return json.loads(data)


# The connector. -----------------------------------------------------------------------------------------------------


class OracleConfig(ConnectorConfig):
    """Where the oracle is, and which of its systems this is."""

    url: str
    keyed: bool = True
    discovers: bool = False
    records: int = 2
    record_bytes: int = 100
    timeout: float = 60.0


class Oracle(Connector[OracleConfig]):
    """Discover, access, erase and verify against the oracle."""

    Config = OracleConfig

    def __init__(self, system: str, config: OracleConfig) -> None:
        super().__init__(system, config)
        self._client = Client(config.url, config.timeout)

    def supports(self) -> frozenset[Action]:
        return self.actions() if self.config.discovers else self.actions() - {Action.DISCOVER}

    def categories(self) -> frozenset[str]:
        return frozenset({"user.account"})

    def identified_by(self) -> frozenset[str]:
        return frozenset({"email"})

    def discovers(self) -> frozenset[str]:
        return frozenset({"user_id"}) if self.config.discovers else frozenset()

    def discover_many(self, tasks: Sequence[Task], call: Call) -> Results:
        self._look("discover", tasks)
        return {t.key: Done(Outcome.EXECUTED, found=(Identity("user_id", f"u-{_person(t)}"),)) for t in tasks}

    def access_many(self, tasks: Sequence[Task], call: Call) -> Results:
        self._look("access", tasks)
        for task in tasks:
            sink = call.sink(task)
            for n in range(self.config.records):
                sink.write("records", {"n": n, "whose": _person(task), "text": os.urandom(self.config.record_bytes).hex()})
        return {t.key: Done(Outcome.EXECUTED, counts={"records": self.config.records}) for t in tasks}

    def erase_many(self, tasks: Sequence[Task], call: Call) -> Results:
        todo = list(tasks)
        if not self.config.keyed:
            done = self._look("erase", tasks)
            todo = [task for task, is_done in zip(tasks, done, strict=True) if not is_done]
        said = [{"key": task.key if self.config.keyed else "", "person": _person(task)} for task in todo]
        if said:
            self._client.call("POST", f"/{self.system}/act", {"action": "erase", "tasks": said})
        return {task.key: Done(Outcome.EXECUTED, counts={"people": 1}) for task in tasks}

    def verify_many(self, tasks: Sequence[Task], call: Call) -> Results:
        done = self._look("erase", tasks)
        return {
            task.key: Done(Outcome.VERIFIED) if is_done else Retryable("the person is still there")
            for task, is_done in zip(tasks, done, strict=True)
        }

    def _look(self, action: str, tasks: Sequence[Task]) -> list[bool]:
        body = {"action": action, "people": [_person(t) for t in tasks]}
        found: list[bool] = self._client.call("POST", f"/{self.system}/look", body)["done"]
        return found


def _person(task: Task) -> str:
    return task.values("email")[0]


# The test's side. ---------------------------------------------------------------------------------------------------


class Target:
    """The oracle as the test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = Client(url)

    def behave(self, system: str, mode: Mode = "ok", *, seconds: float = 0.0, times: int | None = None) -> None:
        """From now on; a change lets go of the calls that are held."""
        self._client.call("POST", f"/{system}/behave", {"mode": mode, "seconds": seconds, "times": times})

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

    def __init__(self, publisher: Any) -> None:
        self.publisher = publisher

    def ask(self, right: str, person: str = "", message_id: str = "") -> Asked:
        """One request; the same ``message_id`` and person again is a duplicate."""
        asked = Asked(message_id or str(uuid4()), right, person or f"p{uuid4().hex}@oracle.example")
        verified = {"method": "login", "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        self.publisher.request(right, email=asked.person, message_id=asked.message_id, verification=verified)
        return asked

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
    def sender(self, settings: Any) -> Iterator[Sender]:
        """Publishes over the broker of a deployment's settings."""
        from orchestrator.broker import topology
        from orchestrator.publish import Publisher

        options = topology.transport_options(settings) if topology.is_pgmq(settings) else None
        url = settings.broker_url.get_secret_value()
        with Publisher(url, source=SOURCE, secret=SECRET, replies="oracle_accounts", transport_options=options) as it:
            yield Sender(it)

    def await_closed(self, deployment: Any, asked: Sequence[Asked], patience: float = 60.0) -> None:
        """Until every request is closed and every event is out."""
        from tests.support.oracle_check import await_closed

        await_closed(deployment, asked, patience)


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
        "cannot": {action: "the oracle has no way to" for action in ("rectify", "restrict", "suppress")},
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
