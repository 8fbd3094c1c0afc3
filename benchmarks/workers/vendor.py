"""A vendor: an HTTP server that takes its time to answer, and counts how it is called.

``POST /erase`` with an ``Idempotency-Key`` answers after ``SECONDS``. Asked ``seen`` it says what it saw so far: calls,
most in flight, calls in the busiest second, calls made twice.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from contextlib import suppress

from benchmarks.programs import Found, answer

SECONDS = 0.2
BACKLOG = 4096
"""Connections that wait to be taken."""


class Vendor:
    """What is counted."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.began: list[float] = []
        self.keys: set[str] = set()
        self.flying = self.most = self.repeated = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call; the connection is closed after it."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.began.append(loop.time())
            self.flying += 1
            self.most = max(self.most, self.flying)
            key = head.lower().partition("idempotency-key: ")[2].partition("\r\n")[0]
            self.repeated += key in self.keys
            self.keys.add(key)
            await asyncio.sleep(SECONDS)
            self.flying -= 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.close()

    def seen(self) -> Found:
        """So far."""
        busiest = max((bisect_left(self.began, at + 1) - n for n, at in enumerate(self.began)), default=0)
        counts = {"calls": len(self.began), "most": self.most, "busiest": busiest, "repeated": self.repeated}
        return {**counts, "wrong": []}


def main() -> None:
    """Serve on a free port, and answer on standard input."""
    vendor, loop = Vendor(), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(vendor.serve, "127.0.0.1", 0, backlog=BACKLOG))
    port = server.sockets[0].getsockname()[1]
    threading.Thread(target=loop.run_forever, daemon=True).start()
    answer({"port": lambda: {"port": port, "wrong": []}, "seen": vendor.seen})


if __name__ == "__main__":
    main()
