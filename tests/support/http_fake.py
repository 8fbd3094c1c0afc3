"""A small HTTP server for tests: real sockets, real threads, answers from a function, everything asked is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    """The form-encoded body; repeated keys keep the last value."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""

    def form_list(self, key: str) -> list[str]:
        """Every value of one form key, in order; keys with a numeric index in brackets count as one list."""
        pairs = parse_qsl(self.body.decode(), keep_blank_values=True)
        return [
            v for k, v in pairs if k in {key, f"{key}[]"} or (k.startswith(f"{key}[") and k[len(key) + 1].isdigit())
        ]


@dataclass(frozen=True)
class Answer:
    """What to answer; ``body`` is sent as JSON unless it is bytes."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    """Never answer: hold the connection until the server stops."""


class HttpFake:
    """The running server: ``url``, and ``asked``, every request so far."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        """``answer`` runs under one lock, so it may keep state without a lock of its own."""
        self.asked: list[Asked] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet an answer: two small ones wait 40 ms for each other
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def _serve(self) -> None:
                fake._serve(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 (the base class names them so)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        is_form = "form" in (handler.headers.get("content-type") or "")
        asked = Asked(
            handler.command,
            parts.path,
            dict(parse_qsl(parts.query)),
            dict(parse_qsl(body.decode(), keep_blank_values=True)) if is_form else {},
            {k.lower(): v for k, v in handler.headers.items()},
            body,
        )
        with self._lock:
            self.asked.append(asked)
            answer = self._answer(asked)
        if answer.hang:
            self._stopping.wait()
            handler.close_connection = True
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        handler.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Let hanging requests go and close the port."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def running_http_fake(answer: Callable[[Asked], Answer]) -> Iterator[HttpFake]:
    """Serve ``answer`` on a free port of the loopback interface for the length of a ``with`` block."""
    fake = HttpFake(answer)
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
