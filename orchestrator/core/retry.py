"""When to try again: capped exponential delay with full jitter."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.model import RetryPolicy


def delay(policy: RetryPolicy, failures: int, jitter: float, after: timedelta | None = None) -> timedelta:
    """The wait before the next attempt.

    ``failures``: how many there were, this one included (1 or more); ``jitter`` in [0, 1] is the share of the full
    delay, so that a thousand steps that failed together don't come back together; ``after`` is the system's own
    Retry-After, never undercut.
    """
    full = policy.base
    for _ in range(failures - 1):
        if not timedelta() < full < policy.cap:
            break
        full *= 2
    full = min(full, policy.cap)
    return max(full * jitter, after or timedelta())
