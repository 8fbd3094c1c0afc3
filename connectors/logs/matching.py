"""A batch of people, ready to be looked for: one set of needles per source, and who a parsed line belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from connectors.contract import Task
from connectors.logs.config import LogsConfig, SourceConfig
from connectors.logs.formats import Combined, LineFormat, Regex, Span
from connectors.logs.identities import needs_folding, normalise
from connectors.logs.jsonl import JsonLines
from connectors.logs.needles import Needles

__all__ = ["Hit", "Matcher", "subjects_of"]

CARRIAGE_RETURN: Final = ord("\r")

Subjects = dict[str, dict[str, tuple[int, ...]]]
"""Identity type → normalised value → indexes of the tasks with that identity."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that belongs to somebody: ``chunk[start:end]``, its line end not included."""

    start: int
    end: int
    spans: Sequence[Span]
    tasks: frozenset[int]


def subjects_of(tasks: Sequence[Task], selecting: frozenset[str]) -> Subjects:
    """Who is looked for, by identity."""
    subjects: dict[str, dict[str, tuple[int, ...]]] = {}
    for index, task in enumerate(tasks):
        for kind in selecting:
            for value in dict.fromkeys(normalise(kind, value) for value in task.values(kind) if value):
                same = subjects.setdefault(kind, {})
                same[value] = (*same.get(value, ()), index)
    return subjects


def line_format(source: SourceConfig) -> LineFormat:
    """The reader of a source's lines."""
    names = (*source.fields, *source.context)
    match source.format:
        case "jsonl":
            return JsonLines(names)
        case "combined":
            return Combined(names)
        case "regex":
            return Regex(source)


class Matcher:
    """Finds the lines of one source that belong to the people of one batch. Safe to share between threads."""

    def __init__(self, source: SourceConfig, config: LogsConfig, subjects: Subjects) -> None:
        self.format = line_format(source)
        selecting = config.selecting()
        self._kinds = {n: f.identity for n, f in source.fields.items() if f.identity and f.identity in selecting}
        self._subjects = subjects
        self._longest = config.longest_line
        self._fold = any(needs_folding(k, v) for k in set(self._kinds.values()) for v in subjects.get(k, ()))

    @cached_property
    def _needles(self) -> Needles | None:
        needles = {
            needle
            for name, kind in self._kinds.items()
            for value in self._subjects.get(kind, ())
            for needle in self.format.needles(name, kind, value)
            if needle.strip(b"\0")
        }
        return Needles({*needles, *self.format.always()}, fold=self._fold) if needles else None

    @property
    def idle(self) -> bool:
        """Whether nobody of the batch can be found in this source, so that its files need not be read."""
        return self._needles is None

    def hits(self, chunk: bytes) -> Iterator[Hit | None]:
        """The lines of a chunk (whole lines) that belong to somebody, in order; ``None`` for one nobody can read."""
        for start, end in self._needles.lines(chunk) if self._needles else ():
            stop = end - 1 if end > start and chunk[end - 1] == CARRIAGE_RETURN else end
            spans = self.format.parse(chunk[start:stop]) if end - start <= self._longest else None
            if spans is None:
                yield None
            elif tasks := self._owners(spans):
                yield Hit(start, stop, spans, tasks)

    def _owners(self, spans: Iterable[Span]) -> frozenset[int]:
        owners: set[int] = set()
        for span in spans:
            kind = self._kinds.get(span.name)
            if kind is not None and span.text is not None:
                owners.update(self._subjects.get(kind, {}).get(normalise(kind, span.text), ()))
        return frozenset(owners)
