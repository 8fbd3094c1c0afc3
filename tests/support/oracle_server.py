"""A target system that lives outside Habeas and counts what is done to it: ``python -m tests.support.oracle_server``.

One server plays any number of systems, told apart by the first part of the path. Its ledger is in its memory, and no
test kills it. What it can be told to do wrong is a ``Behaviour``.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Mode = Literal["ok", "slow", "error", "limit", "cut_before", "cut_after", "hold_before", "hold_after"]
"""How a call is answered: at once; after ``seconds``; 503; 429; the connection cut before or after the effect; held
before or after the effect until the behaviour is changed."""


@dataclass
class Behaviour:
    """How calls are answered from now on: the next ``times`` of them, or all."""

    mode: Mode = "ok"
    seconds: float = 0.0
    times: int | None = None
    what: str = ""
    """``act`` or ``look``: only such calls."""


@dataclass
class System:
    """One system's ledger."""

    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(action, person) → how often it was carried out."""
    keys: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """(action, person) → key → how often a call came with it; ``""`` is a call without a key."""
    received: int = 0
    calls: int = 0
    held: int = 0
    behaviour: Behaviour = field(default_factory=Behaviour)


class Ledger:
    """Every system's. Thread-safe."""

    def __init__(self) -> None:
        self.systems: dict[str, System] = {}
        self.changed = threading.Condition()

    def system(self, name: str) -> System:
        return self.systems.setdefault(name, System())

    def behave(self, name: str, behaviour: Behaviour) -> None:
        with self.changed:
            self.system(name).behaviour = behaviour
            self.changed.notify_all()

    def begin(self, name: str, what: str) -> Mode:
        """How this call is to be answered; counted."""
        with self.changed:
            system = self.system(name)
            system.calls += 1
            behaviour = system.behaviour
            if behaviour.what not in {"", what}:
                return "ok"
            if behaviour.times is not None:
                if behaviour.times <= 0:
                    return "ok"
                behaviour.times -= 1
            mode, seconds = behaviour.mode, behaviour.seconds
        if mode == "slow":
            time.sleep(seconds)
            return "ok"
        return mode

    def hold(self, name: str) -> None:
        """Until somebody changes the system's behaviour."""
        with self.changed:
            system = self.system(name)
            behaviour = system.behaviour
            system.held += 1
            self.changed.wait_for(lambda: system.behaviour is not behaviour)
            system.held -= 1

    def act(self, name: str, action: str, tasks: list[dict[str, str]]) -> None:
        """Carry out; a key that came before is answered and changes nothing, as idempotency keys are defined."""
        with self.changed:
            system = self.system(name)
            for task in tasks:
                what, key = (action, task["person"]), task["key"]
                seen = system.keys.setdefault(what, Counter())
                seen[key] += 1
                system.received += 1
                if not key or seen[key] == 1:
                    system.effects[what] += 1

    def look(self, name: str, action: str, people: list[str]) -> list[bool]:
        with self.changed:
            return [self.system(name).effects[action, person] > 0 for person in people]

    def told(self) -> dict[str, Any]:
        with self.changed:
            return {
                name: {
                    "effects": [[action, person, n] for (action, person), n in system.effects.items()],
                    "keys": [[action, person, dict(keys)] for (action, person), keys in system.keys.items()],
                    "calls": system.calls,
                    "held": system.held,
                    "received": system.received,
                }
                for name, system in self.systems.items()
            }


class Handler(BaseHTTPRequestHandler):
    """``POST /<system>/act``, ``/look``, ``/behave``; ``GET /ledger``, ``/<system>/held``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    ledger: Ledger

    def do_GET(self) -> None:
        if self.path == "/ledger":
            self._answer(200, self.ledger.told())
        else:
            self._answer(200, {"held": self.ledger.system(self.path.split("/")[1]).held})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, name, what = self.path.split("/")
        if what == "behave":
            self.ledger.behave(name, Behaviour(**body))
            self._answer(200, {})
            return
        mode = self.ledger.begin(name, what)
        if mode == "error":
            self._answer(503, {})
        elif mode == "limit":
            self._answer(429, {})
        elif mode == "cut_before":
            self._cut()
        else:
            if mode == "hold_before":
                self.ledger.hold(name)
            answer: dict[str, Any] = {}
            if what == "act":
                self.ledger.act(name, body["action"], body["tasks"])
            else:
                answer = {"done": self.ledger.look(name, body["action"], body["people"])}
            if mode == "hold_after":
                self.ledger.hold(name)
            if mode == "cut_after":
                self._cut()
            else:
                self._answer(200, answer)

    def _cut(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # who asked is gone: what was done stays done

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Not a word."""


class Server(ThreadingHTTPServer):
    """Calls at once by as many workers as there are."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that was killed leaves a broken connection: that is what it is for."""


def main() -> None:
    """Serve on a free port, told on standard output."""
    Handler.ledger = Ledger()
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
