"""The state that all workers share about one system: paused, circuit breaker, late settles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, text

from orchestrator.errors import NotFound
from orchestrator.store import bulk


def register(tx: Connection, systems: Iterable[str]) -> None:
    """Make sure that each configured system has a row."""
    tx.execute(
        text("INSERT INTO connector_state (system) SELECT unnest(CAST(:systems AS text[])) ON CONFLICT DO NOTHING"),
        {"systems": sorted(systems)},
    )


def pause(tx: Connection, system: str, actor: str, reason: str) -> None:
    """Begin nothing more on a system until resumed. Raises ``NotFound``."""
    statement = (
        "UPDATE connector_state SET paused = true, paused_by = :actor, paused_reason = :reason WHERE system = :system"
    )
    if not tx.execute(text(statement), {"system": system, "actor": actor, "reason": reason}).rowcount:
        raise NotFound(f"there is no system {system!r}")


def resume(tx: Connection, system: str) -> None:
    """Go on, with a closed breaker. Raises ``NotFound``."""
    statement = """
        UPDATE connector_state
        SET paused = false, paused_by = '', paused_reason = '', failures = 0, breaker_until = NULL
        WHERE system = :system"""
    if not tx.execute(text(statement), {"system": system}).rowcount:
        raise NotFound(f"there is no system {system!r}")


def note_success(tx: Connection, names: Sequence[str]) -> None:
    """These systems answered: close their breakers. Writes only when there is something to clear."""
    if names:
        bulk.send(tx, _NOTE_SUCCESS, {"names": list(names)})


# Locked in order of name, as everybody does who has several in hand.
_NOTE_SUCCESS = """
WITH ill AS (
    SELECT system FROM connector_state
    WHERE system = ANY(%(names)s) AND (failures > 0 OR breaker_until IS NOT NULL) ORDER BY system FOR UPDATE
)
UPDATE connector_state AS c SET failures = 0, breaker_until = NULL, last_error = ''
FROM ill WHERE c.system = ill.system"""


def note_failures(tx: Connection, system: str, n: int, error: str, threshold: int, rest: timedelta) -> None:
    """The system failed ``n`` times with no success between: count, and open the breaker at the threshold."""
    tx.execute(
        text("""
        UPDATE connector_state SET failures = failures + :n, last_error = :error,
            breaker_until = CASE WHEN failures + :n >= :threshold THEN clock_timestamp() + :rest ELSE breaker_until END
        WHERE system = :system"""),
        {"system": system, "n": n, "error": error, "threshold": threshold, "rest": rest},
    )


def count_fenced(tx: Connection, fenced: Mapping[str, int]) -> None:
    """Count settles that came too late, per system."""
    for system in sorted(fenced):
        tx.execute(
            text("UPDATE connector_state SET fenced = fenced + :n WHERE system = :system"),
            {"system": system, "n": fenced[system]},
        )
