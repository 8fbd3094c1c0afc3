"""The project's pages of documentation, taken apart for the tests that hold them to the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.tree import ROOT, relative

FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^ *```\s*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        """Its path in the project."""
        return relative(self.path)

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """Without fenced blocks."""
        return FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> list[str]:
        """The fenced blocks in these languages, without their indentation."""
        found = FENCE.findall(self.text)
        return [re.sub(f"(?m)^{indent}", "", body) for indent, language, body in found if language in languages]

    @property
    def spans(self) -> list[str]:
        """Everything between backticks, blocks aside."""
        return SPAN.findall(self.prose)

    @property
    def links(self) -> list[str]:
        """Where its links lead, as written; those inside the project only."""
        without_code = SPAN.sub("", self.prose)
        return [link for link in LINK.findall(without_code) if not re.match(r"[a-z]+:", link)]

    @property
    def anchors(self) -> set[str]:
        """The anchors of its headings, as the usual renderers make them."""
        return {slug(heading) for heading in HEADING.findall(self.prose)}

    @property
    def commands(self) -> list[list[str]]:
        """The words of every ``habeas`` command it names, without the first."""
        lines = [
            line.removeprefix("$ ")
            for block in self.blocks("console", "sh", "")
            for line in block.splitlines()
            if line.startswith("$ habeas ")
        ]
        spans = [span for span in self.spans if re.match(r"habeas [a-z]", span)]
        return [re.sub(r"\s+#.*", "", line).split()[1:] for line in lines + spans]


def slug(heading: str) -> str:
    """``## Of a request`` → ``of-a-request``."""
    text = re.sub(r"[^\w\- ]", "", heading.lower())
    return text.strip().replace(" ", "-")


def section(page: Page, heading: str) -> str:
    """The text below a heading, up to the next one of its level. Raises ``KeyError``."""
    parts = re.split(r"^## +", page.prose, flags=re.MULTILINE)
    for part in parts[1:]:
        title, _, body = part.partition("\n")
        if title.strip() == heading:
            return body
    raise KeyError(f"{page} has no section {heading!r}")


def pages() -> list[Page]:
    """All of them."""
    fixed = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "newsfragments" / "README.md"]
    folders = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "connectors").glob("*.md"), *(ROOT / "workflows").glob("*.md")]
    return [Page(path) for path in [*fixed, *sorted(folders)]]


def page(path: str) -> Page:
    """One of them, by its path in the project."""
    return Page(ROOT / path)
