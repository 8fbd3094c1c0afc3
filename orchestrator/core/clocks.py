"""Legal deadlines. What each regulation gives is data (``workflows/regulations.yaml``); this is the arithmetic."""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime, timedelta

from orchestrator.core.model import Clock


def add_months(moment: datetime, months: int) -> datetime:
    """The same day ``months`` calendar months on, or that month's last day: 31 January + 1 month = 28/29 February."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def deadline(clock: Clock, received_at: datetime, *, extended: bool = False) -> datetime:
    """By when a request must be answered; ``extended``: with the further time that a notice to the person gives."""
    due = add_months(received_at, clock.months) + timedelta(days=clock.days)
    if extended:
        due = add_months(due, clock.extension_months) + timedelta(days=clock.extension_days)
    return due
