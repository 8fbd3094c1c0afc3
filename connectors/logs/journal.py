"""What was erased for which task, so that an attempt that was cut short is counted when the task comes again.

Without it a worker that is killed after it replaced a file, and before it could say so, would leave its successor to
report that nothing was found. The journal lies in the root (``.habeas.journal``) and holds task keys and numbers only.
Only the holder of the root's lock uses it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from connectors.contract import Retryable
from connectors.logs.files import OWN_PREFIX, from_os_error

__all__ = ["Journal"]

NAME: Final = f"{OWN_PREFIX}.journal"
KEPT: Final = timedelta(days=30)

Inode = tuple[int, int]
Counts = Mapping[str, int]


class Journal:
    """Erased lines by task and source. An entry is announced before a file is replaced and confirmed after."""

    def __init__(self, root: Path, existing: Collection[Inode], now: datetime, *, whole: bool = True) -> None:
        """Read what is there. An announced and unconfirmed entry counts if its file is among the ``existing`` ones.

        If these are not all there are (``whole``), because some could not be looked at, the others wait for the next.
        """
        self._path = root / NAME
        self._now = now
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, int]] = {}
        self._times: dict[str, str] = {}
        announced: dict[Inode, dict[str, Any]] = {}
        for entry in self._entries():
            inode = tuple(entry.get("inode", ()))
            match entry["what"]:
                case "task":
                    self._add({entry["task"]: entry["lines"]}, entry["at"])
                case "announced":
                    announced[inode] = entry
                case "confirmed" if inode in announced:
                    done = announced.pop(inode)
                    self._add(done["tasks"], done["at"])
                case "withdrawn":
                    announced.pop(inode, None)
                case _:  # confirmed before a crash lost its announcement
                    pass
        for inode, entry in announced.items():
            if inode in existing:
                self._add(entry["tasks"], entry["at"])
        if whole:
            self._compact()

    def lines(self, task: str) -> Counts:
        """Lines erased for a task so far, by source."""
        return self._counts.get(task, {})

    def announce(self, inode: Inode, tasks: Mapping[str, Counts]) -> None:
        """A file that takes this much away from these tasks is about to take its place."""
        self._append({"what": "announced", "inode": inode, "at": self._now.isoformat(), "tasks": tasks})

    def confirm(self, inode: Inode, tasks: Mapping[str, Counts]) -> None:
        """It has taken its place."""
        self._append({"what": "confirmed", "inode": inode})
        with self._lock:
            self._add(tasks, self._now.isoformat())

    def withdraw(self, inode: Inode) -> None:
        """It has not, and never will."""
        self._append({"what": "withdrawn", "inode": inode})

    def _add(self, tasks: Mapping[str, Counts], at: str) -> None:
        for task, lines in tasks.items():
            known = self._counts.setdefault(task, {})
            self._times[task] = max(at, self._times.get(task, at))
            for source, count in lines.items():
                known[source] = known.get(source, 0) + count

    def _entries(self) -> Iterator[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os_error(error, NAME) from error
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # the last line of a writer that was killed
                continue

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._lock:
            self._write(self._path, os.O_APPEND, [entry])

    def _compact(self) -> None:
        """Leave one line for each task, and none for those long settled."""
        oldest = (self._now - KEPT).isoformat()
        for task in [task for task, at in self._times.items() if at < oldest]:
            del self._counts[task], self._times[task]
        if not self._counts and not self._path.exists():
            return
        fresh = self._path.with_name(f"{NAME}.new")
        entries = [{"what": "task", "task": t, "at": self._times[t], "lines": n} for t, n in self._counts.items()]
        self._write(fresh, os.O_TRUNC, entries)
        fresh.replace(self._path)

    @staticmethod
    def _write(path: Path, flag: int, entries: list[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flag, 0o600)
            with os.fdopen(descriptor, "ab", closefd=True) as file:
                file.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise from_os_error(error, NAME) from error
        except ValueError as error:
            raise Retryable("the journal of erased log lines cannot be written") from error
