"""Figures of the whole deployment, for metrics and for those who watch. Read only.

Each figure is read from an index that holds nothing but the answer, or from a tally: none counts closed requests, or
finished or parked steps, of which there may be millions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, text

from orchestrator.store.tally import ADMITTED


@dataclass(frozen=True, slots=True)
class SystemFigures:
    """One system."""

    steps: Mapping[str, int]
    """State (ready, running, parked, attention) → steps in it."""
    oldest_ready: float
    """Seconds that its oldest ready step has been ready; 0 without one."""
    paused: bool
    breaker_open: bool
    fenced: int
    """Settles that came too late, ever."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The deployment."""

    systems: Mapping[str, SystemFigures]
    admitted: Mapping[str, int]
    """Right → requests ever admitted."""
    closed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(right, resolution) → requests ever closed so."""
    attention: Mapping[str, int] = field(default_factory=dict)
    """Right → open requests that want an operator."""
    overdue: int = 0
    outbox_unpublished: int = 0
    outbox_lag: float = 0.0
    """Seconds that the oldest unpublished event has waited."""
    quarantined: Mapping[str, int] = field(default_factory=dict)
    """Reason → refused messages that nobody has replayed."""

    @property
    def open(self) -> dict[str, int]:
        """Right → open requests."""
        closed: dict[str, int] = {}
        for (right, _), n in self.closed.items():
            closed[right] = closed.get(right, 0) + n
        return {right: n - closed.get(right, 0) for right, n in self.admitted.items()}


def read(tx: Connection) -> Figures:
    """All figures, as of now."""
    tx.execute(_ALONE)
    steps: dict[str, dict[str, int]] = {}
    oldest: dict[str, float] = {}
    for row in tx.execute(_STEPS):
        steps.setdefault(row.system, {})[row.state] = row.n
        if row.oldest is not None:
            oldest[row.system] = max(0.0, float(row.oldest))
    systems = {
        row.system: SystemFigures(
            steps.get(row.system, {}), oldest.get(row.system, 0.0), row.paused, row.breaker_open, row.fenced
        )
        for row in tx.execute(_SYSTEMS)
    }
    for system, states in steps.items():
        systems.setdefault(system, SystemFigures(states, oldest.get(system, 0.0), False, False, 0))  # noqa: FBT003 - a state
    admitted: dict[str, int] = {}
    closed: dict[tuple[str, str], int] = {}
    for row in tx.execute(_TALLY):
        if row.what == ADMITTED:
            admitted[row.right] = row.n
        else:
            closed[row.right, row.what] = row.n
    rest = tx.execute(_REST).one()
    return Figures(
        systems,
        admitted,
        closed,
        {row.right: row.n for row in tx.execute(_ATTENTION)},
        rest.overdue,
        rest.unpublished,
        float(rest.lag or 0.0),
        {row.reason: row.n for row in tx.execute(_QUARANTINED)},
    )


def recent(tx: Connection, seconds: float) -> int:
    """Audit entries of the last seconds: how much is going on."""
    n: int = tx.execute(_RECENT, {"seconds": seconds}).scalar_one()
    return n


def clock(tx: Connection) -> datetime:
    """The database's time."""
    moment: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment


# How many are open and overdue together, the planner does not know, and it would start workers to count a handful.
_ALONE = text("SET LOCAL max_parallel_workers_per_gather = 0")
_STEPS = text("""
SELECT system, 'ready' AS state, count(*) AS n, extract(epoch FROM clock_timestamp() - min(changed_at)) AS oldest
FROM (
    SELECT system, changed_at FROM step WHERE state = 'ready' AND crashes = 0
    UNION ALL SELECT system, changed_at FROM step WHERE state = 'ready' AND crashes > 0
) AS waiting GROUP BY system
UNION ALL SELECT system, 'running', count(*), NULL FROM step WHERE state = 'running' GROUP BY system
UNION ALL SELECT system, 'parked', sum(n)::bigint, NULL FROM parked GROUP BY system
UNION ALL SELECT system, 'attention', count(*), NULL FROM step WHERE state = 'attention' GROUP BY system""")
_SYSTEMS = text("""
SELECT system, paused, fenced, coalesce(breaker_until > clock_timestamp(), false) AS breaker_open
FROM connector_state ORDER BY system""")
_TALLY = text('SELECT "right", what, sum(n)::bigint AS n FROM tally GROUP BY "right", what')
_ATTENTION = text("""
SELECT r."right", count(*) AS n FROM (SELECT DISTINCT request_id FROM step WHERE state = 'attention') AS wanting
JOIN request r ON r.id = wanting.request_id GROUP BY r."right" """)
_REST = text("""
SELECT (SELECT count(*) FROM request WHERE resolution IS NULL AND deadline < statement_timestamp()) AS overdue,
    (SELECT count(*) FROM unpublished) AS unpublished,
    (SELECT extract(epoch FROM clock_timestamp() - created_at) FROM outbox
        WHERE id = (SELECT min(id) FROM unpublished)) AS lag""")
_QUARANTINED = text("SELECT reason, count(*) AS n FROM quarantine WHERE replayed_at IS NULL GROUP BY reason")
_RECENT = text("SELECT count(*) FROM audit WHERE at > statement_timestamp() - make_interval(secs => :seconds)")
