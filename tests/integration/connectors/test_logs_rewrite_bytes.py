"""Erasure against a slow reference implementation: every byte that is not the subject's stays."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.contract import Done, Outcome
from tests.support.log_files import COMBINED_SOURCE, JSON_SOURCE, logs, pack, run, task, unpack

pytestmark = pytest.mark.usefixtures("wherever")

SUFFIXES = ("", ".1", ".gz", ".zst")
USER_IDS = st.sampled_from(
    ["1", "12", "123", "12 3", "12345", "123456", "0", "zoë", "日本", 'qu"ote', "a/b", "back\\slash", "u\u0130"]
)
EMAILS = st.sampled_from(["a@x.example", "A@X.example", "ba@x.example", "zoë+1@x.example", "ZOË+1@x.example"])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.11", "::ffff:10.0.0.1", "2001:db8::1", "2001:DB8:0:0:0:0:0:1", "-"])
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How compressed files start: a plain file that does is refused."""
RUBBISH = st.one_of(
    st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")).filter(lambda b: not b.startswith(COMPRESSED)),
    st.sampled_from(
        [b"", b"{", b'{"user_id": 12', b'{"user_id": 12} 12', b"[12]", b'"12"', b"{}", b'{"user_id":[12]}']
    ),
)


def _escape_all(text: str) -> str:
    return "".join(f"\\u{unit:04x}" for c in text for unit in _units(c))


def _units(character: str) -> list[int]:
    data = character.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


WRITERS: list[Callable[[dict[str, Any]], str]] = [
    json.dumps,
    lambda o: json.dumps(o, ensure_ascii=False, separators=(",", ":")),
    lambda o: json.dumps(o, separators=(" ,\t", "\t: ")),
    lambda o: json.dumps(o, indent=1).replace("\n", "\r"),
    lambda o: json.dumps(o).replace("/", "\\/"),
    lambda o: "{" + ",".join(f'"{k}":"{_escape_all(str(v))}"' for k, v in o.items() if not isinstance(v, dict)) + "}",
]


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    record: dict[str, Any] = {"at": draw(st.integers(0, 2000))}
    if draw(st.booleans()):
        user = draw(USER_IDS)
        record["user_id"] = int(user) if user.isdigit() and draw(st.booleans()) else user
    if draw(st.booleans()):
        record["email"] = draw(EMAILS)
    if draw(st.booleans()):
        record["client"] = {"ip": draw(ADDRESSES), "user_id": draw(USER_IDS)}
    record["message"] = f"user {draw(USER_IDS)} from {draw(ADDRESSES)}: {draw(EMAILS)}"
    write: Callable[[dict[str, Any]], str] = draw(st.sampled_from(WRITERS))
    return write(record).encode()


def _reference_json(line: bytes, user: str, email: str) -> bool:
    """Whether a line is the subject's."""
    try:
        record = json.loads(line.decode("utf-8", "surrogateescape"), strict=False)
    except ValueError:
        return False
    if not isinstance(record, dict):
        return False
    found = record.get("user_id")
    if isinstance(found, (str, int)) and not isinstance(found, bool) and str(found) == user:
        return True
    mail = record.get("email")
    return isinstance(mail, str) and mail.lower() == email.lower()


@pytest.fixture(scope="module")
def directory() -> Any:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _fresh(directory: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=directory))


@given(
    lines=st.lists(st.one_of(json_lines(), RUBBISH), max_size=12),
    end=st.sampled_from([b"\n", b"\r\n"]),
    final=st.booleans(),
    user=USER_IDS,
    email=EMAILS,
    suffix=st.sampled_from(SUFFIXES),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_the_lines_whose_field_is_the_subjects_are_removed(
    directory: Path, lines: list[bytes], end: bytes, *, final: bool, user: str, email: str, suffix: str
) -> None:
    root = _fresh(directory)
    data = end.join(lines) + (end if final else b"")
    path = pack(root / f"app.jsonl{suffix}", data, parts=2)
    before = path.read_bytes()
    kept = _keep(data, user, email)
    [result] = run(logs(root, JSON_SOURCE), [task("r/1", user_id=user, email=email)]).values()
    assert unpack(path) == b"".join(kept)
    assert isinstance(result, Done)
    removed = data.count(b"\n") + (not data.endswith(b"\n")) - len(kept) if data else 0
    assert result.counts == ({"app": removed} if removed else {})
    assert result.outcome == (Outcome.EXECUTED if removed else Outcome.NO_MATCH)
    if not removed:
        assert path.read_bytes() == before
    [verified] = run(logs(root, JSON_SOURCE), [task("r/2", "verify", user_id=user, email=email)]).values()
    assert isinstance(verified, Done)
    assert verified.outcome is Outcome.VERIFIED


def _keep(data: bytes, user: str, email: str) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line and not _reference_json(line.rstrip(b"\r\n"), user, email)]


