#!/usr/bin/env python
"""Draws the state diagram in docs/reference/states.md from ``orchestrator.core.transitions.TRANSITIONS``.

``python tools/state_diagram.py`` prints it; with ``--write`` it goes into the page, which a test holds to it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from orchestrator.core.transitions import TRANSITIONS
from orchestrator.core.vocabulary import StepState

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "states.md"
START, END = "<!-- state diagram: begin -->", "<!-- state diagram: end -->"


def diagram() -> str:
    """The table of transitions as Mermaid; moves between the same two states share an arrow."""
    arrows: defaultdict[tuple[StepState, StepState], list[str]] = defaultdict(list)
    for (before, move), after in TRANSITIONS.items():
        arrows[before, after].append(move.value)
    lines = [f"    {before.value} --> {after.value}: {', '.join(moves)}" for (before, after), moves in arrows.items()]
    first, last = StepState.WAITING.value, StepState.DONE.value
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *lines, f"    {last} --> [*]", "```"])


def filled(page: str) -> str:
    """The page with the diagram of today between its two marks. Raises ``ValueError`` when a mark is missing."""
    before, begin, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the marks {START} and {END}")
    return f"{before}{START}\n{diagram()}\n{END}{after}"


def main() -> None:
    """Print or write."""
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(diagram() + "\n")


if __name__ == "__main__":
    main()
