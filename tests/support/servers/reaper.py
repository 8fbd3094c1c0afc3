"""Ends every server of a test run when the run ends, however it ends.

The pytest process holds the other end of this process's standard input. When pytest is gone, by its own will, by
Ctrl-C or by ``kill -9``, the pipe closes; then whatever is noted in the folder is ended and the folder removed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

PATIENCE = 10.0
"""Seconds a process is given to end by itself."""


class Reaper:
    """The pytest side: makes the folder that the servers live in, and starts the watcher."""

    def __init__(self) -> None:
        # A short name: Unix sockets live in here, and their paths must stay under 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="habeas-t"))
        (self.folder / "pids").mkdir()
        self._watcher = subprocess.Popen(
            [sys.executable, __file__, str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )

    def close(self) -> None:
        """End everything and wait until it is gone."""
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()


def note(folder: Path, pid: int) -> None:
    """Have a process, and all that descends from it, ended with the test run."""
    with suppress(psutil.NoSuchProcess):
        born = psutil.Process(pid).create_time()
        (folder / "pids" / str(pid)).write_text(json.dumps({"pid": pid, "born": born}))


def note_postgres(folder: Path, data: Path) -> None:
    """Have whatever PostgreSQL runs in a data directory at the end of the test run ended with it."""
    name = str(data).replace("/", "%")[-200:]
    (folder / "pids" / name).write_text(json.dumps({"data": str(data)}))


def end(pid: int, born: float | None = None) -> None:
    """End a process and its descendants: PostgreSQL at once but tidily, anything else hard."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if born is not None and abs(process.create_time() - born) > 1:
            return
        family = [process, *process.children(recursive=True)]
        if process.name().startswith("postgres"):
            # SIGQUIT, so that it removes its shared memory.
            process.send_signal(signal.SIGQUIT)
            await_end(family)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        await_end(family)


def await_end(family: list[psutil.Process]) -> None:
    """Wait until none of them runs; one that its parent has not yet buried does not run either."""
    end = time.monotonic() + PATIENCE
    while any(map(runs, family)) and time.monotonic() < end:
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def reap(folder: Path) -> None:
    """End all that is noted in the folder, then remove it."""
    for entry in (folder / "pids").iterdir():
        with suppress(OSError, ValueError, IndexError):
            noted = json.loads(entry.read_text())
            if "data" in noted:
                end(int((Path(noted["data"]) / "postmaster.pid").read_text().splitlines()[0]))
            else:
                end(noted["pid"], noted["born"])
    # One that was being started at that very moment is noted nowhere yet, but was told where to put its files.
    while stragglers := [process for process in psutil.process_iter() if mentions(process, str(folder))]:
        for process in stragglers:
            end(process.pid)
    shutil.rmtree(folder, ignore_errors=True)


def mentions(process: psutil.Process, folder: str) -> bool:
    """Whether a running process was given the folder, as an argument or in its environment."""
    if process.pid == os.getpid() or not runs(process):
        return False
    with suppress(psutil.Error):
        return any(folder in text for text in [*process.cmdline(), *process.environ().values()])
    return False


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    sys.stdin.read()
    reap(Path(sys.argv[1]))