@given(
    lines=st.lists(st.one_of(json_lines(), RUBBISH), max_size=8),
    email=EMAILS,
    suffix=st.sampled_from(SUFFIXES),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redaction_changes_nothing_but_the_listed_fields_of_the_subjects_lines(
    directory: Path, lines: list[bytes], email: str, suffix: str
) -> None:
    root = _fresh(directory)
    data = b"\n".join(lines)
    path = pack(root / f"app.jsonl{suffix}", data)
    source = {**JSON_SOURCE, "on_erase": "redact"}
    run(logs(root, source), [task("r/1", email=email)])
    after = unpack(path).split(b"\n")
    assert len(after) == len(lines) or not lines
    for old, new in zip(lines, after, strict=False):
        if not _reference_json(old.rstrip(b"\r"), "\0", email):
            assert new == old
            continue
        before, now = json.loads(old), json.loads(new)
        for where, key in ((before, "user_id"), (before, "email"), (before.get("client", {}), "ip")):
            if where.get(key) not in (None, ""):
                where[key] = "[erased]"
        assert now == before


COMBINED_LINE = '{} - {} [10/Oct/2026:13:55:36 +0200] "GET /12/{}?u=12 HTTP/1.1" 200 12 "-" "{}"'


@given(
    rows=st.lists(
        st.tuples(
            ADDRESSES, st.sampled_from(["12", "123", "-", "1 2", "bob", "zo\\xC3\\xAB", "zoë"]), ADDRESSES, EMAILS
        ),
        max_size=10,
    ),
    user=st.sampled_from(["12", "1", "1 2", "zoë"]),
    final=st.booleans(),
    suffix=st.sampled_from(SUFFIXES),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_combined_lines_go_when_their_user_or_address_is_the_subjects(
    directory: Path, rows: list[tuple[str, str, str, str]], user: str, *, final: bool, suffix: str
) -> None:
    root = _fresh(directory)
    lines = [COMBINED_LINE.format(*row) + "\n" for row in rows]
    if lines and not final:
        lines[-1] = lines[-1][:-1]
    path = pack(root / f"access.log{suffix}", "".join(lines).encode(), parts=3)
    run(logs(root, COMBINED_SOURCE, identities=["user_id", "ip"]), [task("r/1", user_id=user, ip="10.0.0.1")])
    theirs = [
        name.replace("\\xC3\\xAB", "ë") == user or address in ("10.0.0.1", "::ffff:10.0.0.1")
        for address, name, *_ in rows
    ]
    assert unpack(path) == "".join(line for line, gone in zip(lines, theirs, strict=True) if not gone).encode()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("first", [0, 1, 3000, 9999])
def test_what_is_known_to_stay_is_copied_and_what_is_unreadable_is_counted_once(
    tmp_path: Path, suffix: str, first: int
) -> None:
    """Wherever the first line of theirs lies: what was searched before it is not searched again."""
    lines = [json.dumps({"user_id": n, "pad": "x" * 100}).encode() + b"\n" for n in range(100, 10_100)]
    lines[first] = b'{"user_id": 7}\n'
    for at in (2, 2999, 3001, 9000):  # unreadable, and about the person
        lines[at] = b'{"user_id": 7,\n'
    lines[4] = b'{"user_id": "' + b"x" * 2_000_000 + b'"}\n'
    path = pack(tmp_path / f"app.jsonl{suffix}", b"".join(lines))
    [result] = run(logs(tmp_path, JSON_SOURCE), [task("r/1", user_id="7")]).values()
    assert isinstance(result, Done)
    assert result.counts == {"app": 1}
    assert result.evidence == {"files_searched": 1, "files_rewritten": 1, "lines_unparsed": 5}
    assert unpack(path) == b"".join(line for line in lines if line != b'{"user_id": 7}\n')
