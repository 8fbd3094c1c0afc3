"""A RabbitMQ of our own, from Debian's package (3.10) or a later one (4.x), and the HTTP API that tests steer it by."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import amqp

from tests.support.servers import debian
from tests.support.servers.ports import free_ports, wait_until
from tests.support.servers.reaper import end, note

BINARIES = Path("/usr/lib/rabbitmq/bin")


@dataclass(frozen=True)
class Management:
    """RabbitMQ's HTTP API, at its root URL (``http://127.0.0.1:15672``)."""

    url: str
    user: str
    password: str

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One call; ``path`` is below ``/api/``. Returns the JSON answer, ``None`` where there is none."""
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        request.add_header("Content-Type", "application/json")
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        data = json.dumps(body or {}).encode() if method in {"PUT", "POST"} else None
        with urllib.request.urlopen(request, data=data, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def add_vhost(self, name: str) -> None:
        self.call("PUT", f"vhosts/{quote(name, safe='')}", {"default_queue_type": "classic"})
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        self.call("PUT", f"permissions/{quote(name, safe='')}/{quote(self.user, safe='')}", rights)

    def delete_vhost(self, name: str) -> None:
        with suppress(urllib.error.HTTPError):
            self.call("DELETE", f"vhosts/{quote(name, safe='')}")

    def queues(self, vhost: str) -> list[str]:
        return [queue["name"] for queue in self.call("GET", f"queues/{quote(vhost, safe='')}")]

    def delete_queues(self, vhost: str) -> None:
        for name in self.queues(vhost):
            self.call("DELETE", f"queues/{quote(vhost, safe='')}/{quote(name, safe='')}")

    def drop_connections(self) -> None:
        """Cut every client's connection, as a network fault would."""
        for connection in self.call("GET", "connections"):
            with suppress(urllib.error.HTTPError):
                self.call("DELETE", f"connections/{quote(connection['name'], safe='')}")


