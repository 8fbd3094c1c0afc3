"""What operators look up about requests. Read only; every page is found through an index, however many rows there are.

Lists are paged by key, never by offset, and a page looks at no more than ``WINDOW`` rows: a filter that hardly anything
passes gives a short page and a cursor to go on from, instead of a long wait.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.core.model import Run
from orchestrator.core.vocabulary import StepState
from orchestrator.core.why import SOON, StepTimes, SystemState
from orchestrator.errors import Conflict, NotFound
from orchestrator.store import past, tables
from orchestrator.store.rows import STEP, to_run

WINDOW = 5000
"""Rows that one page looks at, at most."""
AHEAD = 10_000
"""The most steps that are counted before one in the queue."""
MIN_PREFIX = 8
"""Hex digits of an id that are enough to name a request."""


class Which(StrEnum):
    """Which requests a list is of, and with that its order."""

    ALL = "all"
    """Newest first."""
    OPEN = "open"
    """Earliest deadline first."""
    OVERDUE = "overdue"
    """Open and past the deadline, earliest deadline first."""
    ATTENTION = "attention"
    """Wanting an operator; oldest first."""
    CLOSED = "closed"
    """Last closed first."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of a list."""

    id: UUID
    right: str
    regulation: str
    source: str
    message_id: str
    received_at: datetime
    deadline: datetime
    closed_at: datetime | None
    resolution: str | None
    paused: bool
    stopping: str | None
    steps: Mapping[str, int]
    """State → how many of its steps are in it."""
    waiting_on: tuple[str, ...]
    """What its parked steps wait for, in words."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list."""

    requests: tuple[Summary, ...]
    after: str | None
    """Where the next page begins; ``None`` at the end."""


@dataclass(frozen=True, slots=True)
class Detail:
    """One request with everything but its personal data."""

    row: Any
    """The row of ``request``."""
    run: Run
    times: Mapping[int, StepTimes]
    paused_by: str
    paused_reason: str
    package: Any
    """The row of the package's artifact, without its content; ``None`` when there is none."""
    unpublished: int
    """Events about it that should have been published by now."""
    folded_at: datetime | None = None
    """Since when its audit trail tells of its steps (``past``)."""


# Finding one. -------------------------------------------------------------------------------------------------------


def find(tx: Connection, given: str) -> UUID:
    """The request that an id, or the beginning of one, names. Raises ``NotFound`` or ``Conflict``."""
    digits = given.replace("-", "").lower()
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},32}}", digits):
        raise NotFound(f"this is not the id of a request: give {MIN_PREFIX} hex digits of it or more")
    low, high = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    found = tx.execute(_BY_PREFIX, {"low": low, "high": high}).scalars().all()
    if not found:
        raise NotFound(f"there is no request {given}")
    if len(found) > 1:
        raise Conflict(f"several requests begin with {given}: give more of the id")
    return UUID(str(found[0]))


def find_message(tx: Connection, message_id: str) -> UUID:
    """The request that a source's message became. Raises ``NotFound``, or ``Conflict`` when two sources used the id."""
    found = tx.execute(_BY_MESSAGE, {"message_id": message_id}).all()
    if not found:
        raise NotFound("no request came with this message id; look into quarantine: habeas quarantine list")
    if len(found) > 1:
        ids = ", ".join(str(r.request_id) for r in found)
        raise Conflict(f"several sources used this message id; their requests are {ids}")
    return UUID(str(found[0].request_id))


_BY_PREFIX = text("SELECT id FROM request WHERE id BETWEEN :low AND :high ORDER BY id LIMIT 2")
# The inbox is found by source and message id; its few sources are found by skipping from one to the next.
_BY_MESSAGE = text("""
WITH RECURSIVE known AS (
    (SELECT source FROM inbox ORDER BY source LIMIT 1)
    UNION ALL
    SELECT (SELECT i.source FROM inbox i WHERE i.source > known.source ORDER BY i.source LIMIT 1)
    FROM known WHERE known.source IS NOT NULL
)
SELECT i.request_id FROM known JOIN inbox i ON i.source = known.source AND i.message_id = :message_id""")


# Lists. -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Walk:
    """A way through the requests in some order: ``key`` and then id, beyond a cursor."""

    where: str
    key: str
    descending: bool = False

    def sql(self, *, begun: bool) -> str:
        """The rows of one window, in order, with their key as ``k``; ``begun``: from a cursor on."""
        order = "DESC" if self.descending else "ASC"
        beyond = "<" if self.descending else ">"
        cursor = f"({self.key}, id) {beyond} (CAST(:key AS timestamptz), CAST(:id AS uuid))"
        by = f"{self.key} {order}, id {order}"
        if self.key == "id":  # it says the time of arrival, and its own index gives the order
            cursor, by = f"id {beyond} CAST(:id AS uuid)", f"id {order}"
        where = " AND ".join(p for p in (self.where, cursor if begun else "") if p) or "true"
        return f"SELECT *, {self.key} AS k FROM request WHERE {where} ORDER BY {by} LIMIT :window"  # noqa: S608 - our own words


