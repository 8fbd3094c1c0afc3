"""Habeas alone, for those who change the engine: ``python -m benchmarks.orchestration [--requests N] [--keep DIR]``.

Prints the rate and what each request costs. ``--keep`` leaves definition files and every process's log in a folder.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.orchestration.habeas import STEPS, Size, measure
from benchmarks.servers import servers


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--intakes", type=int, default=1, help="intake processes")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--processes", type=int, default=2, help="children of each worker")
    parser.add_argument("--batch", type=int, default=1000, help="steps of a claim, messages of an admission")
    parser.add_argument("--keep", type=Path, help="an empty folder for files and logs")
    given = parser.parse_args()
    size = Size(given.requests, given.intakes, given.workers, given.processes, given.batch)
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="habeas-orchestration-")))
        on = stack.enter_context(servers())
        print(size.in_words())
        for number in range(given.rounds):
            found = measure(folder / f"round{number}", on, f"round{number}", size)
            print(f"{found.rate:,.0f} requests/s, {found.rate * STEPS:,.0f} steps/s "
                  f"({found.requests} in {found.seconds:.1f} s, published within {found.published:.1f} s)")  # fmt: skip
            print("\n".join(found.costs.lines()), flush=True)


if __name__ == "__main__":
    main()
