"""One server of each kind for a whole test run: the first worker to ask starts it, the others use it too."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path


def once(folder: Path, name: str, start: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """What ``start`` returned, called once per test run however many processes ask; with a folder of its own.

    Nobody stops it: that is the reaper's, when the whole run has ended.
    """
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = folder / f"{name}.json"
        if not answer.exists():
            answer.write_text(json.dumps(start(folder / name)))
        return dict(json.loads(answer.read_text()))
