"""The doorbell's answer: work on a system until a round finds nothing or its share of time is used up."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from orchestrator import logs
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


def answer(runtime: Runtime, bell: Bell, system: str) -> None:
    """Work on one system."""
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
            bell.ring(worked.advanced.rings)
            if not worked.full:
                return
            if time.monotonic() > until:
                bell.ring(Counter({system: 1}))
                return
    except Unavailable as error:
        _log.warning("database.unavailable", error=str(error))


def register(app: Celery, runtime: Runtime, bell: Bell) -> None:
    """Make the app answer doorbells."""

    @app.task(name=RING)  # type: ignore[untyped-decorator]
    def ring(system: str) -> None:
        answer(runtime, bell, system)
