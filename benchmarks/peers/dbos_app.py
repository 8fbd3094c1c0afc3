"""DBOS Transact: workflows that fan out to four through a queue. A process that answers to ``fan_out N``.

``PEER_DATABASE`` is a PostgreSQL URL. Several processes share the queue.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, Queue

from benchmarks.programs import Found, answer

AT_ONCE = int(os.environ.get("PEER_AT_ONCE", "64"))
"""Workflows that one process has under way."""
POLL = float(os.environ.get("PEER_POLL", "0.02"))
"""Seconds between looks into the queue, and for a result."""

_queues: list[Queue] = []


@DBOS.workflow()
def step(n: int) -> int:
    """One of four."""
    return n


@DBOS.workflow()
def fan_out() -> int:
    """Four through the queue, then their sum."""
    handles = [_queues[0].enqueue(step, n) for n in range(4)]
    return sum(handle.get_result(polling_interval_sec=POLL) for handle in handles)


def run(number: int) -> Found:
    """That many workflows, some at once."""
    cpu, began = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda _: fan_out(), range(number)))
    wrong = [f"a workflow gave {r}" for r in results if r != 6]  # noqa: PLR2004 - 0 + 1 + 2 + 3
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "wrong": wrong[:3]}


def main() -> None:
    """Launch, and do what is told."""
    DBOS(
        config={
            "name": "peer",
            "system_database_url": os.environ["PEER_DATABASE"],
            "executor_id": str(os.getpid()),
            "application_version": "1",
            "log_level": "ERROR",
            "sys_db_pool_size": 40,
            "max_executor_threads": 4 * AT_ONCE,
            "notification_listener_polling_interval_sec": POLL,
        }
    )
    DBOS.launch()
    _queues.append(DBOS.register_queue("steps", polling_interval_sec=POLL))
    answer({"fan_out": run})


if __name__ == "__main__":
    main()
