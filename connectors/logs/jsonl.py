"""JSON lines: values found with their place in the line, whatever escapes, order and white space a writer chose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from json import JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final, cast

from connectors.logs.formats import Span
from connectors.logs.identities import safe_run, spellings
from connectors.logs.shapes import Shape, shape_of

__all__ = ["JsonLines"]

WHITESPACE: Final = re.compile(r"[ \t\n\r]*")
INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
BEFORE_A_NUMBER: Final = (":", " ")
AFTER_A_NUMBER: Final = (",", "}", " ")
NUMBERS_START: Final = tuple(before.encode() for before in BEFORE_A_NUMBER)
ESCAPE: Final = b"\\"
ODD: Final = {
    ESCAPE: tuple(f"\\u00{digit}".encode() for digit in "01234567"),
    b"\t": (b"\t",),
    b"\r": (b":\r", b" \r", b"\r,", b"\r}", b"\r "),
}
r"""ASCII behind an escape (``\u0040``), and white space around numbers that hardly anybody writes."""
LONG_NUMBER: Final = 5
"""Digits."""
LONGEST_INTEGER: Final = 18
"""Digits; longer ones stay text, so that no line can make parsing slow."""
SPACE: Final = r"[ \t\n\r]{0,9}"
NUMBER: Final = r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,19})?(?:[eE][+-]?[0-9]{1,3})?"
SCALAR: Final = rf'(?:"[^"\\]*"|{NUMBER}|true|false|null)'
PAIR: Final = rf'"[^"\\]*"{SPACE}:{SPACE}{SCALAR}{SPACE}'
"""What of JSON needs no unescaping and no recursion, and is not longer than anybody writes it.

No possessive quantifiers and no atomic groups: Python before 3.11.5 matches them wrongly. These need none: each part
ends where the next cannot begin, so that there is one way to match, and a failure is found by going back once.
"""
PAIRS: Final = 99
"""How many are matched at once: what Python remembers of each is bounded so."""
AFTER: Final = rf'(?:,{SPACE}(?=")|(?=\}}))'
VALUE: Final = rf"(?:{SCALAR}|\{{{SPACE}(?:{PAIR}{AFTER}){{0,{PAIRS}}}\}})"
WANTED: Final = rf'"([^"\\]*)"{SPACE}:{SPACE}(?:"([^"\\]*)"|(-?(?:0|[1-9][0-9]{{0,15}}))){SPACE}'
"""A string or whole number: key, what stands between the quotes, digits."""
AT_ONCE: Final = 4
"""How many fields that were asked for one match picks up."""
LEARN_FROM: Final = 20
"""Of so many lines of no known shape, one is learned from: a shape costs as much as reading hundreds of lines."""
SHAPES: Final = 4
"""How many are kept."""


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_INTEGER else digits


class _NotJson(ValueError):
    """The line is not one JSON object."""


class JsonLines:
    """One JSON object per line; a field is a dotted path to a string or a whole number in nested objects."""

    holds_any_token = True  # a string may stand where any value does

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._parents = frozenset(name[:dot] for name in self._names for dot in range(len(name)) if name[dot] == ".")
        self.in_order = self._names.isdisjoint(self._parents)
        self._shapes, self._unlike = list[Shape](), 0
        self._decode = JSONDecoder(strict=False, parse_constant=str, parse_int=_integer).raw_decode
        strides = {prefix: self._stride(prefix) for prefix in ("", *(f"{p}." for p in self._parents))}
        self._strides = {prefix: re.compile(stride).match for prefix, stride in strides.items()}
        self._simple = re.compile(rf"\{{{SPACE}{strides['']}(?:\}}\Z)?").match

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

    def odd(self, needles: Iterable[bytes]) -> Mapping[bytes, Iterable[bytes]]:  # noqa: D102 - see LineFormat
        numbers = any(needle.startswith(NUMBERS_START) for needle in needles)
        return ODD if numbers else {ESCAPE: ODD[ESCAPE]}

    def parse(self, line: bytes) -> list[Span] | None:  # noqa: D102 - see LineFormat
        text = line.decode("utf-8", "surrogateescape")
        spans = self._shaped(text)
        if spans is None:
            spans = []
            simple = self._simple(text)
            if simple is not None and simple.end() == len(text) and text[-1] == "}":
                self._keep(simple, "", spans)
            elif not self._reads(text, spans):
                return None
            self._learn(text, spans)
        return spans if len(text) == len(line) else [_in_bytes(span, text) for span in spans]

    def _shaped(self, text: str) -> list[Span] | None:
        """The spans of a line of a shape that is known."""
        shapes = self._shapes
        for at, shape in enumerate(shapes):
            spans = shape.spans(text)
            if spans is not None:
                if at:
                    shapes[0], shapes[at] = shape, shapes[0]
                return spans
        return None

    def _learn(self, text: str, spans: Iterable[Span]) -> None:
        """Of some of the lines of other shapes."""
        self._unlike += 1
        if self._unlike % LEARN_FROM == 0 and len(self._shapes) < SHAPES:
            shape = shape_of(text, spans, self._names)
            if shape is not None:
                self._shapes.append(shape)

    def _reads(self, text: str, spans: list[Span]) -> bool:
        """Read any line; whether it is one JSON object."""
        start = 1 if text.startswith("\ufeff") else 0
        try:
            end = self._object(text, _skip(text, start), "", spans)
        except (ValueError, IndexError, RecursionError):
            return False
        return _skip(text, end) == len(text)

    def _stride(self, prefix: str) -> str:
        """Matches pairs of an object, up to one that is not simple, or the object's end.

        Whatever it does not match is left to ``_object``, which knows all of JSON; this is several times as fast.
        Of strings and whole numbers that were asked for, it has three groups. Nothing in it must match, so that
        nothing is ever tried another way.
        """
        asked = sorted(re.escape(n.removeprefix(prefix)) for n in self._names | self._parents if n.startswith(prefix))
        other = rf'"(?!(?:{"|".join(asked)})")[^"\\]*"{SPACE}:{SPACE}{VALUE}{SPACE}'
        others = rf"(?:{other}{AFTER}){{0,{PAIRS}}}"
        return others + rf"(?:{WANTED}{AFTER})?{others}" * min(len(asked), AT_ONCE)

    def _object(self, text: str, at: int, prefix: str, spans: list[Span]) -> int:
        """Read the object that starts at ``at``; returns where it ends."""
        if text[at] != "{":
            raise _NotJson
        at = _skip(text, at + 1)
        if text[at] == "}":
            return at + 1
        stride = self._strides[prefix]
        while True:
            passed = cast("re.Match[str]", stride(text, at))
            if passed.end() > at:
                at = passed.end()
                self._keep(passed, prefix, spans)
                if text[at] == "}":
                    return at + 1
                continue
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

    def _keep(self, passed: re.Match[str], prefix: str, spans: list[Span]) -> None:
        """The pairs in a stride that were asked for and hold something."""
        groups, places = passed.groups(), passed.regs
        for at in range(0, len(groups), 3):
            key, string, number = groups[at : at + 3]
            if key is None:
                break
            name = prefix + key
            if name not in self._names:
                continue
            if string:
                start, end = places[at + 2]
                spans.append(Span(name, start - 1, end + 1, string, string))
            elif number:
                spans.append(Span(name, *places[at + 3], int(number), number))

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
