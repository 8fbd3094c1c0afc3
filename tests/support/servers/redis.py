"""A Redis of our own, from Debian's package: for the benchmarks' peers."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.servers import debian
from tests.support.servers.ports import free_ports, wait_until
from tests.support.servers.reaper import note


class Redis:
    """One Redis server on a free loopback port, in memory; ``folder``: where its log goes."""

    def __init__(self, folder: Path, reaper: Path) -> None:
        self.folder, self._reaper = folder, reaper
        [self.port] = free_ports(1)
        self.pid = 0

    def url_of(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        debian.require("redis-server")
        self.folder.mkdir(parents=True)
        command = [str(debian.PROGRAMS["redis-server"]), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        with (self.folder / "output.log").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        self.pid = process.pid
        note(self._reaper, self.pid)
        wait_until(self.running, what="Redis to start")
        return self

    def running(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False
