"""A batch of people, ready to be looked for: one set of needles per source, and who a parsed line belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from connectors.contract import Task
from connectors.logs.chunks import Chunk
from connectors.logs.config import LogsConfig, SourceConfig
from connectors.logs.formats import Combined, LineFormat, Regex, Span
from connectors.logs.identities import needs_folding, normalise
from connectors.logs.jsonl import JsonLines
from connectors.logs.needles import Needles

__all__ = ["Hit", "Matcher", "subjects_of"]

CARRIAGE_RETURN: Final = ord("\r")

Subjects = dict[str, dict[str, tuple[int, ...]]]
"""Identity type → normalised value → indexes of the tasks with that identity."""


class Hit(NamedTuple):
    """A line that belongs to somebody: ``buffer[start:end]`` of a chunk, its line end not included."""

    start: int
    end: int
    line: bytes
    """The same bytes."""
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
    """Finds the lines of one source that belong to the people of one batch."""

    def __init__(self, source: SourceConfig, config: LogsConfig, subjects: Subjects) -> None:
        self.format = line_format(source)
        selecting = config.selecting()
        self._kinds = {n: f.identity for n, f in source.fields.items() if f.identity and f.identity in selecting}
        self._subjects = subjects
        self._wanted = {name: (kind, subjects[kind]) for name, kind in self._kinds.items() if kind in subjects}
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
        return Needles(needles, self.format.odd(needles), fold=self._fold) if needles else None

    @property
    def idle(self) -> bool:
        """Whether nobody of the batch can be found in this source, so that its files need not be read."""
        return self._needles is None

    def hits(self, chunk: Chunk) -> Iterator[Hit | None]:
        """The lines of a chunk (whole lines) that belong to somebody, in order; ``None`` for one nobody can read."""
        buffer, parse = chunk.buffer, self.format.parse
        with memoryview(buffer) as view:
            for start, end in self._needles.lines(buffer, chunk.end) if self._needles else ():
                stop = end - 1 if end > start and buffer[end - 1] == CARRIAGE_RETURN else end
                if end - start > self._longest:
                    yield None
                    continue
                line = bytes(view[start:stop])
                spans = parse(line)
                if spans is None:
                    yield None
                elif tasks := self._owners(spans):
                    yield Hit(start, stop, line, spans, tasks)

    def _owners(self, spans: Iterable[Span]) -> frozenset[int]:
        owners: tuple[int, ...] = ()
        for span in spans:
            if span.name in self._wanted and span.text is not None:
                kind, subjects = self._wanted[span.name]
                owners += subjects.get(normalise(kind, span.text), ())
        return frozenset(owners)
