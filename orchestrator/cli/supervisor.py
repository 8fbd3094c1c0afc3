"""Running a whole deployment on one machine: embedded PostgreSQL and the processes, kept alive, ended together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from orchestrator import settings as settings_module
from orchestrator.embedded import EmbeddedPostgres, install_pgmq
from orchestrator.errors import Conflict, Unavailable
from orchestrator.privacy.vault import MasterKeys
from orchestrator.runtime import Runtime
from orchestrator.store import migrate

PROCESSES = ("intake", "worker", "clock")
GIVE_UP = 5
"""Times a process may end by itself, within ``SOON`` seconds of its start each time, before all of it is given up."""
SOON = 10.0
GRACE = 40.0
"""Seconds that processes have to end after SIGTERM."""


@dataclass
class _Process:
    """One child process and how it fares."""

    name: str
    child: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    early_ends: int = 0


class Home:
    """The folder of a one-machine deployment: database, keys, settings, logs. One deployment at a time runs in it."""

    def __init__(self, path: Path) -> None:
        """Nothing is written yet."""
        self.path = path.absolute()
        self.logs = self.path / "logs"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Raises ``Conflict`` while another deployment runs here."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Conflict(f"a deployment runs in {self.path} already; stop it first") from error
            yield

    def write_settings(self, values: Mapping[str, Any]) -> Path:
        """Write the settings file (mode 0600: it holds the keys), keeping what an earlier run wrote."""
        path = self.path / settings_module.FILE
        old = yaml.safe_load(path.read_text()) if path.exists() else {}
        new = {"master_key": MasterKeys.generate(f"home-{secrets.token_hex(3)}"), **(old or {}), **values}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            yaml.safe_dump(new, file)
        return path


class Supervisor:
    """Starts a deployment's processes and keeps them alive."""

    def __init__(self, home: Home, environment: Mapping[str, str]) -> None:
        """``environment``: of the processes."""
        self._home, self._environment = home, dict(environment)
        self._processes: dict[str, _Process] = {}

    def start(self) -> None:
        """Start them all."""
        self._home.logs.mkdir(parents=True, exist_ok=True)
        for name in PROCESSES:
            self._processes[name] = _Process(name, self._spawn(name))

    def tend(self) -> None:
        """Start again what ended. Raises ``Unavailable`` when a process keeps ending at once."""
        for process in self._processes.values():
            if process.child.poll() is None:
                continue
            early = time.monotonic() - process.started < SOON
            process.early_ends = process.early_ends + 1 if early else 0
            if process.early_ends >= GIVE_UP:
                raise Unavailable(f"habeas {process.name} keeps ending; see {self._log(process.name)}")
            process.child, process.started = self._spawn(process.name), time.monotonic()

    def stop(self) -> None:
        """End them all: SIGTERM, and after the grace time SIGKILL."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.child.send_signal(signal.SIGTERM)
        until = time.monotonic() + GRACE
        for process in self._processes.values():
            try:
                process.child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.child.pid, signal.SIGKILL)
                process.child.wait()
        self._processes.clear()

    def _log(self, name: str) -> Path:
        return self._home.logs / f"{name}.log"

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        log: IO[bytes]
        with self._log(name).open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which ends them in order.
            return subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "orchestrator", name],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def deployment(home: Home, values: Mapping[str, Any]) -> Iterator[tuple[Runtime, Supervisor]]:
    """A running deployment in a home folder, on embedded PostgreSQL, ended when the block ends.

    ``values``: settings over the defaults. Raises ``Conflict`` when one runs there already, ``ConfigurationError``.
    """
    with home.locked(), EmbeddedPostgres(home.path / "postgres") as postgres:
        path = home.write_settings(
            {
                "home": str(home.path),
                "database_url": postgres.url,
                "artifacts": str(home.path / "artifacts"),
                "log_format": "json",
                "health_port": 0,
                **values,
            }
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith(settings_module.PREFIX)}
        environment["HABEAS_CONFIG"] = str(path)
        runtime = Runtime(settings_module.read(environment), "habeas up")
        runtime.definitions, runtime.sources  # noqa: B018 - faults are told before anything begins
        migrate.upgrade(runtime.database)
        install_pgmq(runtime.settings.database_url.get_secret_value())
        runtime.register_systems()
        supervisor = Supervisor(home, environment)
        supervisor.start()
        try:
            yield runtime, supervisor
        finally:
            supervisor.stop()
            runtime.close()
