"""A TCP proxy in front of PostgreSQL that stalls, cuts connections, and cuts them in the middle of a COMMIT."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from typing import Literal

_COMMITS = (b"COMMIT", b"DELETE FROM unpublished")
"""What ends a transaction; the latter is one by itself."""
Cut = Literal["", "before_commit", "after_commit"]
"""Where the next COMMIT's connection is cut: before the server hears of it, or after it did and before it is told."""


class Proxy:
    """Forwards to a port of this machine. Thread-safe."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._cut: Cut = ""
        self.cuts = 0
        """COMMITs that were cut."""
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Nothing goes through, nothing is closed."""
        self._flows.clear()

    def flow(self) -> None:
        """Everything goes through again."""
        self._flows.set()

    def cut_commits(self, where: Cut) -> None:
        """Cut the connection of the next COMMIT."""
        with self._lock:
            self._cut = where

    def cut_all(self) -> None:
        """Cut every connection there is."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, and cut everything."""
        self._server.close()
        self._flows.set()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        ends = {client, server}
        with self._lock:
            self._open |= ends
        with contextlib.suppress(OSError):
            self._pump(client, server)
        with self._lock:
            self._open -= ends
        for end in ends:
            end.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for end in ready:
                data = end.recv(65536)
                self._flows.wait()
                if not data:
                    return
                cut = self._taken() if end is client and any(word in data for word in _COMMITS) else ""
                if cut == "before_commit":
                    return
                (server if end is client else client).sendall(data)
                if cut == "after_commit":
                    server.recv(65536)  # the server's word that it is committed, which nobody hears
                    return

    def _taken(self) -> Cut:
        with self._lock:
            cut, self._cut = self._cut, ""
            self.cuts += bool(cut)
            return cut


@contextlib.contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """A proxy, closed at the end."""
    made = Proxy(port)
    try:
        yield made
    finally:
        made.close()
