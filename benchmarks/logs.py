"""How fast the ``logs`` connector searches and rewrites, beside ``grep -F`` and ``zgrep -F`` with the same people.

    python -m benchmarks.logs [--megabytes 100] [--people 1000] [--threads 2] [--seed 1]

Every number is the best of three; the data are generated, the same for the same seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from connectors.contract import Action, Done, Identity, Sink, Task
from connectors.logs import Logs, LogsConfig
from connectors.logs.codecs import encoder

SUFFIXES = {"plain": "", "gzip": ".gz", "zstd": ".zst"}
FILES = 2
POPULATION = 200_000


@dataclass(frozen=True)
class BenchmarkCall:
    """Lends the time alone."""

    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)

    def sink(self, task: Task) -> Sink:
        """Nothing here gathers data."""
        raise NotImplementedError(task.key)


def email(user: int) -> str:
    """A person's address."""
    return f"user{user}@mail{user % 50}.example"


def generate(root: Path, megabytes: int, seed: int) -> int:
    """Write the files in each compression; returns their plain size in bytes."""
    rng, size = random.Random(seed), 0
    for number in range(FILES):
        lines, held = list[bytes](), 0
        while held < megabytes * 1_000_000 // FILES:
            lines.append(_line(rng))
            held += len(lines[-1])
        data = b"".join(lines)
        size += len(data)
        for kind, suffix in SUFFIXES.items():
            compress = encoder(kind)
            (root / f"app.{number}.jsonl{suffix}").write_bytes(compress.compress(data) + compress.flush())
    return size


def _line(rng: random.Random) -> bytes:
    user = rng.randrange(POPULATION)
    record = {
        "at": f"2026-10-{rng.randrange(1, 29):02d}T{rng.randrange(24):02d}:{rng.randrange(60):02d}:12Z",
        "level": "info",
        "user_id": user,
        "email": email(user),
        "client": {"ip": f"10.{rng.randrange(255)}.{rng.randrange(255)}.{rng.randrange(255)}"},
        "message": "request handled",
        "path": f"/shop/items/{rng.randrange(10**6)}",
    }
    return json.dumps(record).encode() + b"\n"


def connector(root: Path, suffix: str, threads: int) -> Logs:
    """A connector for the files of one compression."""
    settings: Mapping[str, Any] = {
        "root": root,
        "threads": threads,
        "sources": [
            {
                "name": "app",
                "files": f"app.*.jsonl{suffix}",
                "format": "jsonl",
                "fields": {"user_id": {"identity": "user_id"}, "email": {"identity": "email"}},
            }
        ],
    }
    return Logs("logs", LogsConfig.model_validate(settings))


def best(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The least seconds of three runs."""
    times = []
    for _ in range(3):
        before()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def grep(root: Path, patterns: Path, suffix: str) -> float:
    """Seconds that ``grep``, or ``zgrep``, takes."""
    command = ["zgrep" if suffix else "grep", "-F", "-c", "-f", str(patterns)]
    files = [str(path) for path in sorted(root.glob(f"app.*.jsonl{suffix}"))]
    environment = {**os.environ, "LC_ALL": "C"}
    return best(lambda: subprocess.run([*command, *files], env=environment, capture_output=True, check=False))


def measure(root: Path, size: int, people: list[int], threads: int) -> None:
    """Print a line for each compression."""
    patterns = root / "patterns"
    patterns.write_text("".join(f"{email(user)}\n" for user in people))
    print(f"{'files':6} {'verify MB/s':>12} {'grep MB/s':>10} {'ratio':>6} {'erase MB/s':>11}")
    for kind, suffix in SUFFIXES.items():
        found = best(partial(perform, root, suffix, threads, Action.VERIFY, people))
        grepped = grep(root, patterns, suffix) if kind != "zstd" else None
        copy = root / "copy"

        def fresh(suffix: str = suffix, copy: Path = copy) -> None:
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            for path in root.glob(f"app.*.jsonl{suffix}"):
                shutil.copy(path, copy)

        erased = best(partial(perform, copy, suffix, threads, Action.ERASE, people), fresh)
        beside = f"{size / grepped / 1e6:10.0f} {grepped / found:6.2f}" if grepped else f"{'':17}"
        print(f"{kind:6} {size / found / 1e6:12.0f} {beside} {size / erased / 1e6:11.0f}")


def perform(root: Path, suffix: str, threads: int, action: Action, people: list[int]) -> None:
    """One batch, as the engine would hand it over."""
    tasks = [Task(f"r{user}/1", action, (Identity("email", email(user)),)) for user in people]
    results = [result for _, result in connector(root, suffix, threads).perform(action, tasks, BenchmarkCall())]
    if action is Action.ERASE and not all(isinstance(result, Done) for result in results):
        raise SystemExit("an erasure failed")


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        size = generate(root, options.megabytes, options.seed)
        people = random.Random(options.seed).sample(range(POPULATION), options.people)
        print(f"{size / 1e6:.0f} MB in {FILES} files, {options.people} people, {options.threads} threads, "
              f"{os.cpu_count()} processors")  # fmt: skip
        measure(root, size, people, options.threads)


if __name__ == "__main__":
    main()
