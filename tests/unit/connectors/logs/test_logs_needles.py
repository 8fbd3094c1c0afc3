"""The search for thousands of byte strings against a naive one, whatever order matches come in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.logs.chunks import chunks
from connectors.logs.needles import Needles, _Literals, telling

WORDS = st.one_of(
    st.integers(0, 30).map(lambda n: b":%d," % n),
    st.integers(0, 30).map(lambda n: b'"user%03d@a-rather-long-domain-of-somebody%d.example"' % (n, n % 3)),
    st.integers(0, 3).map(lambda n: b"x%d" % n * 60),
    st.binary(min_size=1, max_size=9).map(lambda b: b.translate(bytes(range(97, 105)) * 32)),
)
TEXTS = st.one_of(WORDS, WORDS.map(bytes.upper), st.sampled_from([b"", b" ", b"@a-rather-long-domain", b"\t", b"\\"]))
LINES = st.lists(st.lists(TEXTS, max_size=6).map(b"".join), max_size=30)
ODD = {b"\t": (b"\t1", b"\t"), b"\\": (b"\\u0030",), b"~": (b"~",)}


ORDERS = st.sampled_from(["as they come", "the other way round", "in any order"])


@contextmanager
def matches(order: str) -> Iterator[None]:
    """Hyperscan's matches, in an order that its manual allows ("Lack of ordering"), whether or not it ever takes it."""
    really = _Literals.ends

    def ends(literals: _Literals, data: memoryview) -> list[int]:
        found = really(literals, data)
        if order == "the other way round":
            found.reverse()
        elif order == "in any order":
            Random(len(found)).shuffle(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Literals, "ends", ends)
        yield


def naive(lines: list[bytes], needles: list[bytes], *, fold: bool) -> list[bytes]:
    """The lines with any of the byte strings."""
    if fold:
        lines, needles, whole = [line.lower() for line in lines], [needle.lower() for needle in needles], lines
    else:
        whole = lines
    return [whole[n] for n, line in enumerate(lines) if any(needle in line for needle in needles)]


@given(needles=st.lists(WORDS, min_size=1, max_size=40), lines=LINES, fold=st.booleans(), order=ORDERS)
def test_the_lines_with_a_needle_are_found_each_once_and_in_order(
    needles: list[bytes], lines: list[bytes], order: str, *, fold: bool
) -> None:
    lines += [b"a" + needle + b"b" for needle in needles[:3]]
    data = bytearray(b"\n".join(lines))
    sought = needles + [needle for byte, some in ODD.items() if byte in data for needle in some]
    with matches(order):
        places = list(Needles(needles, ODD, fold=fold).lines(data, len(data)))
    assert places == sorted(set(places))
    found = [bytes(data[start:end]) for start, end in places]
    whole = naive(lines, sought, fold=fold)
    assert [line for line in found if line in whole] == whole
    # A needle may have been cut: what else is found holds a part of one.
    every = [needle for some in ODD.values() for needle in some]
    parts = telling(n.lower() for n in needles + every) if fold else telling(needles + every)
    parts |= telling(n.lower() for n in needles) if fold else telling(needles)
    assert naive(found, sorted(parts), fold=fold) == found


@given(
    needles=st.lists(WORDS, min_size=1, max_size=10),
    lines=LINES,
    size=st.integers(1, 300),
    fold=st.booleans(),
    order=ORDERS,
)
def test_none_is_missed_between_chunks(
    needles: list[bytes],
    lines: list[bytes],
    size: int,
    *,
    fold: bool,
    order: str,
) -> None:
    lines += [b"a" + needle + b"b" for needle in needles[:3]]
    read = io.BytesIO(b"\n".join(lines)).readinto
    sought, found = Needles(needles, ODD, fold=fold), []
    with matches(order):
        for chunk in chunks(read, 1 << 20, size):
            found += [bytes(chunk.buffer[start:end]) for start, end in sought.lines(chunk.buffer, chunk.end)]
    whole = naive(lines, needles, fold=fold)
    assert [line for line in found if line in whole] == whole
