"""Faults that strike a running deployment, one every few seconds, in an order that a seed decides."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

import psutil

from orchestrator.broker.topology import work_queue_name
from orchestrator.errors import Unavailable
from tests.support.deployment import Deployment, rows
from tests.support.oracle_world import World
from tests.support.servers.rabbitmq import RabbitMQ

SYSTEMS = ("keyed", "unkeyed", "desk", "packager")


@dataclass
class Faults:
    """Strikes, and brings back what it struck."""

    deployment: Deployment
    world: World
    rabbitmq: RabbitMQ
    chance: random.Random
    lease: float
    """Seconds."""
    struck: Counter[str] = field(default_factory=Counter)
    diary: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _frozen: dict[str, float] = field(default_factory=dict)
    """Process → when it is let go on."""

    def strike(self) -> None:
        """One fault."""
        name = self.chance.choice(sorted(self._kinds()))
        whom = self._kinds()[name]()
        self.struck[name] += 1
        self.diary.append(f"{time.monotonic() - self._began:6.1f} s  {name}{f': {whom}' if whom else ''}")

    def thaw(self, *, all_: bool = False) -> None:
        """Let those go on that were stopped for long enough."""
        for name, until in list(self._frozen.items()):
            if all_ or time.monotonic() > until:
                self._signal(name, signal.SIGCONT)
                del self._frozen[name]

    def _kinds(self) -> dict[str, Callable[[], str]]:
        return {
            "worker killed": lambda: self._restart("worker"),
            "intake killed": lambda: self._restart("intake"),
            "clock leader killed": self._leader_killed,
            "worker child killed": self._child_killed,
            "worker stopped past its lease": self._frozen_worker,
            "database sessions ended": self._sessions_ended,
            "doorbells purged": self._doorbells_purged,
            "broker connections closed": self._connections_closed,
            "oracle cuts calls after the effect": lambda: self._oracle("cut_after"),
            "oracle fails": lambda: self._oracle("error"),
        }

    def _one(self, kind: str) -> str:
        return self.chance.choice(sorted(n for n in self.deployment.processes if n.split("-")[0] == kind))

    def _restart(self, kind: str, name: str = "") -> str:
        name = name or self._one(kind)
        self._frozen.pop(name, None)
        self.deployment.kill(name)
        self.deployment.start(name, arguments=("-c", "1") if kind == "worker" else ())
        return name

    def _leader_killed(self) -> str:
        elected: dict[str, str] = {}
        for path in self.deployment.directory.glob("clock*.log"):
            for line in path.read_text(errors="replace").splitlines():
                if "leader.elected" in line:
                    elected[path.name.split(".")[0]] = str(json.loads(line).get("timestamp", ""))
        return self._restart("clock", max(elected, key=lambda n: elected[n], default="clock"))

    def _child_killed(self) -> str:
        name = self._one("worker")
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.deployment.processes[name].pid).children(recursive=True):
                child.kill()
        return name

    def _frozen_worker(self) -> str:
        name = self._one("worker")
        self._signal(name, signal.SIGSTOP)
        self._frozen[name] = time.monotonic() + self.lease + 1.5
        return name

    def _signal(self, name: str, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.deployment.processes[name].pid, number)

    def _sessions_ended(self) -> str:
        runtime = self.deployment.runtime()
        with suppress(Unavailable):
            rows(runtime, _END_SESSIONS)
        runtime.close()
        return ""

    def _doorbells_purged(self) -> str:
        for queue in set(self.rabbitmq.management.queues("/")) & {work_queue_name(s) for s in SYSTEMS}:
            self.rabbitmq.management.call("DELETE", f"queues/%2F/{quote(queue, safe='')}/contents")
        return ""

    def _connections_closed(self) -> str:
        self.rabbitmq.management.drop_connections()
        return ""

    def _oracle(self, mode: str) -> str:
        system = self.chance.choice(["keyed", "unkeyed"])
        self.world.target.behave(system, mode, times=self.chance.randint(1, 5))  # type: ignore[arg-type]
        return system


_END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"""