_WALKS: Mapping[Which, _Walk] = {
    Which.ALL: _Walk("", "id", descending=True),
    Which.OPEN: _Walk("resolution IS NULL", "deadline"),
    Which.OVERDUE: _Walk("resolution IS NULL AND deadline < now()", "deadline"),
    Which.CLOSED: _Walk("closed_at IS NOT NULL", "closed_at", descending=True),
}

# System by system, so that the index gives each part in order; the merge takes the first of them.
_ATTENTION = """
SELECT r.*, r.id AS k FROM (
    SELECT DISTINCT found.request_id FROM connector_state c CROSS JOIN LATERAL (
        SELECT s.request_id FROM step s
        WHERE s.system = c.system AND s.state = 'attention'
            AND s.request_id > coalesce(CAST(:id AS uuid), '00000000-0000-0000-0000-000000000000')
        ORDER BY s.request_id LIMIT :window
    ) AS found ORDER BY found.request_id LIMIT :window
) AS wanting JOIN request r ON r.id = wanting.request_id ORDER BY r.id"""


def requests(
    tx: Connection,
    which: Which = Which.ALL,
    *,
    right: str | None = None,
    source: str | None = None,
    limit: int = 50,
    after: str | None = None,
    window: int = WINDOW,
) -> Page:
    """A page of requests. Raises ``NotFound`` for a cursor that is none."""
    key, id_ = _read_cursor(after)
    values: dict[str, Any] = {"key": key, "id": id_, "limit": limit + 1, "window": window}
    values |= {"right": right, "source": source}
    inner = _ATTENTION if which is Which.ATTENTION else _WALKS[which].sql(begun=after is not None)
    wanted = " AND ".join(f'"{name}" = :{name}' for name in ("right", "source") if values[name] is not None) or "true"
    found = list(tx.execute(text(f"SELECT * FROM ({inner}) AS w WHERE {wanted} LIMIT :limit"), values))  # noqa: S608
    following = None
    if len(found) > limit:
        found.pop()
        following = _cursor(found[-1])
    elif wanted != "true":
        # The filter ate the window: say where the next one begins, if there is one.
        last = tx.execute(text(f"SELECT k, id FROM ({inner}) AS w OFFSET :window - 1"), values).one_or_none()  # noqa: S608
        following = _cursor(last) if last is not None else None
    steps = _step_summaries(tx, [r.id for r in found])
    return Page(tuple(_summary(r, *steps[r.id]) for r in found), following)


def _cursor(row: Any) -> str:
    return f"{row.k.isoformat()}/{row.id}" if isinstance(row.k, datetime) else str(row.id)


def _read_cursor(after: str | None) -> tuple[str | None, UUID | None]:
    if after is None:
        return None, None
    key, _, id_ = after.rpartition("/")
    try:
        return (datetime.fromisoformat(key).isoformat() if key else None), UUID(id_)
    except ValueError:
        raise NotFound("the cursor is none that a list gave") from None


def _summary(row: Any, steps: Mapping[str, int], waiting_on: Sequence[str]) -> Summary:
    return Summary(
        row.id,
        row.right,
        row.regulation,
        row.source,
        row.message_id,
        row.received_at,
        row.deadline,
        row.closed_at,
        row.resolution,
        row.paused,
        row.stopping,
        steps,
        tuple(waiting_on),
    )


def _step_summaries(tx: Connection, ids: Sequence[UUID]) -> Mapping[UUID, tuple[dict[str, int], list[str]]]:
    found: dict[UUID, tuple[dict[str, int], list[str]]] = defaultdict(lambda: ({}, []))
    for row in tx.execute(_STEP_SUMMARIES, {"ids": list(ids)}) if ids else ():
        states, words = found[row.request_id]
        states[row.state] = states.get(row.state, 0) + row.n
        if row.waiting_on:
            words.append(row.waiting_on)
    return found


_STEP_SUMMARIES = text("""
SELECT request_id, state, waiting_on, count(*) AS n FROM step WHERE request_id = ANY(:ids)
GROUP BY request_id, state, waiting_on ORDER BY request_id, state, waiting_on""")


# One request. -------------------------------------------------------------------------------------------------------


