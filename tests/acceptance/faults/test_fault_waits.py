"""While a fault lasts: what waits says what for, what need not wait goes on, and all goes on by itself afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.deployment import eventually
from tests.support.failpoints_stage import Stage, says
from tests.support.oracle_check import await_closed

NewStage = Callable[..., Stage]


# Why. ---------------------------------------------------------------------------------------------------------------


def test_why_names_a_worker_that_is_gone_and_a_clock_that_is_gone(stage: Stage) -> None:
    stage.start("mid_call")
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 5, 0)
        stage.await_point()
        stage.deployment.kill("clock")
        stage.deployment.kill("worker")
        stage.let_go()
        says(stage, "its lease ran out, so its worker is gone")
        stage.deployment.start("clock")
        says(stage, "the worker that had it was lost")
        stage.deployment.start("worker")
        stage.end(sender)


# What need not wait. ------------------------------------------------------------------------------------------------


def test_a_worker_that_stands_still_in_the_middle_of_a_settle_holds_up_nobody_else(stage: Stage) -> None:
    stage.start("mid_settle")
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 5, 0)
        pid = stage.await_point()
        zombie = psutil.Process(pid)
        zombie.suspend()
        stage.deployment.start("worker-2")
        others = [sender.erase() for _ in range(5)]
        past = "SELECT 1 FROM step WHERE state = 'running' AND lease_until < clock_timestamp() LIMIT 1"
        eventually(lambda: stage.query(past), "the zombie's lease runs out")
        others += [sender.erase() for _ in range(5)]
        await_closed(stage.deployment, others)
        stage.let_go()
        zombie.resume()
        stage.asked += others
        stage.end(sender)


@pytest.mark.parametrize("point", ["after_claim", "after_effect"])
def test_work_in_hand_is_kept_while_the_database_is_away_for_longer_than_a_lease(stage: Stage, point: str) -> None:
    stage.start(point)
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender)
        stage.await_point()
        stage.postgres.stop()
        stage.let_go()
        until = time.monotonic() + 3
        eventually(lambda: time.monotonic() > until, "the lease runs out")
        stage.postgres.start()
        stage.end(sender)
    assert stage.query("SELECT 1 FROM audit WHERE what = 'lost' LIMIT 1") == []


# A full disk. -------------------------------------------------------------------------------------------------------


def test_a_full_artifact_store_is_waited_for_and_named(new_stage: NewStage) -> None:
    stage = new_stage(oracle={"records": 12, "record_bytes": 30_000})
    folder = Path(stage.deployment.environment["HABEAS_ARTIFACTS"])
    with full_disk(folder, stage) as make_room, stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 2, 3)
        says(stage, "the artifacts folder failed")
        make_room()
        stage.end(sender)
    assert stage.query("SELECT 1 FROM audit WHERE what = 'attention' LIMIT 1") == []


@contextmanager
def full_disk(folder: Path, stage: Stage) -> Iterator[Callable[[], object]]:
    """Start with a disk too small for one artifact: a file system of its own, or (not root) a limit on files."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o"]
    if os.geteuid() == 0 and _run(*mount, "size=64k", "none", str(folder)):
        try:
            stage.start("")
            yield lambda: eventually(lambda: _run("mount", "-o", "remount,size=64m", str(folder)), "there is room")
        finally:
            stage.deployment.close()
            _run("umount", str(folder))
        return
    stage.start("")
    limit = psutil.RLIMIT_FSIZE
    for process in eventually(stage.children, "the worker has children"):
        process.rlimit(limit, (100_000, psutil.RLIM_INFINITY))

    def make_room() -> None:
        for process in stage.children():
            process.rlimit(limit, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))

    yield make_room


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
