"""Has Debian's packages of servers and programs installed: with apt where we may, else by telling what to run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

POLICY = Path("/usr/sbin/policy-rc.d")
PROGRAMS = {
    "rabbitmq-server": Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    "mariadb-server": Path("/usr/sbin/mariadbd"),
    "ripgrep": Path("/usr/bin/rg"),
    "zstd": Path("/usr/bin/zstd"),
    "redis-server": Path("/usr/bin/redis-server"),
    "postgresql-client": Path("/usr/bin/psql"),
}
"""Package → a program by which we know it is there."""


def require(package: str) -> None:
    """Have a Debian package installed, its own service not started. Ends the test run where that cannot be."""
    if PROGRAMS[package].exists():
        return
    command = f"apt-get update && apt-get install -y --no-install-recommends {package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.exit(f"The tests need {package}. As root, run: {command}", returncode=pytest.ExitCode.USAGE_ERROR)
    with (Path(tempfile.gettempdir()) / "habeas-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not PROGRAMS[package].exists():
            install(package)
    if not PROGRAMS[package].exists():
        pytest.exit(f"{package} is installed, but {PROGRAMS[package]} is not there", returncode=1)


def install(package: str) -> None:
    started = time.time()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with services_held_back():
        if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
            subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
        get = ["apt-get", "install", "-yq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", package]
        if subprocess.run(get, check=False, env=environment).returncode != 0:
            # The lists may be older than the mirror's files.
            subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
            subprocess.run(get, check=True, env=environment)
    end_leftovers(since=started)


@contextmanager
def services_held_back() -> Iterator[None]:
    """Debian starts a service when it is installed; ``policy-rc.d`` is its way of asking it not to."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def end_leftovers(*, since: float) -> None:
    """RabbitMQ's installation leaves Erlang's port mapper running; end the one it started."""
    for process in psutil.process_iter(["name", "username", "create_time"]):
        found = process.info
        if found["name"] == "epmd" and found["username"] == "rabbitmq" and found["create_time"] >= since - 1:
            process.kill()
