"""The doorbell's answer: work on a system until a round finds nothing or its share of time is used up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from orchestrator import logs
from orchestrator.broker import topology
from orchestrator.broker.bell import Bell
from orchestrator.broker.celery_app import RING
from orchestrator.errors import Unavailable

if TYPE_CHECKING:
    from celery import Celery

    from orchestrator.runtime import Runtime

_log = logs.get("worker")

SHARE = 2.0
"""Seconds one doorbell may keep a worker process before others get their turn."""
AGAIN = 0.25
"""Seconds until it is said again that there is more: steps that come one by one would ring for each."""


def answer(runtime: Runtime, bell: Bell, system: str, served: Collection[str] = ()) -> None:
    """Work on one system; then on those that this made ready, if ``served`` here: nobody need be rung for them."""
    if system not in runtime.definitions.systems:
        _log.warning("ring.unknown", system=system)
        return
    until = time.monotonic() + SHARE
    rung: dict[str, float] = {}
    now: Sequence[str] = [system]

    def more() -> None:
        first = now[0]
        if time.monotonic() - rung.get(first, 0.0) > AGAIN:
            rung[first] = time.monotonic()
            bell.ring(Counter({first: 1}))

    try:
        while True:
            worked = runtime.execute.work(*now, served=served, until=until, on_full=more, on_ready=bell.ring)
            # Requests under way before new ones: a system that was full comes last of those that are ready.
            ready = worked.advanced.rings + Counter(dict.fromkeys(worked.full, 1))
            following = [name for name, _ in ready.most_common() if name in served or name in worked.full]
            if not following or time.monotonic() > until:
                bell.ring(ready)
                return
            now = runtime.execute.together(following)
            # The others first: their workers need not wait for what we do next.
            bell.ring(Counter({name: n for name, n in ready.items() if name not in now}))
    except Unavailable as error:
        _log.warning("database.unavailable", error=str(error))


def register(app: Celery, runtime: Runtime, bell: Bell) -> None:
    """Make the app answer doorbells."""
    queues = {queue.name for queue in app.conf.task_queues}
    served = {s for s in runtime.definitions.systems if topology.work_queue_name(s) in queues}

    @app.task(name=RING)  # type: ignore[untyped-decorator]
    def ring(system: str) -> None:
        answer(runtime, bell, system, served)
