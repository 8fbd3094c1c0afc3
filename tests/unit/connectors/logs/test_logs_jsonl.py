"""The reader of JSON lines against Python's own, and on lines that somebody made to be slow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.logs.jsonl import LEARN_FROM, LONGEST_INTEGER, JsonLines

NAMES = ("a", "b", "ab", "c.d", "c.e.f", "user_id")
KEYS = st.sampled_from(["a", "b", "ab", "c", "d", "e", "f", "user_id", "x", "", "user", 'q"', "\\", "zoë", "日本"])
SCALARS = st.one_of(
    st.sampled_from(
        [0, -1, 7, 12, 10**15, 10**16, 10**17, 10**19, 1.5, -2e300, True, False, None, "", "12", 'a"b', "\\"]
    ),
    st.text(max_size=4),
)
SPACES = st.lists(st.sampled_from(["", "", " ", "\t", "\r", "\n ", "  "]), min_size=1, max_size=7)


class Pairs(list[tuple[str, Any]]):
    """An object, with keys that come twice."""


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.lists(st.tuples(KEYS, inner), max_size=4).map(Pairs),
    max_leaves=12,
)
OBJECTS = st.lists(st.tuples(KEYS, VALUES), max_size=8).map(Pairs)


def write(value: Any, space: Iterator[str], *, ascii_only: bool) -> str:
    """JSON with any white space that it allows."""
    if isinstance(value, Pairs):
        keys = [json.dumps(key, ensure_ascii=ascii_only) for key, _ in value]
        values = [write(inner, space, ascii_only=ascii_only) for _, inner in value]
        pairs = [f"{k}{next(space)}:{next(space)}{v}" for k, v in zip(keys, values, strict=True)]
        return f"{{{next(space)}{f'{next(space)},{next(space)}'.join(pairs)}{next(space)}}}"
    if isinstance(value, list):
        parts = [write(v, space, ascii_only=ascii_only) for v in value]
        return f"[{next(space)}{f'{next(space)},'.join(parts)}]"
    return json.dumps(value, ensure_ascii=ascii_only)


def expected(value: Pairs, path: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of every field that was asked for and holds something, in order."""
    for key, inner in value:
        name = path + key
        if isinstance(inner, Pairs) and name in ("c", "c.e"):
            yield from expected(inner, f"{name}.")
        elif name in NAMES and inner is not None and inner not in ("", [], Pairs()):
            yield name, inner


def read(text: str) -> Any:
    """As Python reads it; raises ``ValueError``."""

    def integer(digits: str) -> int | str:
        return int(digits) if len(digits) <= LONGEST_INTEGER else digits

    return json.loads(text, strict=False, object_pairs_hook=Pairs, parse_int=integer, parse_constant=str)


@given(value=OBJECTS, spaces=SPACES, ascii_only=st.booleans())
def test_every_field_is_found_and_lies_where_it_is_said_to(
    value: Pairs, spaces: list[str], *, ascii_only: bool
) -> None:
    text = write(value, cycle(spaces), ascii_only=ascii_only)
    line = text.encode("utf-8", "surrogatepass")
    spans = JsonLines(NAMES).parse(line)
    assert spans is not None
    wanted = list(expected(read(text)))
    assert [(span.name, type(span.value)) for span in spans] == [(name, type(plain(one))) for name, one in wanted]
    for span, (_, one) in zip(spans, wanted, strict=True):
        there = line[span.start : span.end].decode("utf-8", "surrogatepass")
        assert read(there) == one
        if isinstance(one, str) and there.startswith('"'):
            assert span.text == one
        elif isinstance(one, int) and not isinstance(one, bool):
            assert span.text == there


@given(
    value=OBJECTS,
    spaces=SPACES,
    names=st.sets(st.sampled_from([*NAMES, "c", "c.e"]), min_size=1),
    ascii_only=st.booleans(),
)
def test_fields_are_told_in_order_and_apart_unless_one_can_lie_within_another(
    value: Pairs, spaces: list[str], names: set[str], *, ascii_only: bool
) -> None:
    reads = JsonLines(names)
    assert reads.in_order == (not any(name.startswith(f"{other}.") for name in names for other in names))
    line = write(value, cycle(spaces), ascii_only=ascii_only).encode("utf-8", "surrogatepass")
    for _ in range(LEARN_FROM + 1):  # as any line, and as one of a known shape
        spans = reads.parse(line) or []
        if reads.in_order:
            assert all(one.end < other.start for one, other in pairwise(spans))


