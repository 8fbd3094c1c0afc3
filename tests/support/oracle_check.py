"""What must hold after a run on the oracle, whatever happened meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.cli.why import explain
from orchestrator.core.vocabulary import EventKind
from orchestrator.errors import Unavailable
from orchestrator.runtime import Runtime
from orchestrator.store import trail
from tests.support.deployment import Deployment, eventually, rows
from tests.support.oracle_world import Asked, Sender, World

SHOWN = 5
"""Faults of one kind that are listed."""


def await_closed(deployment: Deployment, asked: Sequence[Asked], patience: float = 60.0) -> None:
    """Until every request is closed and every event is out. The database must be there."""
    runtime = deployment.runtime()
    ids = [a.message_id for a in asked]
    query = "SELECT count(*) AS n FROM request WHERE resolution IS NOT NULL AND message_id = ANY(:ids)"
    try:
        eventually(lambda: rows(runtime, query, ids=ids)[0].n == len(set(ids)), "every request is closed", patience)
        waiting = "SELECT 1 FROM unpublished LIMIT 1"
        eventually(lambda: not rows(runtime, waiting), "every event is out", patience)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{_open(runtime, ids)}") from None
    finally:
        runtime.close()


def _open(runtime: Runtime, ids: Sequence[str]) -> str:
    found = rows(
        runtime,
        "SELECT s.system, s.action, s.state, s.error, count(*) AS n FROM step s JOIN request r ON r.id = s.request_id "
        "WHERE r.resolution IS NULL AND s.state <> 'done' GROUP BY 1, 2, 3, 4 ORDER BY n DESC LIMIT 10",
    )
    known = rows(runtime, "SELECT count(*) AS n FROM request WHERE message_id = ANY(:ids)", ids=list(ids))[0].n
    lines = [f"{r.n} × {r.action} in {r.system}: {r.state} {r.error}" for r in found]
    return "\n".join([f"{known} of {len(ids)} messages became requests", *lines])


def verdict(world: World, deployment: Deployment, asked: Sequence[Asked]) -> list[str]:
    """Everything that does not hold, in words; empty when nothing was lost and nothing was done twice."""
    runtime = deployment.runtime()
    try:
        faults = [
            *_effects(world, runtime, asked),
            *_messages(runtime, asked),
            *_events(runtime),
            *_settled_once(runtime),
            *_audit(runtime),
        ]
    finally:
        runtime.close()
    return faults


def heard(sender: Sender, asked: Sequence[Asked], patience: float = 20.0) -> list[str]:
    """Every request was answered as complete, under one event id however often; for a broker that kept its queues."""
    wanted = {a.message_id for a in asked}
    until = time.monotonic() + patience
    while wanted - sender.completed.keys() and time.monotonic() < until:
        with contextlib.suppress(Unavailable):
            sender.listen(0.3)
    several = [m for m, ids in sender.completed.items() if len(ids) > 1]
    mute = sorted(wanted - sender.completed.keys())
    return _some("answer", "never came", mute) + _some("answer", "several event ids", several)


def _effects(world: World, runtime: Runtime, asked: Sequence[Asked]) -> list[str]:
    """One effect for each person and action; where there was no key, a verify step that saw it done."""
    erased = {a.person for a in asked if a.right == "erasure"}
    closed = rows(
        runtime,
        "SELECT message_id FROM request WHERE resolution LIKE 'completed%' AND message_id = ANY(:ids)",
        ids=[a.message_id for a in asked],
    )
    ids = {r.message_id for r in closed}
    completed = {a.person for a in asked if a.right == "erasure" and a.message_id in ids}
    faults = []
    for system, told in world.target.ledger().items():
        effects = Counter({person: n for action, person, n in told["effects"] if action == "erase"})
        strangers = [p for p in effects if p not in erased]
        missing = [p for p in completed if not effects[p]]
        twice = [p for p, n in effects.items() if n > 1] if system == "keyed" else []
        keys = [p for _, p, seen in told["keys"] if len(seen) > 1]
        faults += _some(system, "nobody asked for this", strangers)
        faults += _some(system, "said to be done and is not", missing)
        faults += _some(system, "done twice", twice)
        faults += _some(system, "called with different keys for one step", keys)
    unverified = rows(
        runtime,
        "SELECT s.request_id, s.result->>'outcome' AS outcome FROM step s JOIN request r ON r.id = s.request_id "
        "WHERE r.resolution LIKE 'completed%' AND s.action = 'verify' AND s.result->>'outcome' <> 'verified'",
    )
    return faults + _some("verify", "did not see it done", [f"{r.request_id}: {r.outcome}" for r in unverified])


def _messages(runtime: Runtime, asked: Sequence[Asked]) -> list[str]:
    """Each is one request, closed or waiting on something that has a name; what is not is in quarantine."""
    found = Counter(r.message_id for r in rows(runtime, "SELECT message_id FROM request"))
    refused = rows(runtime, "SELECT count(*) AS n FROM quarantine")[0].n
    lost = [a.message_id for a in asked if a.message_id not in found]
    faults = _some("intake", "neither a request nor in quarantine", lost) if len(lost) > refused else []
    faults += _some("intake", "became several requests", [m for m, n in found.items() if n > 1])
    still = [r.id for r in rows(runtime, "SELECT id FROM request WHERE resolution IS NULL")]
    with runtime.database.transaction() as tx:
        mute = [str(id_) for id_ in still[:200] if not explain(tx, id_, dict(runtime.definitions.systems)).reasons]
    return faults + _some("request", "open, and waits on nothing that has a name", mute)


def _events(runtime: Runtime) -> list[str]:
    """One completion event for each closed request, under one id, and published."""
    found: Any = rows(
        runtime,
        "SELECT r.id, count(DISTINCT o.event_id) AS ids, "
        "bool_or(o.id NOT IN (SELECT u.id FROM unpublished u)) AS published "
        "FROM request r LEFT JOIN outbox o ON o.request_id = r.id AND o.kind = :kind "
        "WHERE r.resolution IS NOT NULL GROUP BY r.id",
        kind=str(EventKind.COMPLETED),
    )
    faults = _some("event", "not one completion event id", [str(r.id) for r in found if r.ids != 1])
    return faults + _some("event", "not published", [str(r.id) for r in found if not r.published])


def _settled_once(runtime: Runtime) -> list[str]:
    twice = rows(
        runtime,
        "SELECT request_id, ordinal FROM audit WHERE what = 'settled' GROUP BY 1, 2 HAVING count(*) > 1",
    )
    closed = rows(runtime, "SELECT request_id FROM audit WHERE what = 'closed' GROUP BY 1 HAVING count(*) > 1")
    undone = rows(
        runtime,
        "SELECT s.request_id, s.ordinal FROM step s JOIN request r ON r.id = s.request_id "
        "WHERE r.resolution IS NOT NULL AND s.state <> 'done'",
    )
    return (
        _some("step", "settled twice", [f"{r.request_id}/{r.ordinal}" for r in twice])
        + _some("request", "closed twice", [str(r.request_id) for r in closed])
        + _some("step", "not done in a closed request", [f"{r.request_id}/{r.ordinal}" for r in undone])
    )


def _audit(runtime: Runtime) -> list[str]:
    with runtime.database.transaction() as tx:
        return _some("audit", "chain broken", [f"{v.id}: {v.fault}" for v in trail.verify(tx) if v.fault])


def _some(where: str, what: str, found: Sequence[str]) -> list[str]:
    if not found:
        return []
    return [f"{where}: {what}: {len(found)}, e.g. {', '.join(found[:SHOWN])}"]
