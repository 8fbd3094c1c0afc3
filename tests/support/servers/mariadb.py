"""A MariaDB of our own, from Debian's package."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pymysql

from tests.support.servers import debian
from tests.support.servers.ports import free_ports, wait_until
from tests.support.servers.reaper import end, note


class MariaDB:
    """One MariaDB server on a free loopback port; ``folder``: where its files go."""

    def __init__(self, folder: Path, reaper: Path) -> None:
        self.folder, self._reaper = folder, reaper
        [self.port] = free_ports(1)
        self._password = secrets.token_hex(12)
        self._process: subprocess.Popen[bytes] | None = None

    def url_of(self, database: str = "") -> str:
        return f"mysql+pymysql://habeas:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        debian.require("mariadb-server")
        data = self.folder / "data"
        (self.folder / "tmp").mkdir(parents=True)
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        install += [
            "--auth-root-authentication-method=normal",
            f"--user={getpass.getuser()}",
            "--skip-log-bin",
            *_UNSAFE,
        ]
        with (self.folder / "output.log").open("ab") as output:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "cwd": "/"}
            subprocess.run(install, check=True, env=_environment(), **options)
            serve = [_program(), *self._arguments(data)]
            self._process = subprocess.Popen(serve, env=_environment(), start_new_session=True, **options)
        note(self._reaper, self._process.pid)
        wait_until(self.running, what="MariaDB to start")
        return self

    def running(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"MariaDB ended:\n{(self.folder / 'output.log').read_text(errors='replace')[-3000:]}")
        with suppress(pymysql.Error):
            pymysql.connect(host="127.0.0.1", port=self.port, user="habeas", password=self._password).close()
            return True
        return False

    def remove(self) -> None:
        if self._process is not None:
            end(self._process.pid)
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _arguments(self, data: Path) -> list[str]:
        first = self.folder / "first.sql"
        first.write_text(
            f"CREATE USER IF NOT EXISTS 'habeas'@'%' IDENTIFIED BY '{self._password}';\n"
            "GRANT ALL ON *.* TO 'habeas'@'%' WITH GRANT OPTION;\n"
        )
        return [
            "--no-defaults",
            f"--user={getpass.getuser()}",  # told so, it may run as root, in folders that root alone may enter
            f"--datadir={data}",
            f"--tmpdir={self.folder / 'tmp'}",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={first}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=2",
            *_UNSAFE,
        ]


_UNSAFE = ["--debug-no-sync", "--innodb-flush-method=nosync"]
"""What it has committed survives ``kill -9``, not a power cut."""


def _program() -> str:
    return shutil.which("mariadbd") or "/usr/sbin/mariadbd"


def _environment() -> dict[str, str]:
    return {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin", "LANG": "C.UTF-8", "TZ": "UTC"}