@given(
    value=OBJECTS,
    spaces=SPACES,
    at=st.integers(0, 200),
    drop=st.integers(0, 3),
    put=st.text(alphabet='{}[],:"\\019-+.eEtn \t\0', max_size=2),
)
def test_what_python_refuses_is_refused_and_nothing_else(
    value: Pairs, spaces: list[str], at: int, drop: int, put: str
) -> None:
    whole = write(value, cycle(spaces), ascii_only=True)
    at %= len(whole)
    text = whole[:at] + put + whole[at + drop :]
    try:
        record = read(text)
    except ValueError:
        record = None
    spans = JsonLines(NAMES).parse(text.encode())
    assert (spans is not None) == isinstance(record, Pairs)
    if isinstance(record, Pairs):
        assert [(span.name, span.value) for span in spans or []] == [(n, plain(one)) for n, one in expected(record)]


def plain(value: Any) -> Any:
    """Dictionaries, as the reader gives them."""
    if isinstance(value, Pairs):
        return {key: plain(inner) for key, inner in value}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


SIZE = 1_000_000
"""Bytes: about the longest line that is looked at."""
HOSTILE: dict[str, Callable[[int], str]] = {
    "quotes": lambda n: '{"' + '"' * n,
    "escaped quotes": lambda n: '{"x":"' + '\\"' * (n // 2),
    "braces": lambda n: '{"x":' + "{" * n,
    "objects in objects": lambda n: '{"x":' * (n // 5) + "1" + "}" * (n // 5),
    "objects asked for": lambda n: '{"c":{"e":' * (n // 10),
    "brackets": lambda n: '{"x":' + "[" * n,
    "spaces": lambda n: '{"x":1' + " " * n + "x}",
    "spaces everywhere": lambda n: "{" + '"x"        :        1        ,        ' * (n // 36) + "x",
    "digits": lambda n: '{"x":' + "1" * n + "x}",
    "digits asked for": lambda n: '{"a":' + "1" * n + "x}",
    "fractions": lambda n: '{"x":' + "1." * (n // 2) + "}",
    "exponents": lambda n: '{"x":1e' + "1" * n + "e}",
    "commas": lambda n: '{"x":1' + "," * n,
    "pairs that break off": lambda n: "{" + '"x":1,' * (n // 6),
    "pairs asked for that break off": lambda n: "{" + '"a":1,' * (n // 6),
    "pairs of both kinds": lambda n: "{" + '"a":1,"x":2,"b":"",' * (n // 19) + '"x":}',
    "pairs in an object that breaks off": lambda n: '{"x":{' + '"x":1,' * (n // 6) + "]}}",
    "pairs in objects that are not simple": lambda n: "{" + ('"x":{' + '"y":1,' * 90 + '"z":[]},') * (n // 560),
    "keys that start alike": lambda n: "{" + '"user_id_":1,"user_i":2,' * (n // 24) + "}",
    "a key without an end": lambda n: '{"' + "a" * n,
}


def cost(line: bytes) -> float:
    """CPU seconds of reading a line."""
    began = time.thread_time()
    JsonLines(NAMES).parse(line)
    return time.thread_time() - began


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_no_line_makes_reading_slow(make: Callable[[int], str]) -> None:
    """A hundred times an honest line's cost is far from what going back and forth over a million bytes would take."""
    honest = "{" + ", ".join(f'"key{n}": "value {n}"' for n in range(SIZE // 24)) + "}"
    assert cost(make(SIZE).encode()) < 100 * cost(honest.encode())


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_such_lines_are_read_as_python_reads_them(make: Callable[[int], str]) -> None:
    for size in (40, 100, 400):
        try:
            readable = isinstance(read(make(size)), Pairs)
        except ValueError:
            readable = False
        assert (JsonLines(NAMES).parse(make(size).encode()) is not None) == readable
