"""The processes beside a worker that search and rewrite log files: they end with it, and can do no harm."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from connectors.contract import Outcome, Retryable
from connectors.logs import children, passes, work
from tests.support.log_files import JSON_SOURCE, ListCall, done, logs, pack, run, task, unpack

REPOSITORY = Path(__file__).parents[3]
SECRET = "ada.lovelace@looked-for.example"


def beside(files: Any, most: int) -> int:
    return min(len(files), most)


@pytest.fixture(autouse=True)
def _beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    children._lender.end()
    monkeypatch.setattr(passes, "_hands", beside)
    yield
    children._lender.end()


def ours(pid: int | None = None) -> list[psutil.Process]:
    """The processes that a worker has started."""
    return [p for p in psutil.Process(pid).children() if "connectors.logs.child" in " ".join(p.cmdline())]


def until(holds: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)
    return value


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def lines(*users: int, times: int = 1) -> bytes:
    line = '{{"at": "t", "user_id": {}, "email": "u{}@example.org", "client": {{"ip": "10.0.0.1"}}}}\n'
    return "".join(line.format(user, user) for user in users).encode() * times


def many(root: Path, files: int = 4) -> list[Path]:
    """Files that take a while to rewrite: each some 20 MB with a line of user 1 at each hundredth place."""
    return [pack(root / f"app.jsonl.{n}.gz", lines(*range(1, 101), times=2500)) for n in range(files)]


LEFT = lines(*range(2, 101), times=2500)

WORKER = textwrap.dedent("""
    import pathlib, sys
    from connectors.logs import passes
    from tests.support.log_files import JSON_SOURCE, logs, run, task

    passes._hands = lambda files, most: min(len(files), most)
    print(run(logs(pathlib.Path(sys.argv[1]), JSON_SOURCE), [task("r/1", user_id="1")]), flush=True)
    sys.stdin.read()
