"""The server: built, started, found running, stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg

from orchestrator.embedded.account import Account, binaries
from orchestrator.embedded.errors import EmbeddedError

__all__ = ["EmbeddedPostgres"]

USER = "habeas"
DATABASE = "habeas"
LOOPBACK = "127.0.0.1"
PATIENCE = 60
"""Seconds to wait for the server to start or stop."""
SOCKET_PATH_LIMIT = 90
"""Bytes a Unix socket's folder may have, so that its full path stays under the kernel's 107."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A statement in the log could carry somebody's address; its error class is enough.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the server: kept in ``access.json`` beside the data, readable by its owner alone."""

    port: int
    password: str


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What PostgreSQL writes to ``postmaster.pid``."""

    pid: int
    port: int
    socket_directory: str
    ready: bool


class EmbeddedPostgres:
    """One PostgreSQL cluster in one directory, and its server.

    ``port``: the loopback port to listen on; ``None``: the one used last, else a free one. ``settings``: PostgreSQL
    settings over ours. As a context manager it stops the server only if it also started it.
    """

    def __init__(self, directory: Path | str, *, port: int | None = None, settings: Mapping[str, str] = {}) -> None:
        self.directory = Path(directory).absolute()
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self._wanted_port = port
        self._settings = {**SETTINGS, **settings}
        self._started_here = False

    def __enter__(self) -> Self:
        self._started_here = self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started_here:
            self.stop()

    # Reaching it. --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """SQLAlchemy URL over loopback TCP, with the password in it.

        Raises:
            EmbeddedError: the cluster was never started.
        """
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The same URL for another database of this server."""
        access = self._access()
        return f"postgresql+psycopg://{USER}:{access.password}@{LOOPBACK}:{access.port}/{quote(database)}"

    @property
    def socket_url(self) -> str:
        """SQLAlchemy URL over the Unix socket; for processes of the same user only.

        Raises:
            EmbeddedError: the server does not run.
        """
        postmaster, access = self.postmaster(), self._access()
        if postmaster is None:
            raise EmbeddedError(f"the embedded PostgreSQL in {self.directory} is not running: start it first")
        host = quote(postmaster.socket_directory, safe="")
        return f"postgresql+psycopg://{USER}:{access.password}@/{DATABASE}?host={host}&port={access.port}"

    def running(self) -> bool:
        """Whether the server runs and takes our connections."""
        postmaster = self.postmaster()
        if postmaster is None or not postmaster.ready:
            return False
        try:
            self._connect("postgres").close()
        except (psycopg.OperationalError, EmbeddedError):
            return False
        return True

    def postmaster(self) -> Postmaster | None:
        """The server's process, or ``None`` where none is alive."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            postmaster = Postmaster(int(lines[0]), int(lines[3]), lines[4], ready=lines[-1].strip() == "ready")
            os.kill(postmaster.pid, 0)
        except PermissionError:
            return postmaster
        except (OSError, IndexError, ValueError):
            return None
        return postmaster

    def create_database(self, name: str) -> str:
        """Create a database of this name unless it exists; returns its URL."""
        with self._connect("postgres") as connection:
            connection.autocommit = True
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return self.url_of(name)

    # Its life. -----------------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Have the server running; returns whether this call started it, rather than found it running.

        Raises:
            EmbeddedError: the extra is missing, or the server does not come up; the text ends with its last log lines.
        """
        binaries()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock():
            if self._await_running_one():
                return False
            account = Account.choose(self.data)
            if not (self.data / "PG_VERSION").exists():
                self._initialise(account)
            self._launch(account)
            self.create_database(DATABASE)
        return True

    def stop(self) -> None:
        """Stop the server, letting running statements end with an error; does nothing where none runs."""
        postmaster = self.postmaster()
        if postmaster is None:
            return
        account = Account.choose(self.data)
        stop = ["pg_ctl", "stop", "-D", str(self.data), "-m", "fast", "-w", "-t", str(PATIENCE)]
        if account.run(stop, reach=[self.data]).returncode != 0 and self.postmaster() is not None:
            raise EmbeddedError(f"the embedded PostgreSQL did not stop within {PATIENCE} s: see {self.log}")
        if Path(postmaster.socket_directory) != self.directory / "run":
            shutil.rmtree(postmaster.socket_directory, ignore_errors=True)

    def _await_running_one(self) -> bool:
        """Whether a server runs already; one that is still recovering from a crash is waited for."""
        end = time.monotonic() + PATIENCE
        while self.postmaster() is not None and time.monotonic() < end:
            if self.running():
                return True
            time.sleep(0.1)
        return False

    def _initialise(self, account: Account) -> None:
        """Build the cluster under another name first, so that an interrupted attempt leaves no half of one."""
        password = secrets.token_urlsafe(24)
        half_built = self.directory / "data.new"
        shutil.rmtree(half_built, ignore_errors=True)
        account.make_folder(half_built)
        password_file = self.directory / "password.new"
        account.write(password_file, password)
        try:
            done = account.run(
                [
                    *("initdb", "-D", str(half_built), "--username", USER, "--pwfile", str(password_file)),
                    *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
                    *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                ],
                reach=[half_built],
            )
        finally:
            password_file.unlink()
        if done.returncode != 0:
            raise EmbeddedError(f"PostgreSQL could not build its files in {self.directory}: {done.stdout.strip()}")
        with (half_built / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'habeas.conf'\n")
        self._remember(Access(self._wanted_port or _free_port(), password))
        half_built.rename(self.data)

    def _launch(self, account: Account) -> None:
        account.write(self.log, "", keep=True)
        sockets = self._socket_directory(account)
        attempts = 1 if self._wanted_port else 5
        for attempt in range(attempts):
            access = self._access()
            if self._wanted_port or attempt or not _is_free(access.port):
                access = Access(self._wanted_port or _free_port(), access.password)
                self._remember(access)
            settings = {**self._settings, "port": str(access.port), "unix_socket_directories": str(sockets)}
            lines = (f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items())
            account.write(self.data / "habeas.conf", "".join(lines))
            start = ["pg_ctl", "start", "-D", str(self.data), "-l", str(self.log), "-w", "-t", str(PATIENCE)]
            if account.run(start, reach=[self.data]).returncode == 0:
                return
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
        raise EmbeddedError(f"the embedded PostgreSQL in {self.directory} did not start; its log ends:\n{tail}")

    def _socket_directory(self, account: Account) -> Path:
        folder = self.directory / "run"
        if len(os.fsencode(folder)) > SOCKET_PATH_LIMIT:
            folder = Path(tempfile.mkdtemp(prefix="habeas-"))
        account.make_folder(folder)
        return folder

    # Small parts. --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One start at a time, across processes; the kernel lets go when the holder dies."""
        with (self.directory / "start.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _access(self) -> Access:
        try:
            return Access(**json.loads((self.directory / "access.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise EmbeddedError(f"no embedded PostgreSQL can be reached in {self.directory}: start it first") from error

    def _remember(self, access: Access) -> None:
        path = self.directory / "access.json"
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        if os.geteuid() == 0:
            # Root may start what somebody else owns; it must stay theirs to read.
            owner = self.directory.stat()
            os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.write_text(json.dumps({"port": access.port, "password": access.password}))
        fresh.replace(path)

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self.url_of(database).replace("+psycopg", "", 1), connect_timeout=5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
