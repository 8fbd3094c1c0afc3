"""The shapes of JSON lines: lines that one statement wrote have the same keys in the same order, and are read faster.

A shape is a regular expression made of a line: its keys and punctuation as they are, and any value of the same kind
where the line has one. Whatever it matches is JSON as that line is, with the same fields in the same places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from connectors.logs.formats import Span

__all__ = ["Shape", "shape_of"]

TOKEN: Final = re.compile(r'("[^"\\]*")([ \t\n\r]*:)?|(-?[0-9][-+.0-9eE]*)|(true|false|null)|[^"\\]')
STRING: Final = r'"[^"\\]*"'
NUMBER: Final = r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,19})?(?:[eE][+-]?[0-9]{1,3})?"
WHOLE: Final = r"-?(?:0|[1-9][0-9]{0,15})"
MOST_TOKENS: Final = 500
"""Of a line; one with more is no line to learn from."""


class Shape:
    """Lines of one shape, and which fields they hold where."""

    def __init__(self, pattern: str, fields: Sequence[tuple[str, bool]]) -> None:
        """``fields``: for each group, the field, and whether it is a string."""
        self._match = re.compile(pattern).fullmatch
        self._fields = tuple((number, *field) for number, field in enumerate(fields, 1))

    def spans(self, line: str) -> list[Span] | None:
        """The line's fields that hold something; ``None`` for a line of another shape."""
        match = self._match(line)
        if match is None:
            return None
        texts, places = match.groups(), match.regs
        spans = []
        for number, name, string in self._fields:
            text, (start, end) = texts[number - 1], places[number]
            if not string:
                spans.append(Span(name, start, end, int(text), text))
            elif text:
                spans.append(Span(name, start - 1, end + 1, text, text))
        return spans


def shape_of(line: str, spans: Iterable[Span], names: Iterable[str]) -> Shape | None:
    """The shape of a line that was read, with these spans of the fields that are asked for (``names``).

    ``None`` unless every key that could be one of theirs has a span: what is asked for must not be passed over in
    another line because here it is empty, of another kind, or in another object.
    """
    keys = {name[at:] for name in names for at in range(len(name)) if at == 0 or name[at - 1] == "."}
    asked = {span.start: span for span in spans}
    parts, fields, at, met = list[str](), list[tuple[str, bool]](), 0, 0
    while at < len(line):
        token = TOKEN.match(line, at)
        if token is None or len(parts) >= MOST_TOKENS:
            return None
        string, colon, number, word = token.groups()
        span, part = asked.get(at), re.escape(token[0])
        if colon is not None:
            met += string[1:-1] in keys
        elif string is not None:
            part = STRING
        elif number is not None:
            part = WHOLE if span else NUMBER
        elif word is not None:
            part = "(?:true|false|null)"
        if span:
            fields.append((span.name, string is not None))
            part = f'"({STRING[1:-1]})"' if string is not None else f"({part})"
            if not isinstance(span.value, str if string is not None else int) or word is not None:
                return None
        parts.append(part)
        at = token.end()
    return Shape("".join(parts), fields) if met == len(fields) == len(asked) else None
