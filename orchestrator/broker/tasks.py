"""The doorbell's answer: work on a system until a round finds nothing or its share of time is used up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
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
    """Work on one system; then on one that this made ready, if it is ``served`` here: nobody need be rung for it."""
    if system not in runtime.definitions.systems:
        _log.warning("ring.unknown", system=system)
        return
    until = time.monotonic() + SHARE
    rung = 0.0

    def more() -> None:
        nonlocal rung
        if time.monotonic() - rung > AGAIN:
            rung = time.monotonic()
            bell.ring(Counter({system: 1}))

    try:
        while True:
            worked = runtime.execute.work(system, on_full=more)
            rings = worked.advanced.rings
            following = system if worked.full else _most(rings, served)
            if following and time.monotonic() < until:
                # The others first: their workers need not wait for what we do next.
                bell.ring(rings if worked.full else Counter({s: n for s, n in rings.items() if s != following}))
                system = following
                continue
            bell.ring(rings + Counter({system: 1} if worked.full else {}))
            return
    except Unavailable as error:
        _log.warning("database.unavailable", error=str(error))


def _most(rings: Mapping[str, int], served: Collection[str]) -> str:
    """The system with the most work among those; empty: none."""
    return max((s for s, n in rings.items() if n and s in served), key=lambda s: rings[s], default="")


def register(app: Celery, runtime: Runtime, bell: Bell) -> None:
    """Make the app answer doorbells."""
    queues = {queue.name for queue in app.conf.task_queues}
    served = {s for s in runtime.definitions.systems if topology.work_queue_name(s) in queues}

    @app.task(name=RING)  # type: ignore[untyped-decorator]
    def ring(system: str) -> None:
        answer(runtime, bell, system, served)
