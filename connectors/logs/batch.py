"""A batch of people on one configuration: which lines are theirs, and what becomes of them."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from typing import Final, NamedTuple

from connectors.contract import Fatal, Task
from connectors.logs.chunks import Chunk, chunks
from connectors.logs.codecs import BLOCK, reader
from connectors.logs.config import LogsConfig, SourceConfig
from connectors.logs.files import Listing, LogFile, from_os_error, log_files
from connectors.logs.formats import Span
from connectors.logs.matching import Hit, Matcher, subjects_of

__all__ = ["Batch", "Edit", "Tally"]

PSEUDONYM: Final = re.compile(r"erased:[0-9a-f]{32}")


class Edit(NamedTuple):
    """What becomes of one line."""

    replacement: bytes | None
    """``None``: the line goes, with its line end."""
    tasks: tuple[int, ...]
    """The tasks on whose behalf."""


@dataclass(slots=True)
class Tally:
    """What was found in some files."""

    lines: Counter[tuple[int, str]] = field(default_factory=Counter)
    """(task index, source name) → lines."""
    live: Counter[tuple[int, str]] = field(default_factory=Counter)
    """The same for lines that must wait, because their file is still written to."""
    files: int = 0
    rewritten: int = 0
    unparsed: int = 0
    """Candidate lines that are not in their source's format, and lines too long to be looked at."""
    inodes: set[tuple[int, int]] = field(default_factory=set)
    """The files dealt with, by device and inode."""

    def add(self, other: Tally) -> None:
        """Count in what was found in other files."""
        self.lines.update(other.lines)
        self.live.update(other.live)
        self.files += other.files
        self.rewritten += other.rewritten
        self.unparsed += other.unparsed
        self.inodes |= other.inodes

    def evidence(self) -> dict[str, int]:
        """What to keep as proof of the pass."""
        return {"files_searched": self.files, "files_rewritten": self.rewritten, "lines_unparsed": self.unparsed}


