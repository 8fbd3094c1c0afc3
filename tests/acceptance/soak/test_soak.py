"""Three minutes of a busy deployment with a fault every few seconds: nothing lost, nothing done twice.

``HABEAS_TEST_SOAK_SECONDS`` sets how long faults strike (180 by default, 1800 at night), ``HABEAS_TEST_SEED`` which.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from orchestrator.errors import Unavailable
from tests.acceptance.soak.faults import Faults
from tests.support.deployment import Deployment, deployed, rows
from tests.support.oracle_check import await_closed, verdict
from tests.support.oracle_world import Asked, Sender, oracle_world
from tests.support.servers.rabbitmq import RabbitMQ

SECONDS = float(os.environ.get("HABEAS_TEST_SOAK_SECONDS", "180"))
SEED = int(os.environ.get("HABEAS_TEST_SEED", "0")) or random.randrange(1, 1_000_000)
LEASE = 3.0
"""Seconds."""
AHEAD = 600
"""Requests that may be open at once: enough that nobody idles, few enough that the end comes soon after the last."""
WORKERS = ("worker", "worker-2", "worker-3", "worker-4")


class Stream:
    """Somebody who asks, and asks again under the same id until the broker has confirmed."""

    def __init__(self, sender: Sender, chance: random.Random) -> None:
        self.asked: list[Asked] = []
        self.repeats = 0
        self.closed = 0
        """How many are closed, as last seen."""
        self._sender, self._chance = sender, chance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the last message was never confirmed"

    def _run(self) -> None:
        while not self._stop.is_set():
            if len(self.asked) - self.closed > AHEAD:
                self._stop.wait(0.05)
                continue
            right = "access" if self._chance.random() < 0.1 else "erasure"
            self._publish(Asked(str(uuid4()), right, f"p{uuid4().hex}@oracle.example"))

    def _publish(self, one: Asked) -> None:
        verified = {"method": "login", "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        while True:
            try:
                self._sender.publisher.request(
                    one.right, email=one.person, message_id=one.message_id, verification=verified
                )
            except Unavailable:
                self.repeats += 1
                time.sleep(0.2)
            else:
                self.asked.append(one)
                return


def test_nothing_is_lost_and_nothing_done_twice_while_fault_follows_fault(
    tmp_path: Path,
    postgres_database: str,
    own_rabbitmq: Callable[[], RabbitMQ],
    reaped: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rabbitmq = own_rabbitmq()
    chance = random.Random(SEED)
    urls = {"HABEAS_DATABASE_URL": postgres_database, "HABEAS_BROKER_URL": rabbitmq.url}
    quick = {"HABEAS_LEASE_SECONDS": str(LEASE), "HABEAS_SWEEP_SECONDS": "0.5", "HABEAS_LOG_LEVEL": "info"}
    sys.stdout.write(f"HABEAS_TEST_SEED={SEED}\n")  # shown when it fails
    with (
        oracle_world(tmp_path / "oracle", reaped=reaped) as world,
        deployed(tmp_path / "deployment", {**world.environment, **urls, **quick}, "intake", "clock", "clock-2") as it,
        world.sender(it.settings) as sender,
    ):
        it.start(*WORKERS, arguments=("-c", "1"))
        faults = Faults(it, world, rabbitmq, chance, LEASE)
        stream = Stream(sender, random.Random(SEED))
        began = time.monotonic()
        stream.start()
        try:
            _strike(it, faults, stream, chance)
        finally:
            faults.thaw(all_=True)
            stream.stop()
            sys.stdout.write("\n".join([*faults.diary, ""]))
        for system in ("keyed", "unkeyed"):
            world.target.behave(system)
        struck = time.monotonic()
        await_closed(it, stream.asked, 120)
        closed = time.monotonic()
        assert verdict(world, it, stream.asked) == []
        figures = _figures(it, stream, faults, struck - began, closed - struck)
        with capsys.disabled():
            sys.stdout.write(f"\n{figures}\n")


def _strike(it: Deployment, faults: Faults, stream: Stream, chance: random.Random) -> None:
    """A fault every few seconds, until the time is up."""
    until = time.monotonic() + SECONDS
    following = time.monotonic() + 5
    while time.monotonic() < until:
        time.sleep(0.2)
        faults.thaw()
        stream.closed = _closed(it, stream.closed)
        if time.monotonic() > following:
            faults.strike()
            following = time.monotonic() + chance.uniform(1.5, 5)


def _closed(it: Deployment, before: int) -> int:
    runtime = it.runtime()
    try:
        return int(rows(runtime, "SELECT count(*) AS n FROM request WHERE resolution IS NOT NULL")[0].n)
    except Unavailable:
        return before
    finally:
        runtime.close()


def _figures(it: Deployment, stream: Stream, faults: Faults, seconds: float, after: float) -> str:
    runtime = it.runtime()
    lost = rows(runtime, "SELECT count(*) AS n FROM audit WHERE what = 'lost'")[0].n
    fenced = rows(runtime, "SELECT coalesce(sum(fenced), 0) AS n FROM connector_state")[0].n
    retried = rows(runtime, "SELECT count(*) FILTER (WHERE attempt > 1) AS n, count(*) AS of FROM step")[0]
    runtime.close()
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(faults.struck.items()))
    return (
        f"soak, seed {SEED}: {len(stream.asked)} requests in {seconds:.0f} s, all closed {after:.0f} s after the last "
        f"fault; {faults.struck.total()} faults ({kinds}); {retried.n} of {retried.of} steps needed more than one "
        f"attempt, {lost} were taken back, {fenced} late settles fenced; {stream.repeats} publishes repeated"
    )
