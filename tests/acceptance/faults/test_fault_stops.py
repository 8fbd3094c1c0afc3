"""Processes that are told to stop: a deployment is restarted every week, and nobody should notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.support.deployment import eventually
from tests.support.failpoints_stage import Stage

NewStage = Callable[..., Stage]
GRACE = 2.0
"""Seconds."""


def test_a_worker_that_is_told_to_stop_finishes_what_it_has_in_hand(stage: Stage) -> None:
    stage.start("mid_call")
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 6, 2)
        stage.await_point()
        running = stage.query("SELECT request_id, ordinal FROM step WHERE state = 'running'")
        stopped = threading.Thread(target=lambda: codes.append(stage.deployment.stop("worker")))
        codes: list[int] = []
        stopped.start()
        eventually(lambda: "process.stopping" in stage.deployment.logs(), "it was told")
        stage.let_go()
        stopped.join(60)
        assert codes == [0]
        left = stage.query("SELECT request_id, ordinal FROM step WHERE state = 'running'")
        assert running
        assert left == [], "nothing is left for a lease to run out"
        stage.deployment.start("worker")
        stage.end(sender)
        assert stage.query("SELECT 1 FROM audit WHERE what = 'lost'") == []


def test_work_that_outlasts_the_grace_time_is_left_to_others_and_its_late_result_counts_for_nothing(
    new_stage: NewStage,
) -> None:
    stage = new_stage(grace_seconds=str(GRACE))
    stage.start("after_effect")
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 6, 0)
        stage.await_point()
        began = time.monotonic()
        assert stage.deployment.stop("worker") != 0, "it says that it was cut short"
        assert time.monotonic() - began >= GRACE, "it had its time"
        assert "process.cut_short" in stage.deployment.logs()
        stage.deployment.start("worker")
        stage.let_go()
        stage.end(sender)


def test_a_rolling_restart_under_load_loses_no_work_and_no_message(stage: Stage) -> None:
    pairs = [(name, f"{name}-2") for name in ("intake", "worker", "clock")]
    for pair in pairs:
        stage.deployment.start(*pair)
    for system in ("keyed", "unkeyed"):
        stage.world.target.behave(system, "slow", seconds=0.2)
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender, 20, 4)
        eventually(lambda: stage.query("SELECT 1 FROM step WHERE state = 'running'"), "work is under way")
        for name in (name for pair in pairs for name in pair):
            assert stage.deployment.stop(name) == 0, name
            stage.deployment.start(name)
            stage.ask(sender, 4, 1)
        stage.end(sender)
        assert stage.query("SELECT 1 FROM audit WHERE what = 'lost'") == [], "nobody had to take work back"
