"""A vendor counts its calls: however workers stand still and wake up, no second has more than the limit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from benchmarks.orchestration.habeas import await_up, files, sending
from benchmarks.programs import running
from tests.support.deployment import deployed, eventually, rows

WORKFLOW = "workflow: erasure\nversion: 1\nright: erasure\nsteps:\n  - {id: erase, action: erase}\n"
PER_SECOND, BURST = 40, 60
PARALLEL = 20
"""Threads of a worker: most of a claim's calls wait for one."""
REQUESTS = 200
STANDS_STILL = 2.0
"""Seconds; the lease does not run out."""


def test_two_workers_never_exceed_a_vendors_limit_not_even_when_one_stood_still(
    tmp_path: Path, postgres_database: str, rabbitmq_vhost: str
) -> None:
    with running("benchmarks.workers.vendor", environment=os.environ, log=tmp_path / "vendor.log") as vendor:
        config = {"port": vendor.ask("port")["port"]}
        system = {"name": "slow", "connector": "benchmarks.workers.connector:Slow", "config": config}
        system |= {"parallel": PARALLEL, "rate": {"per_second": PER_SECOND, "burst": BURST}}
        environment = {
            **files(tmp_path / "definitions", WORKFLOW, [system]),
            "HABEAS_DATABASE_URL": postgres_database,
            "HABEAS_BROKER_URL": rabbitmq_vhost,
        }
        with deployed(tmp_path / "deployment", environment, "intake", "clock") as deployment:
            runtime = deployment.runtime()

            def count(state: str) -> int:
                return int(rows(runtime, "SELECT count(*) AS n FROM step WHERE state = :state", state=state)[0].n)

            def calls() -> int:
                return int(vendor.ask("seen")["calls"])

            def signals(number: signal.Signals, *names: str) -> None:
                for name in names:
                    os.killpg(deployment.processes[name].pid, number)

            deployment.start("worker-1", "worker-2", arguments=("-c", "1"))
            await_up(deployment, "intake", "clock", "worker-1", "worker-2")
            rows(runtime, "UPDATE connector_state SET tokens_at = tokens_at - interval '1 min' RETURNING 1")
            signals(signal.SIGSTOP, "worker-1", "worker-2")
            with sending(deployment) as sender:
                sender.ask("publish", REQUESTS)
                eventually(lambda: count("ready") == REQUESTS, "all are admitted")
                signals(signal.SIGCONT, "worker-1")
                eventually(calls, "a worker calls")
                signals(signal.SIGSTOP, "worker-1")
                stopped, before = time.monotonic(), calls()
                eventually(lambda: time.monotonic() - stopped > STANDS_STILL, "the bucket could fill again")
                signals(signal.SIGCONT, "worker-2")
                # It may not, while it isn't known what the first one did.
                eventually(
                    lambda: calls() > before + PARALLEL or time.monotonic() - stopped > 2 * STANDS_STILL, "a call"
                )
                signals(signal.SIGCONT, "worker-1")
                eventually(lambda: count("done") == REQUESTS, "all is done", 120)
            runtime.close()
        seen = vendor.ask("seen")
    assert (seen["calls"], seen["repeated"]) == (REQUESTS, 0)
    assert seen["busiest"] <= PER_SECOND + BURST
