"""What happens to the file itself: attributes, writers, rotation, crashes, other workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from connectors.contract import Fatal, Outcome, Retryable
from connectors.logs import passes, rewrite, work
from connectors.logs.files import LogFile
from tests.support.log_files import JSON_SOURCE, done, error, logs, pack, pending, run, task, unpack

pytestmark = pytest.mark.usefixtures("wherever")

SUFFIXES = ("", ".gz", ".zst")


def _lines(*users: int, size: int = 0) -> bytes:
    return b"".join(
        json.dumps({"user_id": user, "email": f"u{user}@x.example", "pad": "x" * size}).encode() + b"\n"
        for user in users
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_rewritten_file_keeps_its_owner_permissions_and_times(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"app.jsonl{suffix}", _lines(1, 2))
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    before = path.stat()
    done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    after = path.stat()
    assert after.st_ino != before.st_ino
    for name in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_atime_ns"):
        assert getattr(after, name) == getattr(before, name), name
    assert unpack(path) == _lines(2)


def test_files_without_a_real_match_are_not_touched(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.jsonl", _lines(123, 212) + b'{"user_id": 7, "message": "user 12, u12@x.example"}\n')
    before = path.stat()
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="12", email="u12@x.example"))
    assert result.outcome is Outcome.NO_MATCH
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def _names_given_to(monkeypatch: pytest.MonkeyPatch, function: str) -> list[str]:
    names, real = list[str](), getattr(passes, function)

    def noting(file: LogFile, *rest: object) -> object:
        names.append(file.name)
        return real(file, *rest)

    monkeypatch.setattr(passes, function, noting)
    return names


def test_two_hundred_people_are_erased_in_one_rewrite_of_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in SUFFIXES:
        pack(tmp_path / f"app.jsonl.2{suffix}", _lines(*range(400)))
    pack(tmp_path / "app.jsonl.9", _lines(*range(1000, 1400)))
    opened, replaced = _names_given_to(monkeypatch, "open_log"), _names_given_to(monkeypatch, "Rewrite")
    tasks = [task(f"r{n}/1", user_id=str(n)) for n in range(200)]
    for result in done(logs(tmp_path, JSON_SOURCE), *tasks):
        assert (result.outcome, result.counts) == (Outcome.EXECUTED, {"app": 3})
    assert len(opened) == len(set(opened)) == 4
    assert len(replaced) == len(set(replaced)) == 3
    for suffix in SUFFIXES:
        assert unpack(tmp_path / f"app.jsonl.2{suffix}") == _lines(*range(200, 400))


# Writers and rotation. -------------------------------------------------------------------------------------------


def test_a_live_file_is_left_alone_until_it_is_rotated(tmp_path: Path) -> None:
    live = pack(tmp_path / "app.jsonl", _lines(1, 2))
    old = pack(tmp_path / "app.jsonl.1.gz", _lines(1, 1, 3))
    connector = logs(tmp_path, {**JSON_SOURCE, "live": "app.jsonl"}, poll_after="PT10M")
    waits = pending(connector, task("r/1", user_id="1"))
    assert waits.poll_after == timedelta(minutes=10)
    assert "rotation" in waits.waiting_on
    assert unpack(live) == _lines(1, 2)
    assert unpack(old) == _lines(3)
    [other] = done(connector, task("r/2", user_id="3"))
    assert other.outcome is Outcome.EXECUTED
    live.rename(tmp_path / "app.jsonl.2")
    pack(live, _lines(9))
    [result] = done(connector, task("r/1", user_id="1"))
    assert (result.outcome, result.counts) == (Outcome.EXECUTED, {"app": 3})
    assert unpack(tmp_path / "app.jsonl.2") == _lines(2)


def test_a_file_that_somebody_has_open_for_writing_is_not_replaced(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.jsonl", _lines(1, 2))
    connector = logs(tmp_path, JSON_SOURCE)
    with path.open("ab") as writer:
        pending(connector, task("r/1", user_id="1"))
        writer.write(_lines(1, 5))
    [result] = done(connector, task("r/1", user_id="1"))
    assert result.counts == {"app": 2}
    assert path.read_bytes() == _lines(2, 5)


def _while_rewriting(monkeypatch: pytest.MonkeyPatch, *happenings: Callable[[], object]) -> None:
    """Let something happen to the file each time its new version is complete, right before it is looked at again."""
    left, real = list(happenings), rewrite._dress

    def dress(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        if left:
            left.pop(0)()

    monkeypatch.setattr(rewrite, "_dress", dress)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_file_that_grows_while_it_is_rewritten_is_rewritten_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "app.jsonl", _lines(1, 2))
    _while_rewriting(monkeypatch, lambda: _append(path, _lines(1, 3)))
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert result.counts == {"app": 2}
    assert path.read_bytes() == _lines(2, 3)


def test_a_file_that_keeps_growing_is_waited_for_and_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "app.jsonl", _lines(1, 2))
    _while_rewriting(monkeypatch, *[lambda: _append(path, _lines(3))] * 2)
    connector = logs(tmp_path, JSON_SOURCE)
    pending(connector, task("r/1", user_id="1"))
    assert path.read_bytes() == _lines(1, 2, 3, 3)
    done(connector, task("r/1", user_id="1"))
    assert path.read_bytes() == _lines(2, 3, 3)


def test_a_file_that_is_rotated_while_it_is_rewritten_is_found_under_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "app.jsonl", _lines(1, 2))

    def rotate() -> None:
        path.rename(tmp_path / "app.jsonl.1")
        pack(path, _lines(8))

    _while_rewriting(monkeypatch, rotate)
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert result.counts == {"app": 1}
    assert path.read_bytes() == _lines(8)
    assert (tmp_path / "app.jsonl.1").read_bytes() == _lines(2)
    assert not list(tmp_path.glob(".habeas-*"))


# Crashes and other workers. --------------------------------------------------------------------------------------

CHILD = textwrap.dedent("""
    import os, pathlib, signal, sys
    from connectors.logs import rewrite, work
    from tests.support.log_files import JSON_SOURCE, logs, run, task

    root, moment, hit = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    counts = dict.fromkeys(("write", "dress", "before", "after", "synced"), 0)

    def die(name):
        counts[name] += 1
        if name == moment and counts[name] == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(module, attribute, before, after):
        real = getattr(module, attribute)
        def wrapped(*args, **kwargs):
            die(before) if before else None
            result = real(*args, **kwargs)
            die(after) if after else None
            return result
        setattr(module, attribute, wrapped)

    around(work, "_write_all", None, "write")
    around(rewrite, "_dress", None, "dress")
    around(rewrite, "_sync_directory", None, "synced")
    around(rewrite.os, "replace", "before", "after")
    tasks = [task("r/1", user_id="1")]
    print(run(logs(root, JSON_SOURCE), tasks))
