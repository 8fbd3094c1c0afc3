"""The pure parts of the ``logs`` connector and their laws."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import Fatal
from connectors.logs.chunks import chunks
from connectors.logs.codecs import encoder, reader
from connectors.logs.formats import Combined
from connectors.logs.identities import normalise, spellings
from connectors.logs.jsonl import JsonLines
from connectors.logs.needles import Needles, telling


@given(
    st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"a", b"\n"))),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_chunks_put_together_are_the_file_and_end_at_line_ends(parts: list[bytes], longest: int, size: int) -> None:
    data, left = b"".join(parts), [part for part in parts if part]

    def read(buffer: memoryview) -> int:
        part = left.pop(0) if left else b""
        left[:0] = [part[len(buffer) :]] if len(part) > len(buffer) else []
        buffer[: len(part)] = part[: len(buffer)]
        return min(len(part), len(buffer))

    found = [(bytes(chunk.buffer[: chunk.end]), chunk.whole) for chunk in chunks(read, longest, size)]
    assert b"".join(piece for piece, _ in found) == data
    at = 0
    for piece, is_whole in found:
        start, at = at, at + len(piece)
        if is_whole:
            assert start == 0 or data[start - 1 : start] == b"\n"
            assert at == len(data) or data[at - 1 : at] == b"\n"
    whole = b"\n".join(piece for piece, is_whole in found if is_whole).split(b"\n")
    assert {line for line in data.split(b"\n") if len(line) <= longest} - {b""} <= set(whole)


def all_of(file: io.BytesIO, kind: str, size: int = 1 << 18) -> Iterator[bytes]:
    read, buffer = reader(file, kind, "x"), bytearray(size)
    while more := read(memoryview(buffer)):
        yield bytes(buffer[:more])


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
@given(pieces=st.lists(st.binary(max_size=200)))
def test_what_an_encoder_writes_is_read_back(kind: str, pieces: list[bytes]) -> None:
    compress = encoder(kind)
    data = b"".join([*map(compress.compress, pieces), compress.flush()])
    if kind == "plain" and data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return
    assert b"".join(all_of(io.BytesIO(data), kind)) == b"".join(pieces)
    assert b"".join(all_of(io.BytesIO(data), kind, 7)) == b"".join(pieces)


def test_a_file_that_blows_up_is_read_whole() -> None:
    bomb = zstandard.compress(b"\n" * 50_000_000)
    assert sum(map(len, all_of(io.BytesIO(bomb), "zstd"))) == 50_000_000


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_file_that_breaks_off_anywhere_is_damaged(kind: str) -> None:
    compress = encoder(kind)
    text = random.Random(1).randbytes(3000)
    data = b"".join([compress.compress(text), compress.flush()])
    for end in range(1, len(data), 7):
        with pytest.raises(Fatal, match="damaged"):
            list(all_of(io.BytesIO(data[:end]), kind))


def test_a_compressed_file_with_a_plain_name_is_not_taken_for_text() -> None:
    with pytest.raises(Fatal, match="not what its name says"):
        list(all_of(io.BytesIO(zstandard.compress(b"x")), "plain"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    value=JSON,
    around=st.dictionaries(st.text(max_size=4).filter(lambda k: not k.startswith("a")), JSON, max_size=4),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_a_value_is_found_where_it_lies_however_the_line_is_written(
    value: Any, around: dict[str, Any], *, ascii_only: bool, indent: int | None
) -> None:
    record = {**around, "a": {"b": value}}
    line = (
        json.dumps(record, ensure_ascii=ascii_only, indent=indent).replace("\n", " ").encode("utf-8", "surrogatepass")
    )
    spans = JsonLines(["a.b"]).parse(line)
    assert spans is not None
    if value is None or (value in ("", [], {}) and value is not False):
        assert spans == []
        return
    [span] = spans
    assert json.loads(line[span.start : span.end].decode("utf-8", "surrogatepass")) == value
    if isinstance(value, str):
        assert span.text == value
    spliced = line[: span.start] + b'"t"' + line[span.end :]
    assert json.loads(spliced.decode("utf-8", "surrogatepass")) == {**record, "a": {"b": "t"}}


def test_a_key_that_comes_twice_is_found_twice_and_one_inside_another_object_never() -> None:
    line = b'{"a":"1","b":{"a":"2"},"c":[{"a":"3"}],"a":4,"d":null,"\\u0061":"5","a":""}'
    found = [(span.text, line[span.start : span.end]) for span in JsonLines(["a"]).parse(line) or []]
    assert found == [("1", b'"1"'), ("4", b"4"), ("5", b'"5"')]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"b":1,}',
        b'{"b":1 "a":1}',
        b'{"b":01}',
        b'{"b":{"c":1,}}',
        b'{"a":1}x',
        b"[]",
        b"1",
        b'{"a":' * 99999,
    ],
)
def test_what_is_no_json_object_is_no_json_line(line: bytes) -> None:
    assert JsonLines(["a"]).parse(line) is None


def test_a_number_too_long_to_be_one_stays_text() -> None:
    digits = "9" * 10_000
    [span] = JsonLines(["a"]).parse(b'{"a": ' + digits.encode() + b"}") or []
    assert (span.value, span.text) == (digits, digits)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b'1.2.3.4 - bob [t] "GET / HTTP/1.1" 200 5', {"remote_addr": "1.2.3.4", "remote_user": "bob"}),
        (b'::1 - a b [t] "-" 400 0 "-" "-"', {"remote_addr": "::1", "remote_user": "a b"}),
        (b'h - zo\\xc3\\xab\\" [t] "x" 200 - "r" "u \\\\ \\"v\\"" 0.05', {"remote_addr": "h", "remote_user": 'zoë"'}),
        (b'h - [erased] [t] "x" 200 - "r" "u"', {"remote_addr": "h", "remote_user": "[erased]"}),
        (b'h - - [t] "x" 200 -', {"remote_addr": "h"}),
        (b'h - a [b [t] "x" 200 -', {"remote_addr": "h", "remote_user": "a [b"}),
    ],
)
def test_combined_and_common_lines_are_read_with_their_escapes(line: bytes, fields: dict[str, str]) -> None:
    spans = Combined(["remote_addr", "remote_user"]).parse(line)
    assert spans is not None
    assert {span.name: span.text for span in spans} == fields


def test_what_is_not_combined_is_not_read() -> None:
    for line in (b"", b"x", b'1.2.3.4 - - [t] "GET', b'1.2.3.4 - - [t] "GET / HTTP/1.1" twohundred 5'):
        assert Combined(["remote_addr"]).parse(line) is None


@pytest.mark.parametrize("part", [b" [", b" [a]", b' [a] "x', b' [a] "\\" ', b"\\", b'"', b" ", b"a", b' [a] "\\'])
def test_no_combined_line_makes_reading_slow(part: bytes) -> None:
    def cost(line: bytes) -> float:
        began = time.thread_time()
        Combined(["remote_addr"]).parse(line)
        return time.thread_time() - began

    honest = b'h - u [t] "' + b"a" * 1_000_000 + b'" 200 5'
    assert cost(b"h - u" + part * (1_000_000 // len(part))) < 100 * cost(honest)


@given(st.text(), st.text())
def test_e_mail_addresses_that_count_as_equal_share_what_is_searched_for(one: str, other: str) -> None:
    one = one + "@"
    for spelling in (one.upper(), one.swapcase(), one, other):
        if normalise("email", spelling) == normalise("email", one):
            for needle, _ in spellings("email", normalise("email", one)):
                assert needle.encode().lower() in spelling.encode("utf-8").lower()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("::FFFF:10.0.0.1", "10.0.0.1", True),
        ("2001:DB8::1", "2001:0db8:0000:0000:0000:0000:0000:0001", True),
        ("10.0.0.1", "10.0.0.11", False),
        ("10.0.0.1", "10.0.0.1:80", False),
        ("somewhere", "somewhere", True),
    ],
)
def test_addresses_are_compared_as_addresses(one: str, other: str, *, same: bool) -> None:
    assert (normalise("ip", one) == normalise("ip", other)) is same


def test_other_identities_are_compared_letter_by_letter() -> None:
    assert normalise("user_id", "Ab") != normalise("user_id", "aB")


SHORT = st.binary(min_size=1, max_size=20).map(lambda b: b.replace(b"\n", b"x").replace(b"\0", b"y"))


@given(
    needles=st.lists(
        st.one_of(SHORT, st.sampled_from([b"u1@mail.example", b"u2@mail.example", b"z" * 200])), min_size=1
    ),
    lines=st.lists(st.one_of(SHORT, st.sampled_from([b"", b"x u2@mail.example y", b"U1@MAIL.example", b"z" * 300]))),
    fold=st.booleans(),
)
def test_no_line_with_a_needle_is_missed(needles: list[bytes], lines: list[bytes], *, fold: bool) -> None:
    lines += [b"a" + needle + b"b" for needle in needles[:3]]
    odd = {b"y": (b"y", b"xy"), b"U": (b"U1",)}
    data = bytearray(b"\n".join(lines))
    found = [data[start:end] for start, end in Needles(needles, odd, fold=fold).lines(data, len(data))]
    needles += [needle for byte, some in odd.items() if byte in data for needle in some]
    wanted = [line for line in lines if any(n.lower() in line.lower() if fold else n in line for n in needles)]
    assert [line for line in found if line in wanted] == wanted


def test_needles_that_end_alike_are_cut_where_they_differ() -> None:
    whole = [f"user{n}@mail.example".encode() for n in range(100, 200)]
    cut = telling(whole)
    assert len(cut) == 100
    assert not any(needle.endswith(b".example") for needle in cut)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_needles_are_not_cut_so_short_that_they_find_others_people(count: int) -> None:
    for prefix, suffix in (("user-", "@mail.example"), ("", ""), ("0000000", ""), ("a", "@b.c")):
        whole = [f'"{prefix}{1_000_000 + n}{suffix}"'.encode() for n in range(count)]
        assert len(telling(whole)) == count
        assert all(f"{1_000_000 + n}"[:-1].encode() in cut for n, cut in enumerate(sorted(telling(whole))))


def test_a_zero_byte_in_an_identity_hides_nothing() -> None:
    data = bytearray(b"x\n\0\0abc\n\0abc")
    assert list(Needles([b"\0\0abc"], {}, fold=False).lines(data, 8)) == [(2, 7)]
