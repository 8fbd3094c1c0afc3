"""A whole deployment of real processes: migrate, intake, worker, clock, each started, killed and restarted at will."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import text

from orchestrator.privacy.vault import MasterKeys
from orchestrator.runtime import Runtime
from orchestrator.settings import Settings, read

PATIENCE = 60.0
"""Seconds that anything may take before a test gives up on it."""

T = TypeVar("T")


def eventually(ask: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """The first true answer; fails with ``what`` when there is none in time."""
    until = time.monotonic() + patience
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"not within {patience:.0f} s: {what}")
        time.sleep(0.05)


class Deployment:
    """Processes of one deployment, with logs in ``directory``."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HABEAS_")},
            "HABEAS_MASTER_KEY": MasterKeys.generate("test"),
            "HABEAS_ARTIFACTS": str(directory / "artifacts"),
            "HABEAS_HEALTH_PORT": "0",
            "HABEAS_LOG_FORMAT": "json",
            **environment,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers: dict[str, int] = {}

    @property
    def settings(self) -> Settings:
        """The deployment's settings."""
        return read(self.environment)

    def runtime(self) -> Runtime:
        """A runtime of our own on the same deployment, for looking and for operating."""
        return Runtime(self.settings, "habeas test")

    def habeas(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one ``habeas`` command to its end."""
        command = [sys.executable, "-m", "orchestrator", *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"habeas {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *names: str, arguments: tuple[str, ...] = (), module: str = "orchestrator", **more: str) -> None:
        """Start processes: ``intake``, ``worker``, ``clock``; a suffix makes several: ``worker-2``.

        ``module``: what is run instead of ``habeas``; ``more``: settings of these processes alone, in lower case.
        """
        environment = {**self.environment, **{f"HABEAS_{k.upper()}": v for k, v in more.items()}}
        for name in names:
            number = self._numbers[name] = self._numbers.get(name, 0) + 1
            log = (self.directory / f"{name}.{number}.log").open("wb")
            command = [sys.executable, "-m", module, name.split("-")[0], *arguments]
            self.processes[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            log.close()

    def kill(self, name: str) -> None:
        """SIGKILL a process and its children, without a word."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str, patience: float = PATIENCE) -> int:
        """SIGTERM; the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise

    def close(self) -> None:
        """Kill what still runs."""
        for name in list(self.processes):
            self.kill(name)

    def logs(self) -> str:
        """Everything that all processes wrote."""
        return "".join(p.read_text(errors="replace") for p in sorted(self.directory.glob("*.log")))


@contextmanager
def deployed(directory: Path, environment: Mapping[str, str], *processes: str) -> Iterator[Deployment]:
    """A migrated deployment with its processes running, gone at the end."""
    deployment = Deployment(directory, environment)
    try:
        deployment.habeas("migrate")
        deployment.start(*processes)
        yield deployment
    finally:
        deployment.close()


def rows(runtime: Runtime, statement: str, **values: Any) -> list[Any]:
    """What a query finds in the deployment's database."""
    with runtime.database.transaction() as tx:
        return list(tx.execute(text(statement), values))
