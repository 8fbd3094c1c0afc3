"""One worker at a time rewrites below a root."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from connectors.contract import Fatal, Retryable
from connectors.logs.files import OWN_PREFIX, from_os_error

__all__ = ["exclusive"]

LOCK: Final = f"{OWN_PREFIX}.lock"
STEP: Final = 0.05
"""Seconds between two attempts."""
COME_BACK: Final = timedelta(seconds=60)


@contextmanager
def exclusive(root: Path, wait: float) -> Iterator[None]:
    """Hold the root's lock; raises ``Retryable`` when another process holds it for ``wait`` seconds.

    The operating system lets go of the lock when its holder dies, however it dies.
    """
    try:
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise Fatal("the root directory of the logs does not exist: correct 'root', or create it") from None
    except OSError as error:
        raise from_os_error(error, LOCK) from error
    try:
        deadline = time.monotonic() + wait
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise Retryable("another worker is rewriting these logs", after=COME_BACK)
            time.sleep(STEP)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
