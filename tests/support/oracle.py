"""The oracle: a target system outside Habeas that keeps a ledger of what was done to it. Here: its connector.

    with oracle_world(tmp_path) as world, deployed(tmp_path / "d", {**world.environment, …URLs…}, "intake", "worker",
                                                   "clock") as deployment:
        with world.sender(deployment.settings) as sender:
            asked = [sender.erase() for _ in range(100)]
        world.target.behave("keyed", "hold_before")           # … and any fault
        await_closed(deployment, asked)                       # tests.support.oracle_check
        assert verdict(world, deployment, asked) == []        # the same

Two systems are configured. ``keyed`` takes ``Task.key`` as idempotency key: one effect per key, whatever happens.
``unkeyed`` takes none: the connector looks before it acts, a call that was cut off may be made twice, and the verify
step that follows says whether the person's state is right. ``world.target.behave(system, mode, times=…)`` makes a
system slow, failing, rate-limiting, cut the connection before or after the effect, or hold calls until told otherwise
(modes: ``tests.support.oracle_server.Mode``); ``world.target.held(system)`` counts the calls that are held.

The test's side (``oracle_world``, ``Sender``) is ``tests.support.oracle_world``; the target itself is a process,
``tests.support.oracle_server``; what must hold after a run is ``tests.support.oracle_check``.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

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
        return frozenset({"user"})

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
                sink.write(
                    "records", {"n": n, "whose": _person(task), "text": os.urandom(self.config.record_bytes).hex()}
                )
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
