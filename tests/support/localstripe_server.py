"""Start localstripe, the stateful fake of Stripe's API, as a process of its own.

localstripe is licensed under the GPL: it is never imported here, only run. Where it differs from Stripe:

* it pickles its whole store into one fixed file after every write, which is slow and which two users of a machine
  cannot share; so the process is started with that switched off (its state lives as long as the process);
* a deleted customer is unknown (404), where Stripe answers ``deleted: true``, and its invoices cannot be listed;
* payment methods can only be listed with ``type=card`` (the connector's ``payment_method_types: [card]``);
* payment intents cannot be listed by customer, and there are no credit notes (``collections``);
* invoices come from subscriptions only;
* there is no pausing of subscriptions (``pause_collection: null``), no redaction job, no idempotency, no rate limit;
* it never says 401 for a key that starts with ``sk_``.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Final

API_KEY: Final = "sk_test_habeas"
READY_WITHIN: Final = 30.0  # seconds; importing aiohttp takes a while on a busy machine

_START: Final = """
import os, sys, threading
from aiohttp import web
from localstripe import resources, server
resources.Store.dump_to_disk = lambda self: None
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
web.run_app(server.app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""
"""``python -m localstripe --from-scratch``, less the file, the access log and the need for IPv6.

It ends when its standard input does, so that it does not outlive a test run that was killed.
"""


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v1/customers", headers={"Authorization": f"Bearer {API_KEY}"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def running_localstripe() -> Iterator[str]:
    """Run an empty localstripe on a free port; yields its base URL, e.g. ``http://127.0.0.1:40123``.

    Raises ``RuntimeError`` when it does not answer within ``READY_WITHIN`` seconds or ends by itself.
    """
    for _ in range(3):  # another process may take the port between the probe and the start
        port = free_port()
        command = [sys.executable, "-c", _START, str(port)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + READY_WITHIN
            while process.poll() is None and time.monotonic() < deadline:
                if _answers(port):
                    yield f"http://127.0.0.1:{port}"
                    return
                time.sleep(0.05)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise RuntimeError("localstripe did not start: run `python -m localstripe` to see why")


def wipe(base_url: str) -> None:
    """Empty a running localstripe, so that tests can share one process."""
    connection = HTTPConnection(base_url.removeprefix("http://"), timeout=10)
    try:
        connection.request("DELETE", "/_config/data")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != 200:
        raise RuntimeError(f"localstripe did not empty itself: status {status}")
