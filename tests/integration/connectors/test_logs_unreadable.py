"""What cannot be read: it is named, nobody's other files wait for it, and nothing is said to be complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest

from connectors.contract import Fatal, Outcome, Retryable
from connectors.logs import passes
from connectors.logs.files import LogFile, open_log
from connectors.logs.journal import Journal
from tests.support.log_files import JSON_SOURCE, NOW, ListCall, done, error, logs, pack, run, task, unpack

REPOSITORY = Path(__file__).parents[3]
BAD = "app.jsonl.3"
USER, EMAIL = "10815", "ada.lovelace@looked-for.example"
SAYS_NOTHING_OF = (USER, EMAIL, "lovelace", "erased")


def lines(*users: str) -> bytes:
    made = ({"user_id": user, "email": EMAIL if user == USER else f"u{user}@x.example", "at": "t"} for user in users)
    return b"".join(json.dumps(line).encode() + b"\n" for line in made)


def around(root: Path) -> list[Path]:
    """Files listed before and after the one that makes trouble, of every compression."""
    names = ("app.jsonl.1", "app.jsonl.2.gz", "app.jsonl.4", "app.jsonl.5.zst")
    return [pack(root / name, lines(USER, *"23" * n)) for n, name in enumerate(names, 1)]


def of_others(root: Path) -> list[Path]:
    """Check that these files have nothing of the person, and everything of everybody else."""
    paths = sorted(path for path in root.glob("app.*") if not path.name.startswith(BAD))
    assert [unpack(path) for path in paths] == [lines(*"23" * n) for n in range(1, len(paths) + 1)]
    return paths


def names_it_and_nobody(failed: Exception, name: str = BAD) -> None:
    assert name in str(failed)
    assert not any(secret in str(failed) for secret in SAYS_NOTHING_OF)


def opened_instead(monkeypatch: pytest.MonkeyPatch, instead: Callable[[LogFile], FileIO | None]) -> None:
    """Have something happen right before the file that makes trouble is opened, or another opened instead."""

    def opening(file: LogFile) -> FileIO:
        return (instead(file) if file.name == BAD else None) or open_log(file)

    monkeypatch.setattr(passes, "open_log", opening)


def denied(file: LogFile) -> FileIO:
    """What nobody may read, not even root: the system asks for the permission bits of files in ``/sys``."""
    [path, *_] = Path("/sys/bus").glob("*/drivers_probe")
    return open_log(replace(file, path=path, inode=(path.stat().st_dev, path.stat().st_ino)))


def broken(_: LogFile) -> FileIO:
    """Reading it is an input/output error: there is no memory at its start."""
    return FileIO("/proc/self/mem")


FAILURES = [
    pytest.param(denied, Fatal, "permission", id="denied"),
    pytest.param(broken, Retryable, "Input/output error", id="broken"),
]


@pytest.mark.usefixtures("wherever")
@pytest.mark.parametrize(("instead", "kind", "says"), FAILURES)
def test_an_unreadable_file_is_named_and_all_others_are_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: Callable[[LogFile], FileIO],
    kind: type[Exception],
    says: str,
) -> None:
    around(tmp_path)
    bad = pack(tmp_path / BAD, lines(USER, "4"))
    connector = logs(tmp_path, JSON_SOURCE)
    with monkeypatch.context() as patch:
        opened_instead(patch, instead)
        calls = ListCall()
        for action in ("access", "erase", "verify"):
            results = run(connector, [task("r/1", action, user_id=USER), task("r2/1", action, user_id="99")], calls)
            for failed in results.values():  # nobody is told that it is complete: not even who was not found
                assert isinstance(failed, kind)
                assert says in str(failed)
                names_it_and_nobody(failed)
    assert len(calls.sinks["r/1"].records) == 4
    of_others(tmp_path)
    assert bad.read_bytes() == lines(USER, "4")
    assert not list(tmp_path.glob(".habeas-*"))
    [result] = done(connector, task("r/1", user_id=USER))
    assert (result.outcome, result.counts) == (Outcome.EXECUTED, {"app": 5})
    [verified] = done(connector, task("r/1", "verify", user_id=USER))
    assert verified.outcome is Outcome.VERIFIED


@pytest.mark.usefixtures("wherever")
def test_of_two_that_cannot_be_read_the_one_that_needs_somebody_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    around(tmp_path)
    pack(tmp_path / BAD, lines(USER))
    torn = pack(tmp_path / f"{BAD}.gz", lines(USER, "4"))
    torn.write_bytes(torn.read_bytes()[:-9])
    opened_instead(monkeypatch, broken)
    failed = error(logs(tmp_path, JSON_SOURCE), task("r/1", user_id=USER))
    assert isinstance(failed, Fatal)
    names_it_and_nobody(failed, torn.name)
    of_others(tmp_path)


def _away(path: Path) -> None:
    path.unlink()


def _a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.usefixtures("wherever")
@pytest.mark.parametrize("becomes", [_away, _a_directory, _a_pipe])
def test_a_file_that_is_gone_when_it_is_to_be_opened_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: Callable[[Path], None]
) -> None:
    around(tmp_path)
    pack(tmp_path / BAD, lines(USER, "4"))
    opened_instead(monkeypatch, lambda file: becomes(file.path))
    connector = logs(tmp_path, JSON_SOURCE)
    [result] = done(connector, task("r/1", user_id=USER))
    assert result.counts == {"app": 4}
    of_others(tmp_path)
    [verified] = done(connector, task("r/1", "verify", user_id=USER))
    assert verified.outcome is Outcome.VERIFIED


@pytest.mark.usefixtures("wherever")
def test_a_file_that_becomes_a_link_is_not_followed_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    around(tmp_path)
    pack(tmp_path / BAD, lines(USER, "4"))
    opened_instead(monkeypatch, lambda file: _a_dangling_link(file.path) if not file.path.is_symlink() else None)
    names_it_and_nobody(error(logs(tmp_path, JSON_SOURCE), task("r/1", user_id=USER)))
    of_others(tmp_path)
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id=USER))
    assert result.counts == {"app": 4}


@pytest.mark.usefixtures("wherever")
def test_what_is_no_file_holds_no_lines(tmp_path: Path) -> None:
    around(tmp_path)
    (tmp_path / f"{BAD}.d").mkdir()
    os.mkfifo(tmp_path / f"{BAD}.p")
    (tmp_path / f"{BAD}.nowhere").symlink_to("nowhere")
    (tmp_path / f"{BAD}.round").symlink_to(f"{BAD}.round")
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id=USER))
    assert result.counts == {"app": 4}
    of_others(tmp_path)


@pytest.mark.usefixtures("wherever")
def test_a_link_that_leaves_the_root_keeps_no_other_file_from_being_done(tmp_path: Path) -> None:
    outside, root = pack(tmp_path / "outside", lines(USER)), tmp_path / "root"
    root.mkdir()
    around(root)
    (root / BAD).symlink_to(outside)
    for action in ("erase", "verify"):
        failed = error(logs(root, JSON_SOURCE), task("r/1", action, user_id=USER))
        assert isinstance(failed, Fatal)
        names_it_and_nobody(failed)
    of_others(root)
    assert outside.read_bytes() == lines(USER)


def test_what_was_erased_where_nobody_may_look_now_is_counted_when_somebody_may(tmp_path: Path) -> None:
    """A worker was killed after it replaced a file; then the file's directory could not be read; then it could."""
    file = pack(tmp_path / "app.jsonl", lines("2"))
    inode = (file.stat().st_dev, file.stat().st_ino)
    Journal(tmp_path, (), NOW).announce(inode, {"r/1": {"app": 7}})
    assert Journal(tmp_path, (), NOW, whole=False).lines("r/1") == {}
    assert Journal(tmp_path, {inode}, NOW).lines("r/1") == {"app": 7}
    assert Journal(tmp_path, (), NOW).lines("r/1") == {"app": 7}