class RabbitMQ:
    """One RabbitMQ node. It may be stopped, killed and started again: ports, users and durable queues stay.

    ``folder``: where its files go; ``reaper``: the folder that notes what must end with the test run.
    """

    def __init__(self, folder: Path, reaper: Path) -> None:
        self.folder, self._reaper = folder, reaper
        self._state = folder / "node.json"
        if self._state.exists():
            state = json.loads(self._state.read_text())
        else:
            amqp_port, http, dist, epmd, ctl = free_ports(5)
            state = {"amqp": amqp_port, "http": http, "dist": dist, "epmd": epmd, "ctl": ctl}
            state |= {"name": f"habeas{secrets.token_hex(4)}@localhost", "password": secrets.token_urlsafe(12)}
        self.port = int(state["amqp"])
        self._ports = state
        self.management = Management(f"http://127.0.0.1:{state['http']}", "habeas", state["password"])

    # Reaching it. --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """AMQP URL of the default vhost."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        return f"amqp://habeas:{self._ports['password']}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def add_vhost(self, name: str | None = None) -> str:
        """Create a vhost; returns its AMQP URL."""
        name = name or f"v{secrets.token_hex(6)}"
        self.management.add_vhost(name)
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        self.management.delete_vhost(name)

    def delete_queues(self, vhost: str = "/") -> None:
        self.management.delete_queues(vhost)

    def ctl(self, *args: str) -> str:
        """Run ``rabbitmqctl`` (takes a second or two); returns what it prints."""
        command = [str(BINARIES / "rabbitmqctl"), "-q", *args]
        return subprocess.run(command, env=self._environment(), check=True, capture_output=True, text=True).stdout

    # Its life. -----------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the node and wait until it takes connections; does nothing where it runs."""
        if self.running():
            return self
        debian.require("rabbitmq-server")
        self._write_files()
        with (self.folder / "output.log").open("ab") as output:
            options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": output,
                "stderr": output,
                "start_new_session": True,
            }
            self._epmd(options)
            server = subprocess.Popen([str(BINARIES / "rabbitmq-server")], env=self._environment(), **options)
        self._pid_file.write_text(str(server.pid))
        note(self._reaper, server.pid)

        def ready() -> bool:
            if server.poll() is not None:
                log = (self.folder / "output.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"RabbitMQ ended while starting:\n{log}")
            return self.running()

        wait_until(ready, what="RabbitMQ to start", within=120, every=0.1)
        return self

    def stop(self) -> None:
        """Stop the node as an administrator would: gracefully."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Stop the node as a power cut would.

        RabbitMQ writes the names of new quorum queues down half a second late, and loses a queue that is cut off
        before; no test here is about that, so the cut comes when they are written.
        """
        names = list((self.folder / "mnesia").glob("*/quorum/*/names.dets"))
        wait_until(lambda: all(time.time() - path.stat().st_mtime > 1 for path in names), what="names to be written")
        self._signal(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop the node for good and remove its files."""
        self._signal(signal.SIGKILL)
        with suppress(OSError, ValueError):
            end(int((self.folder / "epmd.pid").read_text()))
        shutil.rmtree(self.folder, ignore_errors=True)

    def running(self) -> bool:
        """Whether it takes AMQP connections and answers on its HTTP API."""
        try:
            with amqp.Connection(
                f"127.0.0.1:{self.port}", userid="habeas", password=self._ports["password"], connect_timeout=5
            ):
                pass
            self.management.call("GET", "vhosts")
        except (OSError, amqp.AMQPError):
            return False
        return True

    # Small parts. --------------------------------------------------------------------------------------------------

    @property
    def _pid_file(self) -> Path:
        return self.folder / "server.pid"

    def _signal(self, number: signal.Signals) -> None:
        try:
            pid = int(self._pid_file.read_text())
            os.kill(pid, number)
        except (OSError, ValueError):
            return
        try:
            wait_until(lambda: _is_gone(pid), what="RabbitMQ to stop", within=60)
        except TimeoutError:
            end(pid)
        self._pid_file.unlink(missing_ok=True)

    def _epmd(self, options: dict[str, Any]) -> None:
        """Erlang's port mapper, in the foreground and ours alone; left to itself RabbitMQ would leave one running."""
        pid = self.folder / "epmd.pid"
        if pid.exists() and not _is_gone(int(pid.read_text())):
            return
        epmd = shutil.which("epmd") or "/usr/bin/epmd"
        command = [epmd, "-port", str(self._ports["epmd"]), "-address", "127.0.0.1"]
        process = subprocess.Popen(command, env=self._environment(), **options)
        pid.write_text(str(process.pid))
        note(self._reaper, process.pid)

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("mnesia", "log", "home"):
            (self.folder / name).mkdir(exist_ok=True)
        self._state.write_text(json.dumps(self._ports))
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "env.conf").touch()
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": self._ports["http"],
            "default_user": "habeas",
            "default_pass": self._ports["password"],
            "default_user_tags.administrator": "true",
            "vm_memory_high_watermark.absolute": "1GiB",
            "disk_free_limit.absolute": "50MB",
            "raft.wal_max_size_bytes": 32 * 1024 * 1024,
            "log.file.level": "info",
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.folder / "rabbitmq.conf").write_text(text)

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._ports["name"],
            "RABBITMQ_DIST_PORT": str(self._ports["dist"]),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self._ports["ctl"]),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self._ports["ctl"] + 10),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_PID_FILE": str(folder / "node.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Run Erlang in place of the start script, so that the process we start is the node itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


def _is_gone(pid: int) -> bool:
    """Whether a process has ended, reaping it where it is our child."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def given_management(url: str) -> Management:
    """The HTTP API of a server that we were given by its AMQP URL."""
    parts = urlsplit(url)
    default = f"http://{parts.hostname or '127.0.0.1'}:15672"
    where = os.environ.get("HABEAS_TEST_RABBITMQ_MANAGEMENT_URL", default).rstrip("/")
    return Management(where, unquote(parts.username or "guest"), unquote(parts.password or "guest"))
