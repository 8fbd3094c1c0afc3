"""Most messages need no thorough look; those that do get one."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.errors import RefusedMessage
from orchestrator.messages import strictjson

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text('\\"\x00\x1f\x7f\ud800\udfffé\n', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=30,
)
NESTED = st.integers(14, 18).map(lambda depth: ("[" * depth + "]" * depth).encode())


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON with and without escapes, some of it broken."""
    text = json.dumps(draw(VALUE), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    cut = draw(st.integers(0, len(text)) | st.just(len(text)))
    return text[:cut] + draw(st.sampled_from([b"", b"", b"", b"}", b"\x01", b"\xff", b'"'])) + text[cut:]


def thorough(data: bytes) -> strictjson.Json:
    """Every check, whatever the body looks like. Raises ``RefusedMessage`` or ``ValueError``."""
    text = data.decode()
    if strictjson._depth(text) > strictjson.MAX_DEPTH:
        raise ValueError
    value: strictjson.Json = strictjson._DECODER.decode(text)
    strictjson._check_text(value)
    return value


@given(bodies() | NESTED | st.binary(max_size=20))
@example(b'"\\u0000"')
@example(b'"\\ud800"')
@example(b'{"\\b": 1}')
@example(b'"[[[[[[[[[[[[[[[[[["')
@example(b'"\x01"')
@example(b'"\x7f"')
def test_what_is_taken_is_what_a_thorough_look_takes(data):
    try:
        wanted = thorough(data)
    except (RefusedMessage, ValueError):
        with pytest.raises(RefusedMessage):
            strictjson.parse(data)
    else:
        assert strictjson.parse(data) == wanted
