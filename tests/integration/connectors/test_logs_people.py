"""What people get: access, discovery, redaction within the scope, verification, and honest outcomes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from connectors.contract import Action, Fatal, Identity, Outcome, Task
from tests.support.log_files import COMBINED_SOURCE, JSON_SOURCE, ListCall, done, error, logs, pack, task, unpack

pytestmark = pytest.mark.usefixtures("wherever")

REDACTING = {**JSON_SOURCE, "on_erase": "redact"}
LINE = b'{"at": 5, "user_id": 1, "email": "U1@x.example", "client": {"ip": "10.0.0.1"}, "message": "from 10.0.0.1"}\n'
OTHER = b'{"at": 6, "user_id": 11, "email": "u11@x.example", "client": {"ip": "10.0.0.1"}, "message": "u1@x.example"}\n'
ACCESS = b'10.0.0.1 - 1 [10/Oct/2026:13:55:36 +0200] "GET /1 HTTP/1.1" 200 12 "-" "Browser \\"9\\""\n'


def _records(call: ListCall, key: str) -> list[tuple[str, dict[str, object]]]:
    return sorted(call.sinks[key].records, key=lambda r: (r[0], str(r[1]["file"]), r[1]["line"]))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_access_gives_each_person_their_own_lines_with_file_and_number(tmp_path: Path, suffix: str) -> None:
    pack(tmp_path / f"app.jsonl{suffix}", b"rubbish\n" + OTHER * 3 + LINE + OTHER + LINE)
    pack(tmp_path / f"access.log{suffix}", ACCESS * 2)
    call = ListCall()
    one, two = done(
        logs(tmp_path, JSON_SOURCE, COMBINED_SOURCE),
        task("r1/1", "access", email="u1@X.example", user_id="1"),
        task("r2/1", "access", user_id="11"),
        call=call,
    )
    assert (one.outcome, one.counts) == (Outcome.EXECUTED, {"app": 2, "access": 2})
    assert (two.outcome, two.counts) == (Outcome.EXECUTED, {"app": 4})
    mine = {"at": 5, "user_id": 1, "email": "U1@x.example", "client.ip": "10.0.0.1"}
    visit = {"remote_addr": "10.0.0.1", "remote_user": "1", "user_agent": 'Browser "9"'}
    assert _records(call, "r1/1") == [
        ("access", {"file": f"access.log{suffix}", "line": 1, **visit}),
        ("access", {"file": f"access.log{suffix}", "line": 2, **visit}),
        ("app", {"file": f"app.jsonl{suffix}", "line": 5, **mine}),
        ("app", {"file": f"app.jsonl{suffix}", "line": 7, **mine}),
    ]
    assert [record["line"] for _, record in _records(call, "r2/1")] == [2, 3, 4, 6]
    json.dumps(call.sinks["r1/1"].records)


def test_access_shows_only_the_fields_in_scope(tmp_path: Path) -> None:
    pack(tmp_path / "app.jsonl", LINE)
    call = ListCall()
    done(logs(tmp_path, JSON_SOURCE), task("r1/1", "access", scope=["user.device"], user_id="1"), call=call)
    assert call.sinks["r1/1"].records == [
        ("app", {"file": "app.jsonl", "line": 1, "at": 5, "client.ip": "10.0.0.1"}),
    ]


def test_discovery_finds_the_addresses_of_a_person_and_no_others(tmp_path: Path) -> None:
    pack(tmp_path / "app.jsonl", LINE + OTHER.replace(b"10.0.0.1", b"10.0.0.2") + LINE.replace(b"0.0.1", b"0.0.9"))
    connector = logs(tmp_path, JSON_SOURCE, discover=["ip"])
    assert Action.DISCOVER in connector.supports()
    [result] = done(connector, task("r/1", "discover", user_id="1"))
    assert set(result.found) == {Identity("ip", "10.0.0.1"), Identity("ip", "10.0.0.9")}
    assert Action.DISCOVER not in logs(tmp_path, JSON_SOURCE).supports()


def test_redaction_replaces_every_listed_field_and_can_be_repeated(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.jsonl", OTHER + LINE)
    connector = logs(tmp_path, REDACTING)
    done(connector, task("r/1", email="u1@x.example"))
    once = path.read_bytes()
    assert once == OTHER + (
        b'{"at": 5, "user_id": "[erased]", "email": "[erased]", "client": {"ip": "[erased]"}, '
        b'"message": "from 10.0.0.1"}\n'
    )
    done(connector, task("r2/1", email="u1@x.example"))
    assert path.read_bytes() == once


@pytest.mark.parametrize("on_erase", ["remove", "redact"])
def test_an_erasure_of_one_category_leaves_the_other_fields(tmp_path: Path, on_erase: str) -> None:
    path = pack(tmp_path / "app.jsonl", LINE + OTHER)
    connector = logs(tmp_path, {**JSON_SOURCE, "on_erase": on_erase})
    [result] = done(connector, task("r/1", scope=["user.device.ip_address"], user_id="1"))
    assert result.counts == {"app": 1}
    assert path.read_bytes() == LINE.replace(b'"ip": "10.0.0.1"', b'"ip": "[erased]"') + OTHER
    [verified] = done(connector, task("r/2", "verify", scope=["user.device.ip_address"], user_id="1"))
    assert verified.outcome is Outcome.VERIFIED
    assert isinstance(error(connector, task("r/3", "verify", user_id="1")), Fatal)
    done(connector, task("r/4", user_id="1"))
    assert (OTHER in path.read_bytes(), b"U1@x" in path.read_bytes()) == (True, False)


def test_people_with_different_scopes_in_one_batch_get_what_each_asked_for(tmp_path: Path) -> None:
    second = LINE.replace(b'"user_id": 1,', b'"user_id": 2,').replace(b"U1", b"u2")
    path = pack(tmp_path / "app.jsonl", LINE + second)
    results = done(
        logs(tmp_path, JSON_SOURCE),
        task("r1/1", scope=["user.contact"], user_id="1"),
        task("r2/1", user_id="2"),
        task("r3/1", scope=["user.financial"], user_id="2"),
    )
    assert [r.outcome for r in results] == [Outcome.EXECUTED, Outcome.EXECUTED, Outcome.SKIPPED]
    assert path.read_bytes() == LINE.replace(b"U1@x.example", b"[erased]")


def test_a_pseudonym_is_the_same_for_the_same_value_and_not_a_plain_hash(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.jsonl", LINE + LINE + OTHER)
    source = {**JSON_SOURCE, "on_erase": "pseudonymise"}
    connector = logs(tmp_path, source, pseudonym_key="a key of some length")
    done(connector, task("r/1", user_id="1"))
    first, second, third = path.read_bytes().splitlines(keepends=True)
    assert first == second
    assert third == OTHER
    value = json.loads(first)["email"]
    assert value.startswith("erased:")
    assert hashlib.sha256(b"U1@x.example").hexdigest()[:32] not in value
    [verified] = done(connector, task("r/2", "verify", user_id="1", email="u1@x.example"))
    assert verified.outcome is Outcome.VERIFIED


def test_combined_lines_are_redacted_in_place(tmp_path: Path) -> None:
    path = pack(tmp_path / "access.log", ACCESS + ACCESS.replace(b" 1 [", b" 2 ["))
    connector = logs(tmp_path, {**COMBINED_SOURCE, "on_erase": "redact"})
    done(connector, task("r/1", user_id="1"))
    assert path.read_bytes() == (
        b'[erased] - [erased] [10/Oct/2026:13:55:36 +0200] "GET /1 HTTP/1.1" 200 12 "-" "[erased]"\n'
    ) + ACCESS.replace(b" 1 [", b" 2 [")


def test_lines_of_any_shape_are_read_with_a_regular_expression(tmp_path: Path) -> None:
    source = {
        "name": "mail",
        "files": "**/mail.log",
        "format": "regex",
        "pattern": r"\S+ to=<(?P<to>[^>]*)> client=\[(?P<client>\S*?)\] ",
        "fields": {"to": {"identity": "email"}, "client": {"identity": "ip"}},
        "on_erase": "redact",
    }
    (tmp_path / "a").mkdir()
    path = pack(
        tmp_path / "a" / "mail.log",
        b"x to=<U1@x.example> client=[1.2.3.4] ok\r\nx to=<au1@x.example> client=[1.2.3.4] ok\r\nu1@x.example\r\n",
    )
    [result] = done(logs(tmp_path, source), task("r/1", email="u1@x.example"))
    assert result.counts == {"mail": 1}
    assert result.evidence["lines_unparsed"] == 1
    assert path.read_bytes() == (
        b"x to=<[erased]> client=[[erased]] ok\r\nx to=<au1@x.example> client=[1.2.3.4] ok\r\nu1@x.example\r\n"
    )


def test_a_token_that_the_pattern_cannot_read_is_refused_before_anything_is_lost(tmp_path: Path) -> None:
    source = {
        "name": "net",
        "files": "net.log",
        "format": "regex",
        "pattern": r"(?P<ip>[\d.]+) (?P<user>\S+)",
        "fields": {"ip": {"identity": "ip"}, "user": {"identity": "user_id"}},
        "on_erase": "redact",
    }
    path = pack(tmp_path / "net.log", b"1.2.3.4 bob\n")
    refused = error(logs(tmp_path, source), task("r/1", user_id="bob", scope=["user.device"]))
    assert isinstance(refused, Fatal)
    assert "'net'" in str(refused)
    assert path.read_bytes() == b"1.2.3.4 bob\n"
    done(logs(tmp_path, source, token="0.0.0.0"), task("r/2", user_id="bob", scope=["user.device"]))
    assert path.read_bytes() == b"0.0.0.0 bob\n"


def test_a_shared_address_selects_lines_only_where_that_is_configured(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.jsonl", LINE + OTHER)
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", ip="10.0.0.1"))
    assert result.outcome is Outcome.UNSUPPORTED
    assert "email, user_id" in result.note
    assert path.read_bytes() == LINE + OTHER
    [result] = done(logs(tmp_path, JSON_SOURCE, identities=["ip"]), task("r/2", ip="10.0.0.1"))
    assert result.counts == {"app": 2}
    assert path.read_bytes() == b""


def test_verification_says_where_how_much_remains_and_not_whose(tmp_path: Path) -> None:
    pack(tmp_path / "app.jsonl.1.gz", LINE * 3 + OTHER)
    failed = error(logs(tmp_path, JSON_SOURCE), task("r/1", "verify", user_id="1", email="u1@x.example"))
    assert isinstance(failed, Fatal)
    assert "3 in source 'app'" in str(failed)
    assert "u1" not in str(failed).lower()


def test_hashed_identities_are_declared_unsupported(tmp_path: Path) -> None:
    pack(tmp_path / "app.jsonl", LINE)
    hashed = Identity("email", hashlib.sha256(b"u1@x.example").hexdigest(), "sha256")
    connector = logs(tmp_path, JSON_SOURCE)
    [result] = done(connector, Task("r/1", Action.ERASE, (hashed,)))
    assert result.outcome is Outcome.UNSUPPORTED
    [result] = done(connector, Task("r/2", Action.ERASE, (hashed, Identity("user_id", "1"))))
    assert (result.outcome, result.counts) == (Outcome.EXECUTED, {"app": 1})
    assert result.note


def test_lines_too_long_and_binary_rubbish_are_kept_and_counted(tmp_path: Path) -> None:
    long = b'{"user_id": 1, "pad": "' + b"x" * 5000 + b'"}\n'
    endless = b'{"user_id": 1, "pad": "' + b"x" * 3_000_000 + b'"}\r\n'
    rubbish = b'\x00\xff{"user_id": 1,\n'
    data = LINE + long + rubbish + LINE + endless + rubbish + LINE + endless[:-2]
    for suffix in ("", ".gz", ".zst"):
        path = pack(tmp_path / f"app.jsonl{suffix}", data, parts=4)
        connector = logs(tmp_path, JSON_SOURCE, longest_line=2000)
        [result] = done(connector, task(f"r{suffix}/1", user_id="1"))
        assert result.counts == {"app": 3}
        assert result.evidence["lines_unparsed"] == 5
        assert unpack(path) == long + rubbish + endless + rubbish + endless[:-2]
        path.unlink()


def test_a_field_that_occurs_twice_in_an_object_is_redacted_twice(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.jsonl", b'{"user_id": 1, "user_id" :"2", "client":{"ip": {"v4": "1.2.3.4"}}}\n')
    done(logs(tmp_path, REDACTING), task("r/1", user_id="1"))
    assert path.read_bytes() == b'{"user_id": "[erased]", "user_id" :"[erased]", "client":{"ip": "[erased]"}}\n'


def test_a_file_of_two_sources_belongs_to_the_first(tmp_path: Path) -> None:
    pack(tmp_path / "app.jsonl", LINE)
    [result] = done(logs(tmp_path, JSON_SOURCE, {**JSON_SOURCE, "name": "again"}), task("r/1", user_id="1"))
    assert result.counts == {"app": 1}