class Batch:
    """Tasks, and everything that is worked out once for all files."""

    def __init__(self, config: LogsConfig, tasks: Sequence[Task]) -> None:
        self.config = config
        self.tasks = tasks
        subjects = subjects_of(tasks, config.selecting())
        self._matchers = [Matcher(source, config, subjects) for source in config.sources]
        self._fields = [frozenset(source.fields) for source in config.sources]
        self._on_erase = [source.on_erase for source in config.sources]
        self._scopes = [_scopes(source, tasks) for source in config.sources]
        self._in_order = [matcher.format.in_order for matcher in self._matchers]
        self._takes_any = [matcher.format.holds_any_token for matcher in self._matchers]
        self._token = config.token
        self._tokens = [matcher.format.encode(config.token) for matcher in self._matchers]
        self._key = config.pseudonym_key.get_secret_value().encode() if config.pseudonym_key else b""

    def source(self, file: LogFile) -> SourceConfig:
        """The source that a file belongs to."""
        return self.config.sources[file.source]

    def in_scope(self, task: int) -> bool:
        """Whether any source has a field that this task is about."""
        return any(scopes[task] for scopes in self._scopes)

    def files(self) -> Listing:
        """The files in which anybody of the batch can be found, largest first, and what could not be looked at."""
        files, errors = log_files(self.config.root, self.config.sources)
        return Listing([file for file in files if not self._matchers[file.source].idle], errors)

    def lines(
        self, file: LogFile, stream: FileIO, tally: Tally, *, start: int = 0
    ) -> Iterator[tuple[Chunk, Iterator[Hit | None]]]:
        """Read a file, in chunks, with the lines that belong to somebody, if they lie behind the byte ``start``.

        ``None`` is for a line nobody can read; pieces of lines that are too long are counted here.
        """
        at, passing, hits = 0, False, self._matchers[file.source].hits
        try:
            for chunk in chunks(reader(stream, file.kind, file.name), self.config.longest_line, BLOCK):
                at += chunk.end
                looked_at = at > start
                tally.unparsed += looked_at and not chunk.whole and not passing
                passing = not chunk.whole
                yield chunk, hits(chunk) if looked_at and chunk.whole else iter(())
        except OSError as error:
            raise from_os_error(error, file.name) from error

    def holding(self, file: LogFile, hit: Hit) -> dict[int, list[Span]]:
        """For each task that a line is about: its fields in scope that still hold something."""
        scopes, fields, erased = self._scopes[file.source], self._fields[file.source], self.erased
        held = [span for span in hit.spans if span.name in fields and not erased(span)]
        mine = {}
        for task in hit.tasks:
            scope = scopes[task]
            spans = held if len(scope) == len(fields) else [span for span in held if span.name in scope]
            if spans:
                mine[task] = spans
        return mine

    def edit(self, file: LogFile, hit: Hit) -> Edit | None:
        """What erasure does to a line; ``None`` when nothing is left to erase.

        Raises ``Fatal`` when the line would not be in its source's format any more, for then nobody whose other fields
        are on it could ever find it again.
        """
        holding = self.holding(file, hit)
        if not holding:
            return None
        tasks = tuple(holding)
        if len(holding) == 1:
            [gone] = holding.values()
        else:
            gone = list({(span.start, span.end): span for spans in holding.values() for span in spans}.values())
        if len(holding) > 1 or not self._in_order[file.source]:
            gone.sort(key=_outermost_first)
        fields = self._fields[file.source]
        if self._on_erase[file.source] == "remove" and all(
            span in gone or self.erased(span) for span in hit.spans if span.name in fields
        ):
            return Edit(None, tasks)
        redacted = self._splice(file, hit.line, gone)
        if not (self._takes_any[file.source] or self._reads(file, redacted, gone)):
            raise Fatal(
                f"source {self.source(file).name!r} cannot read a line whose field holds the token: let its 'pattern' "
                "match any text there, or choose another 'token'"
            )
        return Edit(redacted, tasks)

    def _reads(self, file: LogFile, line: bytes, redacted: Sequence[Span]) -> bool:
        """Whether a line is in its format still, with what erasure leaves in these fields."""
        spans, names = self._matchers[file.source].format.parse(line), {span.name for span in redacted}
        return spans is not None and all(self.erased(span) for span in spans if span.name in names)

    def _splice(self, file: LogFile, line: bytes, spans: Sequence[Span]) -> bytes:
        parts, at, token = list[bytes](), 0, self._tokens[file.source]
        pseudonymised = self._on_erase[file.source] == "pseudonymise"
        for span in spans:
            _, start, end, _, _ = span
            if start >= at:  # not inside a field that was replaced already
                parts += (line[at:start], self._pseudonym(file, span, line) if pseudonymised else token)
                at = end
        parts.append(line[at:])
        return b"".join(parts)

    def _pseudonym(self, file: LogFile, span: Span, line: bytes) -> bytes:
        value = line[span.start : span.end] if span.text is None else span.text.encode("utf-8", "surrogatepass")
        token = f"erased:{hmac.new(self._key, value, hashlib.sha256).hexdigest()[:32]}"
        return self._matchers[file.source].format.encode(token)

    def erased(self, span: Span) -> bool:
        """Whether a field holds what erasure leaves there."""
        text = span.text
        return text is not None and (
            text == self._token or (text.startswith("erased:") and PSEUDONYM.fullmatch(text) is not None)
        )


def _scopes(source: SourceConfig, tasks: Sequence[Task]) -> list[frozenset[str]]:
    """For each task, the source's fields that it is about; most tasks of a batch are about the same."""
    known = dict[frozenset[str] | None, frozenset[str]]()
    for task in tasks:
        if task.categories not in known:
            covered = (name for name, field in source.fields.items() if any(map(task.covers, field.kinds())))
            known[task.categories] = frozenset(covered)
    return [known[task.categories] for task in tasks]


def _outermost_first(span: Span) -> tuple[int, int]:
    return span.start, -span.end
