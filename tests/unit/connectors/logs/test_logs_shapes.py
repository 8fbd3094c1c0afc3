"""What was learned from some lines never changes how others are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.logs.formats import Span
from connectors.logs.jsonl import LEARN_FROM, JsonLines
from connectors.logs.shapes import shape_of

NAMES = ("a", "b", "c.d", "c.e.f")
KEYS = st.sampled_from(["a", "b", "c", "d", "e.f", "c.d", "x"])
STRINGS = st.sampled_from(["", "", "ada", "1", "zoë", "日本", "q,:}", 'a"b', "\\"])
NUMBERS = st.sampled_from([0, -1, 7, 10**15, 10**16, 10**18, 10**19, 1.5, -2e300, 1e-7])
WORDS = st.sampled_from([True, False, None])


class Pairs(list[tuple[str, Any]]):
    """An object, with keys that come twice."""


SCALARS = STRINGS | NUMBERS | WORDS
INNER = st.lists(st.tuples(KEYS, SCALARS), max_size=2).map(Pairs)
OBJECTS = st.lists(st.tuples(KEYS, SCALARS | INNER | st.lists(SCALARS | INNER, max_size=2)), max_size=3).map(Pairs)


def like(value: Any, strings: Iterator[str], numbers: Iterator[float], words: Iterator[Any]) -> Any:
    """Another value of the same shape."""
    if isinstance(value, Pairs):
        return Pairs((key, like(inner, strings, numbers, words)) for key, inner in value)
    if isinstance(value, list):
        return [like(inner, strings, numbers, words) for inner in value]
    if isinstance(value, str):
        return next(strings)
    return next(words) if value is None or isinstance(value, bool) else next(numbers)


def write(value: Any, space: str) -> str:
    if isinstance(value, Pairs):
        return "{" + f",{space}".join(f"{json.dumps(k)}:{space}{write(v, space)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(write(inner, space) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False)


@given(
    value=OBJECTS,
    strings=st.lists(STRINGS, min_size=1, max_size=5),
    numbers=st.lists(NUMBERS, min_size=1, max_size=5),
    words=st.lists(WORDS, min_size=1, max_size=3),
    space=st.sampled_from(["", " "]),
    cut=st.sampled_from([0, 0, 0, 1]),
)
@settings(max_examples=600)
def test_a_line_of_a_known_shape_is_read_as_any_other(
    value: Pairs, strings: list[str], numbers: list[float], words: list[Any], space: str, cut: int
) -> None:
    line, other = (write(one, space) for one in (value, like(value, cycle(strings), cycle(numbers), cycle(words))))
    other = other[: len(other) - cut]
    spans = JsonLines(NAMES).parse(line.encode())
    assert spans is not None
    shape = shape_of(line, spans, NAMES) if line.isascii() else None
    found = shape.spans(other) if shape else None
    if found is not None and other.isascii():
        assert found == JsonLines(NAMES).parse(other.encode())


@given(
    values=st.lists(OBJECTS, min_size=1, max_size=3),
    strings=st.lists(STRINGS, min_size=1, max_size=5),
    space=st.sampled_from(["", " "]),
)
def test_a_line_is_read_the_same_whatever_came_before(values: list[Pairs], strings: list[str], space: str) -> None:
    new, numbers, words = cycle(strings), cycle([1, 2.5]), cycle([None, True])
    lines = [write(v, space).encode() for one in values for v in (one, like(one, new, numbers, words))]
    with patch("connectors.logs.jsonl.LEARN_FROM", 1):
        used = JsonLines(NAMES)
        for line in [*lines, *lines]:
            assert used.parse(line) == JsonLines(NAMES).parse(line)


def test_lines_of_one_statement_become_a_shape() -> None:
    used = JsonLines(NAMES)
    line = '{{"at": "t", "a": "{}", "n": {}, "ok": {}, "c": {{"d": {}, "x": [1, "y"]}}}}'
    for n in range(LEARN_FROM):
        used.parse(line.format(n, n, "true", n).encode())
    [shape] = used._shapes
    for name, number in (("zoë", -1.5), ("", 1)):
        text = line.format(name, number, "null", 12)
        name_at, number_at = text.index(f'"{name}", "n"'), text.index("12")
        named = [Span("a", name_at, name_at + len(name) + 2, name, name)] if name else []
        assert shape.spans(text) == [*named, Span("c.d", number_at, number_at + 2, 12, "12")]
    assert shape.spans(line.format("zoë", 1, "false", '"12"')) is None
    assert shape.spans(line.format("zoë", 1, "false", "1.5")) is None


@pytest.mark.parametrize(
    "line",
    [
        '{"a": "", "x": "y"}',  # empty: where it is not, it must be found
        '{"a": "", "a": "y"}',
        '{"a": null}',
        '{"a": true}',
        '{"a": 1.5}',
        '{"a": ["x"]}',
        '{"x": {"a": "y"}}',  # not the field, but it could be for all a shape knows
        '{"x": [{"a": "y"}]}',
        '{"c.d": ""}',
        '{"c": {"e.f": ""}}',
        '{"x": "\\u0061"}',
    ],
)
def test_no_shape_is_made_of_a_line_with_a_field_that_another_line_could_hold(line: str) -> None:
    spans = JsonLines(NAMES).parse(line.encode())
    assert spans is not None
    assert shape_of(line, spans, NAMES) is None


def test_lines_of_ever_new_shapes_are_not_learned_from_for_ever() -> None:
    used = JsonLines(NAMES)
    for n in range(LEARN_FROM * 20):
        used.parse(json.dumps({f"k{n}": n, "a": "x"}).encode())
    assert len(used._shapes) == 4