""")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("moment", ["write 1", "write 2", "dress 1", "before 1", "after 1", "synced 1", "write 4"])
def test_a_worker_killed_at_any_moment_leaves_whole_files_and_its_work_is_counted(
    tmp_path: Path, moment: str, suffix: str
) -> None:
    old, new = _lines(1, *range(2, 40), 1, size=40_000), _lines(*range(2, 40), size=40_000)
    paths = [pack(tmp_path / f"app.jsonl.{n}{suffix}", old) for n in range(2)]
    child = subprocess.run(  # noqa: PLW1510 - it is killed
        [sys.executable, "-c", CHILD, str(tmp_path), *moment.split()],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    for path in paths:
        assert unpack(path) in (old, new)
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert (result.outcome, result.counts) == (Outcome.EXECUTED, {"app": 4})
    assert [unpack(path) for path in paths] == [new, new]
    assert not list(tmp_path.glob(".habeas-*"))


def test_an_answer_that_was_lost_is_given_again_and_nobody_elses(tmp_path: Path) -> None:
    pack(tmp_path / "app.jsonl", _lines(1, 2, 1))
    connector = logs(tmp_path, JSON_SOURCE)
    first = done(connector, task("r/1", user_id="1"))
    assert [r.counts for r in first] == [{"app": 2}]
    again = done(connector, task("r/1", user_id="1"), task("r2/1", user_id="1"))
    assert [(r.outcome, r.counts) for r in again] == [(Outcome.EXECUTED, {"app": 2}), (Outcome.NO_MATCH, {})]


def test_two_workers_at_once_do_each_others_files_no_harm(tmp_path: Path) -> None:
    users = [*range(60)] * 20
    paths = [pack(tmp_path / f"app.jsonl.{n}{s}", _lines(*users)) for n, s in enumerate(["", ".gz", ".zst"])]
    script = textwrap.dedent("""
        import pathlib, sys
        from tests.support.log_files import JSON_SOURCE, logs, done, task
        tasks = [task(f"r{n}/1", user_id=str(n)) for n in range(int(sys.argv[2]), 40, 2)]
        for one in tasks:
            [result] = done(logs(pathlib.Path(sys.argv[1]), JSON_SOURCE, lock_wait=60), one)
            assert result.counts == {"app": 60}, result
    """)
    repository = Path(__file__).parents[3]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(n)],
            cwd=repository,
            env={**os.environ, "PYTHONPATH": str(repository)},
        )
        for n in range(2)
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    for path in paths:
        assert unpack(path) == _lines(*[user for user in users if user >= 40])


def test_a_root_that_another_worker_is_rewriting_is_tried_again_later(tmp_path: Path) -> None:
    pack(tmp_path / "app.jsonl", _lines(1))
    script = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print(1, flush=True); sys.stdin.read()"
    )
    lock = str(tmp_path / ".habeas.lock")
    with subprocess.Popen(
        [sys.executable, "-c", script, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused = error(logs(tmp_path, JSON_SOURCE, lock_wait=0.1), task("r/1", user_id="1"))
        assert isinstance(refused, Retryable)
        assert refused.after is not None
        assert (tmp_path / "app.jsonl").read_bytes() == _lines(1)
        holder.communicate(b"")
    done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))


# Errors. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("app.jsonl.gz", lambda data: data[:-12]),
        ("app.jsonl.gz", lambda data: data[:60] + bytes([data[60] ^ 0xFF]) + data[61:]),
        ("app.jsonl.gz", lambda data: b"not gzip at all"),
        ("app.jsonl.zst", lambda data: data[:-5]),
        ("app.jsonl.zst", lambda data: b"not zstd at all"),
        ("app.jsonl.xz", lambda data: data),
    ],
)
def test_a_damaged_file_is_named_and_keeps_no_other_file_from_being_done(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    bad = pack(tmp_path / name, _lines(1, *range(100)))
    bad.write_bytes(damage(bad.read_bytes()))
    before = bad.read_bytes()
    good = pack(tmp_path / "app.jsonl.7", _lines(1, 2))
    for action in ("erase", "access", "verify"):
        failed = error(logs(tmp_path, JSON_SOURCE), task("r/1", action, user_id="1"))
        assert isinstance(failed, Fatal)
        assert name in str(failed)
    assert good.read_bytes() == _lines(2)
    assert bad.read_bytes() == before
    bad.unlink()
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert result.counts == {"app": 1}


def test_a_full_disk_is_worth_another_try_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "app.jsonl", _lines(1, 2))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(passes, "_hands", lambda *_: 0)
        patch.setattr(work, "_write_all", full)
        failed = error(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert isinstance(failed, Retryable)
    assert "room" in str(failed)
    assert path.read_bytes() == _lines(1, 2)
    assert not list(tmp_path.glob(".habeas-*"))


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    outside = pack(tmp_path / "app.jsonl", _lines(1))
    root = tmp_path / "root"
    root.mkdir()
    (root / "app.jsonl").symlink_to(outside)
    for action in ("erase", "access"):
        refused = error(logs(root, JSON_SOURCE), task("r/1", action, user_id="1"))
        assert isinstance(refused, Fatal)
        assert "symbolic link" in str(refused)
    assert outside.read_bytes() == _lines(1)


def test_a_directory_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    file = pack(outside / "app.jsonl", _lines(1))
    root = tmp_path / "root"
    root.mkdir()
    (root / "sub").symlink_to(outside, target_is_directory=True)
    assert isinstance(error(logs(root, {**JSON_SOURCE, "files": "*/app*"}), task("r/1", user_id="1")), Fatal)
    assert file.read_bytes() == _lines(1)


def test_a_link_inside_the_root_stays_a_link(tmp_path: Path) -> None:
    path = pack(tmp_path / "2026-11-03.log", _lines(1, 2))
    (tmp_path / "app.jsonl").symlink_to(path.name)
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert result.counts == {"app": 1}
    assert (tmp_path / "app.jsonl").is_symlink()
    assert path.read_bytes() == _lines(2)


def test_a_file_with_a_second_name_is_refused_for_that_name_would_keep_the_lines(tmp_path: Path) -> None:
    path = pack(tmp_path / "app.jsonl", _lines(1, 2))
    (tmp_path / "copy").hardlink_to(path)
    assert "hard link" in str(error(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1")))
    assert path.read_bytes() == _lines(1, 2)


def test_a_missing_root_is_an_error_and_not_an_empty_answer(tmp_path: Path) -> None:
    for action in ("erase", "access", "verify"):
        missing = error(logs(tmp_path / "nowhere", JSON_SOURCE), task("r/1", action, user_id="1"))
        assert isinstance(missing, Fatal)


def test_what_a_killed_worker_left_half_written_is_cleaned_up(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    left = tmp_path / "sub" / ".habeas-rewrite-abc"
    left.write_bytes(_lines(1))
    run(logs(tmp_path, JSON_SOURCE), [task("r/1", user_id="1")])
    assert not left.exists()