""")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that rewrites what lies in a directory, caught in the middle of it."""
    many(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    until(lambda: any(path.stat().st_size for path in tmp_path.glob(".habeas-rewrite-*")))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_killed_worker_takes_its_processes_along_and_its_successor_completes_the_work(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    helpers = ours(worker.pid)
    assert len(helpers) == 2
    worker.kill()
    until(lambda: all(map(gone, helpers)), seconds=5)
    worker.wait()
    whole = lines(*range(1, 101), times=2500)
    assert all(unpack(path) in (whole, LEFT) for path in tmp_path.glob("app.*"))
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert (result.outcome, result.counts) == (Outcome.EXECUTED, {"app": 10_000})
    assert all(unpack(path) == LEFT for path in tmp_path.glob("app.*"))
    assert not list(tmp_path.glob(".habeas-rewrite-*"))


def test_a_process_that_outlives_its_worker_cannot_touch_a_file(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    helpers = ours(worker.pid)
    for helper in helpers:
        helper.suspend()  # so that it cannot even end
    worker.kill()
    worker.wait()
    [result] = done(logs(tmp_path, JSON_SOURCE, lock_wait=0), task("r/1", user_id="1"))
    assert result.counts == {"app": 10_000}
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    for helper in helpers:
        with contextlib.suppress(psutil.NoSuchProcess):  # the kernel may have ended it with its worker all the same
            helper.resume()
    until(lambda: all(map(gone, helpers)), seconds=5)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    assert all(unpack(path) == LEFT for path in tmp_path.glob("app.*"))


def test_signals_that_ask_the_worker_to_stop_let_the_batch_be_finished(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    for helper in ours(worker.pid):  # as a terminal and a service manager do to all of a worker's processes
        helper.send_signal(signal.SIGINT)
        helper.send_signal(signal.SIGTERM)
    assert worker.stdout is not None
    assert b"Done" in worker.stdout.readline()
    assert all(unpack(path) == LEFT for path in tmp_path.glob("app.*"))
    helpers = ours(worker.pid)
    worker.communicate(b"")
    until(lambda: all(map(gone, helpers)), seconds=5)


def test_where_a_process_is_killed_the_file_is_tried_again_and_the_others_are_done(tmp_path: Path) -> None:
    many(tmp_path)
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(run, logs(tmp_path, JSON_SOURCE), [task("r/1", user_id="1")])
        until(lambda: any(path.stat().st_size for path in tmp_path.glob(".habeas-rewrite-*")))
        victim = ours()[0]
        victim.kill()
        failed = result.result()["r/1"]
    assert isinstance(failed, Retryable)
    assert "memory" in str(failed)
    assert [unpack(path) == LEFT for path in tmp_path.glob("app.*")].count(True) == 3
    assert not list(tmp_path.glob(".habeas-rewrite-*"))
    assert victim.pid not in {p.pid for p in ours()}
    [result_again] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert result_again.counts == {"app": 10_000}
    assert all(unpack(path) == LEFT for path in tmp_path.glob("app.*"))


def test_a_process_that_was_killed_while_it_had_nothing_to_do_is_replaced(tmp_path: Path) -> None:
    for n in range(2):
        pack(tmp_path / f"app.jsonl.{n}", lines(1, 2))
    done(logs(tmp_path, JSON_SOURCE), task("r/1", "verify", user_id="3"))
    for helper in ours():
        helper.kill()
        helper.wait()
    [result] = done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert result.counts == {"app": 2}


def test_processes_are_used_again_and_end_when_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "IDLE", 0.5)
    others = set(psutil.Process().children())
    for n in range(3):
        pack(tmp_path / f"app.jsonl.{n}", lines(1, 2))
    done(logs(tmp_path, JSON_SOURCE), task("r/1", "verify", user_id="3"))
    first = {p.pid for p in ours()}
    assert len(first) == 2
    done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert {p.pid for p in ours()} == first
    until(lambda: set(psutil.Process().children()) == others, seconds=5)  # not even as a zombie


def test_whom_they_look_for_is_nowhere_to_be_read(tmp_path: Path) -> None:
    for n in range(2):
        pack(tmp_path / f"app.jsonl.{n}", json.dumps({"email": SECRET}).encode() + b"\n")
    [found] = done(logs(tmp_path, JSON_SOURCE), task("r/1", "access", email=SECRET))
    assert found.counts == {"app": 2}
    for helper in ours():
        assert SECRET not in " ".join([*helper.cmdline(), *helper.environ().values()])
        # Nobody else can listen in: standard input, a socket to the worker, and no other file.
        assert [file.path for file in helper.open_files()] == []


def test_small_files_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for n in range(3):
        pack(tmp_path / f"app.jsonl.{n}", lines(1, 2))
    done(logs(tmp_path, JSON_SOURCE), task("r/1", user_id="1"))
    assert ours() == []


def test_much_to_look_at_starts_as_many_as_are_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for n in range(4):
        with (tmp_path / f"app.jsonl.{n}").open("wb") as file:
            file.truncate(passes.WORTH // 3)
    done(logs(tmp_path, JSON_SOURCE, processes=1), task("r/1", "verify", user_id="1"))
    assert ours() == []
    done(logs(tmp_path, JSON_SOURCE, processes=3), task("r/1", "verify", user_id="1"))
    assert len(ours()) == 3


def test_threads_of_one_worker_share_the_processes(tmp_path: Path) -> None:
    roots = [tmp_path / str(n) for n in range(6)]
    for root in roots:
        root.mkdir()
        for n in range(3):
            pack(root / f"app.jsonl.{n}", lines(*range(20), times=500))
    seen = list[int]()

    def erase(root: Path) -> None:
        calls = ListCall()
        [found] = done(logs(root, JSON_SOURCE), task("r/1", "access", user_id="1"), call=calls)
        seen.append(len(ours()))
        assert found.counts == {"app": 1500}
        assert len(calls.sinks["r/1"].records) == 1500
        [result] = done(logs(root, JSON_SOURCE), task("r/1", user_id="1"))
        assert result.counts == {"app": 1500}

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(erase, roots))
    assert max(seen) == 2
    left = lines(*[user for user in range(20) if user != 1], times=500)
    assert all(unpack(path) == left for root in roots for path in root.glob("app.*"))


def _in_a_daemon(root: Path) -> None:
    [result] = done(logs(root, JSON_SOURCE), task("r/1", user_id="1"))
    os._exit(0 if result.counts == {"app": 3} and len(ours()) == 2 else 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forks in a process with threads
def test_a_prefork_worker_has_its_own_and_not_those_of_the_process_it_was_forked_from(tmp_path: Path) -> None:
    for n in range(3):
        pack(tmp_path / f"app.jsonl.{n}", lines(1, 2))
    done(logs(tmp_path, JSON_SOURCE), task("r/1", "verify", user_id="3"))
    before = ours()
    fork = multiprocessing.get_context("fork")
    stays = fork.Process(target=time.sleep, args=(60,), daemon=True)  # what it inherits must keep nobody alive
    stays.start()
    daemon = fork.Process(target=_in_a_daemon, args=(tmp_path,), daemon=True)
    daemon.start()
    daemon.join(30)
    assert daemon.exitcode == 0
    assert [p.pid for p in ours()] == [p.pid for p in before]
    done(logs(tmp_path, JSON_SOURCE), task("r/1", "verify", user_id="3"))
    for child in list(children._lender._idle):
        child.forsake()
    until(lambda: all(map(gone, before)), seconds=5)
    stays.kill()


def test_a_fault_of_ours_is_told_without_what_it_was_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(2):
        pack(tmp_path / f"app.jsonl.{n}", lines(1, 2))
    monkeypatch.setattr(
        passes, "Order", lambda file, **_: work.Order(_without_a_source(file), erasing=False, telling=False)
    )
    with pytest.raises(RuntimeError, match=r"IndexError in .*batch.py, line") as raised:
        run(logs(tmp_path, JSON_SOURCE), [task("r/1", "verify", user_id="1")])
    assert "user" not in str(raised.value)


def _without_a_source(file: Any) -> Any:
    return type(file)(7, *(getattr(file, name) for name in ("path", "name", "live", "inode", "size")))
