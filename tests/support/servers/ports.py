"""Free ports, and waiting for something to be true."""

import socket
import time
from collections.abc import Callable


def free_ports(count: int) -> list[int]:
    """Different free loopback ports; asked for at once, so that none is given out twice."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_until(holds: Callable[[], bool], *, what: str, within: float = 60.0, every: float = 0.05) -> None:
    """Poll until something holds; ``within`` and ``every`` are seconds.

    Raises:
        TimeoutError: it never did; the text says what was waited for.
    """
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {within:.0f} s for {what}")
        time.sleep(every)
