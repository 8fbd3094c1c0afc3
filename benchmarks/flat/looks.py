"""What operators look at: ``habeas list``, ``show``, ``why``, ``watch``, ``quarantine``, and a scrape of metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from benchmarks.flat.engine import SOURCE, Engine
from orchestrator.cli.why import explain
from orchestrator.store import figures, queries, trail
from orchestrator.store.queries import Which

RECENT = 10.0
"""Seconds that ``habeas watch`` looks back."""
_CLOSED = "SELECT id, message_id FROM request WHERE closed_at IS NOT NULL ORDER BY closed_at LIMIT 1 OFFSET 100"
_PARKED = "SELECT id, message_id FROM request WHERE resolution IS NULL ORDER BY deadline LIMIT 1 OFFSET 100"


def looks(engine: Engine) -> dict[str, Callable[[Connection], Any]]:
    """Each look by its name."""
    closed, parked = (engine.rows(q)[0] for q in (_CLOSED, _PARKED))
    return {
        **{f"list {w}": partial(queries.requests, which=w, limit=30) for w in Which},
        **{f"list {w} of one source": partial(queries.requests, which=w, source=SOURCE, limit=30) for w in Which},
        **{f"list {w} of a source that has none": partial(_of_nobody, which=w) for w in Which},
        "show a closed request": partial(_show, request=closed.id),
        "show a parked request": partial(_show, request=parked.id),
        "show by message id": partial(queries.find_message, message_id=closed.message_id),
        "why, of a closed request": partial(_why, engine, closed.id),
        "why, of a parked request": partial(_why, engine, parked.id),
        "metrics": figures.read,
        "watch": _watch,
        "quarantine list": queries.quarantined,
    }


def _of_nobody(tx: Connection, which: Which) -> queries.Page:
    return queries.requests(tx, which, source="urn:nobody", limit=30)


def _show(tx: Connection, request: UUID) -> Any:
    found = queries.find(tx, str(request)[:23])
    return queries.detail(tx, found), trail.entries(tx, found)


def _why(engine: Engine, request: UUID, tx: Connection) -> Any:
    return explain(tx, request, dict(engine.runtime.definitions.systems))


def _watch(tx: Connection) -> Any:
    return figures.read(tx), figures.recent(tx, RECENT)