def detail(tx: Connection, request: UUID) -> Detail:
    """One request as it stands now. Raises ``NotFound``."""
    row = tx.execute(tables.request.select().where(tables.request.c.id == request)).one_or_none()
    if row is None:
        raise NotFound(f"there is no request {request}")
    steps = tx.execute(_STEPS, {"request": request, "ahead": AHEAD}).all()
    times = {s.ordinal: StepTimes(s.changed_at, s.lease_until, s.ahead or 0) for s in steps}
    paused = tx.execute(_PAUSED, {"request": request}).scalar_one_or_none() if row.paused else None
    facts: Mapping[str, Any] = paused or {}
    package = tx.execute(_PACKAGE, {"request": request}).one_or_none()
    state = row.deadline, row.paused, row.stopping, row.stop_reason, row.resolution
    run = to_run(row.id, row.right, state, [s.step for s in steps])
    unpublished = tx.execute(_UNPUBLISHED, {"request": request, "soon": SOON}).scalar_one()
    actor, reason = (str(facts.get(name, "")) for name in ("actor", "reason"))
    folded = past.unfold(tx, request) if not steps else None
    if folded is not None:
        run = replace(run, steps=folded.steps)
        return Detail(row, run, folded.times, actor, reason, package, unpublished, folded.at)
    return Detail(row, run, times, actor, reason, package, unpublished)


_STEPS = text(f"""
SELECT {STEP} AS step, step.ordinal, step.changed_at, step.lease_until, CASE WHEN step.state = 'ready' THEN (
    SELECT count(*) FROM (
        SELECT 1 FROM step o WHERE o.system = step.system AND o.state = 'ready' AND o.crashes = 0
            AND (o.rank, o.request_id, o.ordinal) < (step.rank, step.request_id, step.ordinal) LIMIT :ahead
    ) AS before
) END AS ahead
FROM step WHERE step.request_id = :request ORDER BY step.ordinal""")  # noqa: S608 - our own columns
_PAUSED = text("""
SELECT facts FROM audit WHERE request_id = :request AND what = 'paused' ORDER BY seq DESC LIMIT 1""")
_UNPUBLISHED = text("""
SELECT count(*) FROM outbox AS o
WHERE request_id = :request AND created_at < statement_timestamp() - :soon
    AND EXISTS (SELECT 1 FROM unpublished AS u WHERE u.id = o.id)""")
_PACKAGE = text("""
SELECT ordinal, records, bytes, counts, digest, created_at FROM artifact
WHERE request_id = :request AND system = 'package' ORDER BY ordinal DESC LIMIT 1""")


def system_states(tx: Connection, systems: Iterable[str]) -> dict[str, SystemState]:
    """What is known of these systems now."""
    rows = tx.execute(_SYSTEM_STATES, {"systems": sorted(set(systems))})
    return {
        r.system: SystemState(
            r.paused, r.paused_by, r.paused_reason, r.failures, r.breaker_until, r.last_error, r.running or 0
        )
        for r in rows
    }


_SYSTEM_STATES = text("""
SELECT c.*, running.n AS running FROM connector_state c
LEFT JOIN (SELECT system, count(*) AS n FROM step WHERE state = 'running' GROUP BY system) AS running
    ON running.system = c.system
WHERE c.system = ANY(:systems)""")


def actionable(run: Run) -> list[int]:
    """The steps that a retry or a skip of the whole request means: those that want attention."""
    return [s.ordinal for s in run.steps if s.state is StepState.ATTENTION]


# Quarantine. --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A refused message, without the message."""

    id: UUID
    at: datetime
    source: str | None
    reason: str
    field: str
    detail: str
    bytes: int
    replayed_at: datetime | None


def quarantined(
    tx: Connection, *, reason: str | None = None, replayed: bool = False, limit: int = 50, after: UUID | None = None
) -> list[Quarantined]:
    """Refused messages, newest first; only those that nobody has replayed, unless asked for."""
    wanted = [
        *(["id < :after"] if after else []),
        *(["reason = :reason"] if reason else []),
        *([] if replayed else ["replayed_at IS NULL"]),
    ]
    query = f"{_QUARANTINED} WHERE {' AND '.join(wanted) or 'true'} ORDER BY id DESC LIMIT :limit"
    rows = tx.execute(text(query), {"after": after, "reason": reason, "limit": limit})
    return [Quarantined(*r) for r in rows]


def quarantined_one(tx: Connection, id_: UUID) -> Quarantined:
    """One refused message. Raises ``NotFound``."""
    row = tx.execute(text(f"{_QUARANTINED} WHERE id = :id"), {"id": id_}).one_or_none()
    if row is None:
        raise NotFound(f"there is no quarantined message {id_}")
    return Quarantined(*row)


_QUARANTINED = "SELECT id, at, source, reason, field, detail, bytes, replayed_at FROM quarantine"


# Holds. -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """The holds of one case, placed by one person at one time."""

    case: str
    identities: int
    actor: str
    placed_at: datetime
    released_at: datetime | None


def holds(tx: Connection, *, released: bool = False, case: str | None = None, limit: int = 100) -> list[Held]:
    """Holds by case, newest first."""
    return [Held(*r) for r in tx.execute(_HOLDS, {"released": released, "case": case, "limit": limit})]


_HOLDS = text("""
SELECT case_name, count(*), actor, min(at), max(released_at) FROM hold
WHERE (:released OR released_at IS NULL) AND (CAST(:case AS text) IS NULL OR case_name = :case)
GROUP BY case_name, actor, at, released_at ORDER BY min(at) DESC LIMIT :limit""")