# Permissions as they are on a server, where even root has none that the system does not grant. ----------------------

SCRIPT = textwrap.dedent("""
    import pathlib, sys
    from connectors.logs import passes
    from tests.support.log_files import JSON_SOURCE, logs, run, task

    root, action, pattern, hands, user = pathlib.Path(sys.argv[1]), *sys.argv[2:]
    passes._hands = lambda files, most: min(len(files), int(hands))
    connector = logs(root, {**JSON_SOURCE, "files": pattern})
    [result] = run(connector, [task("r/1", action, user_id=user)]).values()
    print(type(result).__name__, result)
""")


def as_a_user(root: Path, action: str, pattern: str, hands: int) -> str:
    """What an action says where permissions count, as they do not for root."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, sys.executable, "-c", SCRIPT, str(root), action, pattern, str(hands), USER],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    ).stdout


@pytest.mark.parametrize("hands", [0, 2])
def test_a_file_without_permission_is_named_and_all_others_are_done(tmp_path: Path, hands: int) -> None:
    around(tmp_path)
    bad = pack(tmp_path / BAD, lines(USER))
    bad.chmod(0)
    for action in ("access", "erase", "verify"):
        said = as_a_user(tmp_path, action, "app.jsonl*", hands)
        assert said.startswith("Fatal")
        assert "permission" in said
        names_it_and_nobody(Exception(said))
    of_others(tmp_path)
    bad.chmod(0o600)
    assert bad.read_bytes() == lines(USER)
    assert as_a_user(tmp_path, "erase", "app.jsonl*", hands).startswith("Done")
    assert bad.read_bytes() == b""


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
@pytest.mark.parametrize("pattern", ["*/app.jsonl*", "**/app.jsonl*", "web*/app.jsonl*", "web3/app.jsonl*"])
def test_a_directory_that_may_not_be_looked_into_is_named_and_not_taken_for_an_empty_one(
    tmp_path: Path, pattern: str, mode: int
) -> None:
    for n in (1, 2, 3):
        (tmp_path / f"web{n}").mkdir()
        pack(tmp_path / f"web{n}" / "app.jsonl", lines(USER, "2"))
    closed = tmp_path / "web3"
    closed.chmod(mode)
    try:
        said = [as_a_user(tmp_path, action, pattern, 0) for action in ("erase", "verify")]
    finally:
        closed.chmod(0o700)
    for one in said:
        assert one.startswith("Fatal")
        assert "permission" in one
        names_it_and_nobody(Exception(one), "web3")
    assert (closed / "app.jsonl").read_bytes() == lines(USER, "2")
    if pattern != "web3/app.jsonl*":
        assert [unpack(tmp_path / f"web{n}" / "app.jsonl") for n in (1, 2)] == [lines("2")] * 2
