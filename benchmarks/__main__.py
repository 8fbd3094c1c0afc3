"""Measures Habeas beside its peers: ``python -m benchmarks [NAME …] [--small] [--write]``.

Without names all benchmarks run, one after the other. ``--write`` keeps the figures in ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import cast

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Benchmark, Figure, Report

NAMES = ("orchestration", "latency", "workers", "flat", "job", "erasure", "logs", "exports", "recovery")
"""All benchmarks, in the order in which they run."""
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def load(name: str) -> Benchmark:
    """A benchmark by name."""
    return cast("Benchmark", importlib.import_module(f"benchmarks.{name}"))


def main() -> int:
    """Run; 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(NAMES)}; default: all")
    parser.add_argument("--small", action="store_true", help="some seconds each, to see that they run")
    parser.add_argument("--write", action="store_true", help="keep the figures in docs/performance.md")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    # So that what was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(width=None if sys.stdout.isatty() else 160)
    reports: dict[str, Report] = {}
    for name in given.names or NAMES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"habeas-{name}-") as folder:
            reports[name] = load(name).run(Path(folder), small=given.small)
        console.print(_table(name, reports[name], time.monotonic() - began))
    if given.write and not given.small:
        write(reports, PAGE)
    return 1 if any(f.met is False for r in reports.values() for f in r.figures) else 0


def _table(name: str, report: Report, seconds: float) -> Table:
    caption = "; ".join([*(f"{k}: {v}" for k, v in report.settings.items()), *report.notes])
    table = Table(title=f"{name}: {load(name).TITLE} ({seconds:.0f} s)", caption=caption, title_justify="left")
    for column in ("what", "measured", "beside", "measured", "ratio", "target"):
        table.add_column(column, justify="right" if column in {"measured", "ratio", "target"} else "left")
    for figure in report.figures:
        table.add_row(*_cells(figure))
    return table


def _cells(figure: Figure) -> tuple[str, ...]:
    verdict = {True: " ✓", False: " ✗ missed", None: ""}[figure.met]
    return (
        figure.what,
        f"{spread(figure.ours)} {figure.unit}",
        figure.peer,
        f"{spread(figure.theirs)} {figure.unit}" if figure.theirs else "",
        f"{figure.ratio:.3g}" if figure.ratio is not None else "",
        figure.target + verdict,
    )


def spread(values: object) -> str:
    """The median, and in brackets the least and the most."""
    numbers = sorted(cast("list[float]", values))
    middle = f"{median(numbers):,.4g}"
    return middle if len(numbers) == 1 else f"{middle} ({numbers[0]:,.4g}–{numbers[-1]:,.4g})"


def write(reports: Mapping[str, Report], page: Path) -> None:
    """Put each report between its own marks in the page."""
    text = page.read_text(encoding="utf-8")
    for name, report in reports.items():
        begin, end = f"<!-- figures: {name} -->", f"<!-- end: {name} -->"
        block = f"{begin}\n\n{markdown(report)}\n\n{end}"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"{page} has no place for {name}: a line {begin} and a line {end}")
        text = head + block + tail
    page.write_text(text, encoding="utf-8")


def markdown(report: Report) -> str:
    """A report as it stands in the documentation."""
    lines = ["| what | measured | beside | measured | ratio | target |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(_cells(f)) + " |" for f in report.figures]
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    settings = "; ".join([machine, *(f"{k}: {v}" for k, v in report.settings.items())])
    return "\n".join([*lines, "", f"Measured with: {settings}.", *(f"\n{note}" for note in report.notes)])


if __name__ == "__main__":
    sys.exit(main())
