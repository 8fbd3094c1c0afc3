"""Celery's consumer, as we need it: back as soon as the broker is, and without queues for countdowns."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from orchestrator import logs

_log = logs.get("worker")

PAUSE = 1.0
"""Seconds between attempts while the broker is away."""
_NOT_OURS = "celery.worker.consumer.delayed_delivery:DelayedDelivery"
"""Would declare 28 queues for countdowns; ours are rows."""


class WorkerConsumer(Consumer):  # type: ignore[misc]
    """Takes doorbells; outlives the broker."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """The steps that make a connection."""

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if step != _NOT_OURS)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes. Celery waits ever longer between attempts, up to half a minute."""

        def away(error: Exception, _seconds: float) -> None:
            _log.warning("broker.unavailable", error=type(error).__name__)

        conn.ensure_connection(away, interval_start=PAUSE, interval_step=0, interval_max=PAUSE, callback=maybe_shutdown)
        self.first_connection_attempt = False
        return conn
