"""JSON lines: values found with their place in the line, whatever escapes, order and white space a writer chose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from json import JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final, cast

from connectors.logs.formats import Span
from connectors.logs.identities import safe_run, spellings

__all__ = ["JsonLines"]

WHITESPACE: Final = re.compile(r"[ \t\n\r]*")
INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
BEFORE_A_NUMBER: Final = (":", " ")
AFTER_A_NUMBER: Final = (",", "}", " ")
ODD_WHITESPACE: Final = (b"\t", b":\r", b" \r", b"\r,", b"\r}", b"\r ")
"""A tab is white space or nothing in JSON, and carriage returns inside a line are white space that nobody writes."""
LONG_NUMBER: Final = 5
"""Digits."""
LONGEST_INTEGER: Final = 18
"""Digits; longer ones stay text, so that no line can make parsing slow."""


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_INTEGER else digits


class _NotJson(ValueError):
    """The line is not one JSON object."""


class JsonLines:
    """One JSON object per line; a field is a dotted path to a string or a whole number in nested objects."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._parents = frozenset(name[:dot] for name in self._names for dot in range(len(name)) if name[dot] == ".")
        self._decode = JSONDecoder(strict=False, parse_constant=str, parse_int=_integer).raw_decode

    def needles(self, name: str, kind: str, value: str) -> Iterator[bytes]:  # noqa: ARG002, D102 - see LineFormat
        for text, whole in spellings(kind, value):
            run = safe_run(text)
            if run != text or not text:
                yield from self._fragments(text, run)
                continue
            yield f'"{text}"'.encode() if whole else f'{text}"'.encode()
            if whole and INTEGER.fullmatch(text):
                # What follows tells short numbers apart; longer ones are rare enough without, and searched faster.
                ends = AFTER_A_NUMBER if len(text) < LONG_NUMBER else ("",)
                yield from (f"{before}{text}{after}".encode() for before in BEFORE_A_NUMBER for after in ends)

    @staticmethod
    def _fragments(text: str, run: str) -> Iterator[bytes]:
        if run:
            yield run.encode()
        elif text:
            # Nothing that every encoder leaves alone: any line with an escape may hold it, or the text as it is.
            yield b"\\"
            yield text.encode("utf-8", "surrogatepass")

    def always(self) -> tuple[bytes, ...]:
        r"""ASCII behind an escape (``\u0040``) and odd white space around numbers."""
        return (b"\\u00", *ODD_WHITESPACE)

    def parse(self, line: bytes) -> list[Span] | None:  # noqa: D102 - see LineFormat
        text = line.decode("utf-8", "surrogateescape")
        start = 1 if text.startswith("\ufeff") else 0
        spans: list[Span] = []
        try:
            end = self._object(text, _skip(text, start), "", spans)
        except (ValueError, IndexError, RecursionError):
            return None
        if _skip(text, end) != len(text):
            return None
        return spans if len(text) == len(line) else [_in_bytes(span, text) for span in spans]

    def _object(self, text: str, at: int, prefix: str, spans: list[Span]) -> int:
        """Read the object that starts at ``at``; returns where it ends."""
        if text[at] != "{":
            raise _NotJson
        at = _skip(text, at + 1)
        if text[at] == "}":
            return at + 1
        while True:
            if text[at] != '"':
                raise _NotJson
            key, at = cast("tuple[str, int]", scanstring(text, at + 1, False))  # noqa: FBT003 - positional in C
            at = _skip(text, at)
            if text[at] != ":":
                raise _NotJson
            at = _skip(text, self._value(text, _skip(text, at + 1), prefix + key, spans))
            if text[at] == "}":
                return at + 1
            if text[at] != ",":
                raise _NotJson
            at = _skip(text, at + 1)

    def _value(self, text: str, at: int, path: str, spans: list[Span]) -> int:
        if path in self._parents and text[at] == "{":
            inner: list[Span] = []
            end = self._object(text, at, path + ".", inner)
            spans.extend(inner)
            if path not in self._names:
                return end
        value, end = self._decode(text, at)
        if path in self._names and value is not None and value not in ("", [], {}):
            spans.append(Span(path, at, end, value, _comparable(value, text[at:end])))
        return end

    def encode(self, token: str) -> bytes:  # noqa: D102 - see LineFormat
        return f'"{token}"'.encode()


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] > " ":  # the usual case, several times as fast
        return at
    return WHITESPACE.match(text, at).end()  # type: ignore[union-attr]


def _comparable(value: Any, raw: str) -> str | None:
    if isinstance(value, str):
        return value
    return raw if INTEGER.fullmatch(raw) else None


def _in_bytes(span: Span, text: str) -> Span:
    start = len(text[: span.start].encode("utf-8", "surrogateescape"))
    end = start + len(text[span.start : span.end].encode("utf-8", "surrogateescape"))
    return Span(span.name, start, end, span.value, span.text)
