"""Liveness, readiness and metrics of a process, over HTTP, on a thread of its own.

* ``/livez``: the process's main loop turned within the last ``STUCK`` seconds; restart it when this fails.
* ``/readyz``: the database and the broker answered it last time; wait when this fails.
* ``/metrics``: Prometheus.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STUCK = 120.0
"""Seconds without a turn of the main loop after which a process counts as stuck."""


class Health:
    """What a process says of itself. Thread-safe."""

    def __init__(self) -> None:
        self._parts: dict[str, bool] = {}
        self._turned = time.monotonic()
        self._lock = threading.Lock()

    def turn(self) -> None:
        """The main loop turned."""
        self._turned = time.monotonic()

    def report(self, part: str, well: bool) -> None:  # noqa: FBT001 - a state, not a switch
        """Whether a part (``database``, ``broker``) answered."""
        with self._lock:
            self._parts[part] = well

    @property
    def live(self) -> bool:
        """Whether the main loop turns."""
        return time.monotonic() - self._turned < STUCK

    @property
    def parts(self) -> dict[str, bool]:
        """Each part, and whether it answered."""
        with self._lock:
            return dict(self._parts)

    @property
    def ready(self) -> bool:
        """Whether all parts answered, and at least one was asked."""
        parts = self.parts
        return bool(parts) and all(parts.values())


def serve(health: Health, metrics: Callable[[], bytes], host: str, port: int) -> ThreadingHTTPServer | None:
    """Serve in the background; ``None`` when ``port`` is 0. Raises ``OSError`` when the port is taken."""
    if port == 0:
        return None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/livez":
                    self._answer(200 if health.live else 503, json.dumps({"live": health.live}).encode())
                case "/readyz":
                    body = {"ready": health.ready, "parts": health.parts}
                    self._answer(200 if health.ready else 503, json.dumps(body).encode())
                case "/metrics":
                    self._answer(200, metrics(), "text/plain; version=0.0.4; charset=utf-8")
                case _:
                    self._answer(404, b'{"error": "there are /livez, /readyz and /metrics"}')

        def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Probes come every few seconds: not a word."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
