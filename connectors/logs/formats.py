"""Line formats: what each tells about a line's fields, and which needles find the lines worth asking.

A *needle* is a byte string that every line holding a given value must contain. Needles may find too much, never too
little: a line that they find is parsed, and the parsed value decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from connectors.logs.config import COMBINED_FIELDS, SourceConfig
from connectors.logs.identities import safe_run, spellings

__all__ = ["Combined", "LineFormat", "Regex", "Span"]


class Span(NamedTuple):
    """One field of one line, and where its value lies: ``line[start:end]``, in bytes."""

    name: str
    start: int
    end: int
    value: Any
    """As JSON takes it; for access records."""
    text: str | None
    """For comparing with identities; ``None`` where the value is no scalar."""


class LineFormat(Protocol):
    """How lines of one source are read."""

    holds_any_token: bool
    """Whether a line stays in this format whatever field is replaced by whatever token."""
    in_order: bool
    """Whether fields are told in the order in which they stand in a line, and none lies within another."""

    def needles(self, name: str, kind: str, value: str) -> Iterable[bytes]:
        """Every line whose field ``name`` holds ``value`` (normalised) contains one of these, or one of ``odd``."""

    def odd(self, needles: Iterable[bytes]) -> Mapping[bytes, Iterable[bytes]]:
        """What an encoder may have written instead of one of these needles, by a byte that most logs do not hold.

        Lines with one of these are candidates, too.
        """

    def parse(self, line: bytes) -> list[Span] | None:
        """The line's configured fields that hold something; ``None`` when the line is not in this format."""

    def encode(self, token: str) -> bytes:
        """A replacement value as it stands in a line."""


QUOTED: Final = rb"\"([^\"\\]*(?:\\.[^\"\\]*)*)\""
COMBINED_LINE: Final = re.compile(
    rb"(\S+) (\S+) (.+?) \[([^\[\]\"]*)\] %b (\d{3}|-) (\d+|-)(?: %b %b)?(?=\s|$)" % (QUOTED, QUOTED, QUOTED)
)
COMBINED_ESCAPE: Final = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
SHORT_ESCAPES: Final = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"v": b"\v", b"f": b"\f"}


class Combined:
    """Apache's and nginx's combined format (and common: the last two fields may be missing). ``-`` is no value."""

    holds_any_token = False  # a status is a number
    in_order = False

    def __init__(self, names: Iterable[str]) -> None:
        self._fields = tuple((COMBINED_FIELDS.index(name) + 1, name) for name in names)

    def needles(self, name: str, kind: str, value: str) -> Iterator[bytes]:  # noqa: D102 - see LineFormat
        before, after = {
            "remote_addr": ("", " "),
            "ident": (" ", " "),
            "remote_user": (" ", " ["),
            "time": ("[", "]"),
            "status": (" ", ""),
            "size": (" ", ""),
        }.get(name, ('"', '"'))
        for text, whole in spellings(kind, value):
            run = safe_run(text)
            if run == text:
                yield f"{before if whole else ''}{text}{after if whole or kind == 'ip' else ''}".encode()
            elif run:
                yield run.encode()

    def odd(self, needles: Iterable[bytes]) -> Mapping[bytes, Iterable[bytes]]:  # noqa: ARG002, D102 - see LineFormat
        return {b"\\": (b"\\",)}

    def parse(self, line: bytes) -> list[Span] | None:  # noqa: D102 - see LineFormat
        match = COMBINED_LINE.match(line)
        if match is None:
            return None
        spans = []
        for group, name in self._fields:
            raw = match.group(group)
            if raw is None or raw in (b"-", b""):
                continue
            text = _text(COMBINED_ESCAPE.sub(_unescape, raw) if b"\\" in raw else raw)
            spans.append(Span(name, *match.span(group), text, text))
        return spans

    def encode(self, token: str) -> bytes:  # noqa: D102 - see LineFormat
        return token.encode()


def _unescape(match: re.Match[bytes]) -> bytes:
    escape: bytes = match.group(1)
    if len(escape) > 1:
        return bytes([int(escape[1:], 16)])
    return SHORT_ESCAPES.get(escape, escape)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Regex:
    """Lines that a regular expression with named groups matches from their start."""

    holds_any_token = False
    in_order = False

    def __init__(self, source: SourceConfig) -> None:
        self._pattern = re.compile((source.pattern or "").encode())
        self._names = (*source.fields, *source.context)

    def needles(self, name: str, kind: str, value: str) -> Iterator[bytes]:  # noqa: ARG002, D102 - see LineFormat
        for text, _ in spellings(kind, value):
            if text and "\n" not in text:
                yield text.encode("utf-8", "surrogatepass")

    def odd(self, needles: Iterable[bytes]) -> Mapping[bytes, Iterable[bytes]]:  # noqa: ARG002, D102 - see LineFormat
        return {}

    def parse(self, line: bytes) -> list[Span] | None:  # noqa: D102 - see LineFormat
        match = self._pattern.match(line)
        if match is None:
            return None
        spans = []
        for name in self._names:
            raw = match.group(name)
            if raw:
                text = _text(raw)
                spans.append(Span(name, *match.span(name), text, text))
        return spans

    def encode(self, token: str) -> bytes:  # noqa: D102 - see LineFormat
        return token.encode()
