"""Times, lengths of time and numbers, as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta


def moment(when: datetime) -> str:
    """A time to read: to the second, with its zone."""
    return when.strftime("%Y-%m-%d %H:%M:%S ") + (when.tzname() or "UTC")


def duration(length: timedelta) -> str:
    """A length of time to read, in its two largest units: ``3 d 4 h``."""
    return duration_of(length.total_seconds())


def duration_of(length: float) -> str:
    """The same, of a number of seconds."""
    seconds = int(length)
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        n, seconds = divmod(seconds, size)
        if n or parts:
            parts.append(f"{n} {name}")
    return " ".join([p for p in parts[:2] if not p.startswith("0 ")] or ["0 s"])


def by(actor: str, reason: str) -> str:
    """`` by ada (a test)``, as far as it is known."""
    return (f" by {actor}" if actor else "") + (f" ({reason})" if reason else "")


def things(n: int, one: str, many: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{n} {one if n == 1 else many}"
