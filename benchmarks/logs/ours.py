"""The ``logs`` connector, driven as the engine drives it."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import WrongResult
from benchmarks.logs.data import SUFFIXES, email
from connectors.contract import Action, Done, Identity, Result, Task
from connectors.logs import Logs, LogsConfig
from tests.support.log_files import ListCall

PROCESSES = 2


def connector(root: Path, kind: str) -> Logs:
    """A connector for the files of one compression, which redacts."""
    source: dict[str, Any] = {
        "name": "app",
        "files": f"app.*.jsonl{SUFFIXES[kind]}",
        "format": "jsonl",
        "fields": {"user_id": {"identity": "user_id"}, "email": {"identity": "email"}},
        "on_erase": "redact",
    }
    return Logs("logs", LogsConfig.model_validate({"root": root, "processes": PROCESSES, "sources": [source]}))


def perform(root: Path, kind: str, action: Action, people: Sequence[int], call: ListCall | None = None) -> list[Result]:
    """One batch; the result for each person."""
    tasks = [Task(f"r{person}/1", action, (Identity("email", email(person)),)) for person in people]
    return [result for _, result in connector(root, kind).perform(action, tasks, call or ListCall())]


def find(root: Path, kind: str, people: Sequence[int]) -> int:
    """Have everybody's lines looked for; returns how many there are."""
    found = 0
    for result in perform(root, kind, Action.VERIFY, people):
        if not isinstance(result, Done):  # lines remain: the error says how many
            found += sum(int(count) for count in re.findall(r"(\d+) in source", str(result)))
    return found


def lines(root: Path, kind: str, people: Sequence[int]) -> list[tuple[str, int]]:
    """File and number of every line of somebody's."""
    call = ListCall()
    perform(root, kind, Action.ACCESS, people, call)
    return sorted((r["file"], r["line"]) for sink in call.sinks.values() for _, r in sink.records)


def redact(root: Path, kind: str, people: Sequence[int]) -> int:
    """Have everybody's lines redacted; returns how many were."""
    redacted = 0
    for result in perform(root, kind, Action.ERASE, people):
        if not isinstance(result, Done):
            raise WrongResult(f"redacting failed: {result}")
        redacted += sum(result.counts.values())
    return redacted


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak(root: Path, copy: Path, people: Sequence[int]) -> float:
    """Megabytes that this process and those beside it held at most, together, after finding and redacting everything.

    What they share (the interpreter, libraries) is counted in each, and the most of each as if all had it at once.
    """
    held = Counter[int]()
    for kind, suffix in SUFFIXES.items():
        find(root, kind, people)
        copy.mkdir()
        for file in root.glob(f"app.*.jsonl{suffix}"):
            shutil.copy(file, copy)
        redact(copy, kind, people)
        shutil.rmtree(copy)
        me = psutil.Process()
        held |= Counter({process.pid: _most(process.pid) for process in (me, *me.children())})
    return sum(held.values()) / 1024


def _most(pid: int) -> int:
    """Kilobytes."""
    return int(Path(f"/proc/{pid}/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0])
