"""Every fault at every point where it can strike: nothing is lost, nothing is done twice.

A representative sample always runs; ``HABEAS_TEST_FAULTS=all`` runs the whole matrix.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.support import failpoints_stage as faults
from tests.support.deployment import eventually
from tests.support.failpoints import ONWARD
from tests.support.failpoints_stage import Fault, Stage
from tests.support.oracle_check import await_closed

IN_WORKER = ("before_claim", "after_claim", "mid_call", "after_effect", "after_call", "mid_settle", "after_settle")
IN_INTAKE = ("before_admit", "mid_admit", "after_admit")
IN_CLOCK = ("mid_publish", "after_confirm")

ANYWHERE: tuple[Fault, ...] = (
    faults.rabbitmq_restarted,
    faults.postgres_fast,
    faults.postgres_immediate,
    faults.backends_terminated,
)
MATRIX: dict[Fault, tuple[str, ...]] = {
    faults.child_killed: IN_WORKER,
    faults.worker_killed: IN_WORKER,
    faults.worker_stopped: IN_WORKER,
    faults.intake_killed: (*IN_INTAKE, "mid_call"),
    faults.clock_killed: (*IN_CLOCK, "mid_call", "after_call"),
    faults.queues_deleted: (*IN_WORKER, *IN_CLOCK),
    faults.commit_cut_before: ("before_claim", "mid_settle", "mid_admit", "after_confirm"),
    faults.commit_cut_after: ("before_claim", "mid_settle", "mid_admit", "after_confirm"),
    faults.network_stalled: IN_WORKER,
    **dict.fromkeys(ANYWHERE, (*IN_WORKER, *IN_INTAKE, *IN_CLOCK)),
}
SAMPLE: tuple[tuple[Fault, str], ...] = (
    (faults.child_killed, "after_effect"),
    (faults.worker_killed, "mid_settle"),
    (faults.worker_stopped, "after_call"),
    (faults.intake_killed, "after_admit"),
    (faults.clock_killed, "mid_publish"),
    (faults.rabbitmq_restarted, "after_settle"),
    (faults.queues_deleted, "mid_call"),
    (faults.postgres_immediate, "mid_settle"),
    (faults.commit_cut_after, "mid_settle"),
    (faults.network_stalled, "after_call"),
)
CHAINS: dict[Fault, tuple[str, ...]] = {
    faults.child_killed: ONWARD,
    faults.worker_killed: ONWARD,
    faults.worker_stopped: ONWARD,
    faults.network_stalled: ONWARD,
    faults.postgres_immediate: ONWARD,
    faults.backends_terminated: ONWARD,
    faults.queues_deleted: ("onward_after_settle",),
    faults.commit_cut_before: ("onward_mid_settle",),
    faults.commit_cut_after: ("onward_after_call", "onward_mid_settle"),
}
"""Between the links of a chain: what a settle took, and nobody claimed."""
CHAIN_SAMPLE: tuple[tuple[Fault, str], ...] = (
    (faults.child_killed, "onward_after_claim"),
    (faults.worker_killed, "onward_mid_settle"),
    (faults.commit_cut_after, "onward_mid_settle"),
)
CASES = [(f, p) for f, points in MATRIX.items() for p in points]
CHAIN_CASES = [(f, p) for f, points in CHAINS.items() for p in points]
ALL = os.environ.get("HABEAS_TEST_FAULTS") == "all"
CHOSEN = CASES if ALL else list(SAMPLE)
CHOSEN_CHAINS = CHAIN_CASES if ALL else list(CHAIN_SAMPLE)


@pytest.mark.parametrize(("fault", "point"), CHOSEN, ids=[f"{f.__name__}-{p}" for f, p in CHOSEN])
def test_nothing_is_lost_and_nothing_is_done_twice(stage: Stage, fault: Fault, point: str) -> None:
    stage.start(point)
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender)
        pid = stage.await_point()
        with fault(stage, pid):
            stage.let_go()
        stage.end(sender)


@pytest.mark.parametrize(("fault", "point"), CHOSEN_CHAINS, ids=[f"{f.__name__}-{p}" for f, p in CHOSEN_CHAINS])
def test_nothing_is_lost_or_done_twice_between_the_links_of_a_chain(stage: Stage, fault: Fault, point: str) -> None:
    stage.start(point)
    with stage.world.sender(stage.deployment.settings) as sender:
        stage.ask(sender)
        pid = stage.await_point()
        assert stage.went_on(), "it strikes where a settle took what it had made ready"
        with fault(stage, pid):
            stage.let_go()
        stage.end(sender)


def test_messages_that_come_twice_and_out_of_order_are_carried_out_once(stage: Stage) -> None:
    chance = random.Random(7)
    stage.start("mid_admit", "kill", nth=2)
    with stage.world.sender(stage.deployment.settings) as sender:
        wanted = [(right, f"p{n}@oracle.example", f"m{n}") for n, right in enumerate(["erasure", "access"] * 8)]
        for right, person, message_id in chance.sample(wanted * 3, k=3 * len(wanted)):
            stage.asked.append(sender.ask(right, person, message_id))
            if len(stage.asked) == len(wanted):
                eventually(lambda: stage.query("SELECT 1 FROM request LIMIT 1"), "some were taken in")
        eventually(stage.failpoint.reached_by, "intake was killed in the middle of an admission")
        stage.deployment.kill("intake")
        stage.deployment.start("intake")
        await_closed(stage.deployment, stage.asked)
        sender.ask("erasure", "somebody.else@oracle.example", "m1")
        refused = "SELECT 1 FROM quarantine WHERE reason = 'conflicting_replay'"
        eventually(lambda: stage.query(refused), "the same id with another ask is in quarantine")
        stage.end(sender)
    assert stage.query("SELECT count(*) AS n FROM request")[0].n == len(wanted)


def test_the_sample_is_part_of_the_matrix() -> None:
    assert set(SAMPLE) <= set(CASES)
    assert set(CHAIN_SAMPLE) <= set(CHAIN_CASES)
