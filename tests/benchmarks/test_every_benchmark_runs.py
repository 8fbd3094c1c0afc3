"""Every benchmark runs, in small, and what it measures does what it should. How fast it is, no test asks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES, PAGE, load


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_its_results_are_right(name: str, tmp_path: Path) -> None:
    report = load(name).run(tmp_path, small=True)
    assert report.figures, "it measured nothing"
    for figure in report.figures:
        assert figure.ours, figure.what
        assert all(math.isfinite(v) and v >= 0 for v in (*figure.ours, *figure.theirs)), figure.what
        assert not figure.theirs or figure.peer, f"{figure.what}: compared with what?"
    assert report.settings


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_has_its_place_in_the_documentation(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"<!-- figures: {name} -->" in text
    assert f"<!-- end: {name} -->" in text
