"""JSON from strangers: what ``json.loads`` lets through and must not get further is refused here."""

from __future__ import annotations

import json
import math
from typing import NoReturn, TypeAlias

from orchestrator.errors import Fault, Refusal, RefusedMessage

__all__ = ["MAX_DEPTH", "Json", "parse"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 16
"""Levels of nesting; a request needs six."""


def refuse(hint: str, field: str = "") -> NoReturn:
    """Raise a ``malformed`` refusal."""
    raise RefusedMessage(Refusal.MALFORMED, faults=[Fault(hint, field)])


def parse(data: bytes) -> Json:
    """The JSON value in ``data`` (UTF-8).

    Raises ``RefusedMessage`` for anything else, and for repeated keys (readers differ on which counts), numbers that
    are not finite, text that is not valid Unicode, control characters inside strings, and nesting deeper than 16.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        refuse("send the body as UTF-8")
    # Fewer brackets than levels can't be too deep, wherever they stand; most messages have few.
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        refuse(f"nest objects and lists at most {MAX_DEPTH} levels deep")
    try:
        value: Json = _DECODER.decode(text)
    except (ValueError, RecursionError):
        refuse("send well-formed JSON")
    # The decoder takes no control character, and UTF-8 holds no half of a pair: only an escape brings them in.
    if "\\" in text:
        _check_text(value)
    return value


def _depth(text: str) -> int:
    """The deepest nesting, found without recursion, before a parser has to go there."""
    deepest = depth = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        refuse("name every key of an object once")
    return result


def _not_finite(_name: str) -> NoReturn:
    refuse("NaN and Infinity are not JSON; leave the field out")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        refuse("use numbers that a double can hold")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 20:  # noqa: PLR2004 - the digits of a 64-bit integer and its sign
        refuse("use integers of 64 bits at most")
    return int(digits)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_not_finite, parse_float=_finite, parse_int=_whole
)
"""Made once, for making one costs more than reading a message."""


def _check_text(value: Json) -> None:
    pending: list[Json] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if any(char < " " and char not in "\t\n\r" for char in item):
                refuse("leave control characters out of text")
            try:
                item.encode()
            except UnicodeEncodeError:
                refuse("send valid Unicode, without unpaired surrogates")
        elif isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
