"""What is compared after every act besides the runs: what the store has written down, and what it must have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from orchestrator.core.vocabulary import StepState
from tests.model.reference import Reference

Rows = Iterable[tuple[Any, ...]]

TABLES = (
    "inbox", "request", "request_secret", "finding", "step", "artifact", "audit", "outbox", "unpublished", "quarantine",
    "tally", "parked", "ledger", "connector_state",
)  # fmt: skip
QUERIES = {
    "requests": "SELECT id FROM request",
    "outbox": "SELECT coalesce(CAST(request_id AS text), '') AS r, kind, count(*) AS n FROM outbox GROUP BY 1, 2",
    "completions": "SELECT request_id, count(DISTINCT event_id) AS n FROM outbox WHERE kind = 'completed' GROUP BY 1",
    "audit": "SELECT request_id, seq, what, coalesce(ordinal, -1) AS o FROM audit",
    "found": """SELECT 'finding' AS w, request_id, ordinal FROM finding
        UNION ALL SELECT 'artifact', request_id, ordinal FROM artifact""",
    "erased": "SELECT request_id, count(*) AS n FROM ledger GROUP BY 1",
    "systems": """SELECT system, paused, failures, CASE WHEN breaker_until IS NULL THEN 'closed'
        WHEN breaker_until > now() THEN 'open' ELSE 'half-open' END AS b, fenced FROM connector_state""",
    "tally": 'SELECT "right", what, CAST(sum(n) AS int) AS n FROM tally GROUP BY 1, 2',
    "parked": "SELECT system, CAST(sum(n) AS int) AS n FROM parked GROUP BY 1 HAVING sum(n) <> 0",
    "odd_leases": """SELECT request_id, ordinal FROM step
        WHERE (state = 'running') <> (token IS NOT NULL) OR (state = 'running') <> (lease_until IS NOT NULL)""",
}
"""What is compared besides the runs: each with the function of the same name."""


def _rows(query: str) -> str:
    """A query's rows as one JSON array of arrays."""
    columns = "(SELECT json_agg(v.value) FROM json_each(row_to_json(q)) AS v)"
    return f"(SELECT json_agg({columns}) FROM ({query}) AS q)"


_PAIRS = ", ".join(f"'{name}', {_rows(query)}" for name, query in QUERIES.items())
EVERYTHING: Final = text(f"SELECT json_build_object({_PAIRS})")
"""All of that in one statement: it is asked after every act."""


def requests(reference: Reference) -> Rows:
    return ((id_,) for id_ in reference.runs)


def outbox(reference: Reference) -> Rows:
    for id_, chronicle in reference.chronicles.items():
        yield from ((str(id_), kind, chronicle.told.count(kind)) for kind in set(chronicle.told))
    if reference.conflicts:
        yield ("", "refused", reference.conflicts)


def completions(reference: Reference) -> Rows:
    return ((id_, 1) for id_, run in reference.runs.items() if not run.open)


def audit(reference: Reference) -> Rows:
    for id_, chronicle in reference.chronicles.items():
        for n, (what, ordinal) in enumerate(chronicle.records, 1):
            yield (id_, n, what, -1 if ordinal is None else ordinal)


def found(reference: Reference) -> Rows:
    for id_, chronicle in reference.chronicles.items():
        yield from (("finding", id_, n) for n in chronicle.findings)
        yield from (("artifact", id_, n) for n in chronicle.artifacts)


def erased(reference: Reference) -> Rows:
    return ((id_, 1 + bool(reference.chronicles[id_].findings)) for id_ in reference.erased())


def systems(reference: Reference) -> Rows:
    for name, s in reference.systems.items():
        yield (name, s.paused, s.failures, str(s.breaker), s.fenced)


def tally(reference: Reference) -> Rows:
    return ((right, what, n) for (right, what), n in reference.tally().items())


def parked(reference: Reference) -> Rows:
    steps = (s for run in reference.runs.values() for s in run.steps)
    yield from Counter(s.system for s in steps if s.state is StepState.PARKED).items()


def odd_leases(_: Reference) -> Rows:
    return iter(())


MUST = {
    "requests": requests,
    "outbox": outbox,
    "completions": completions,
    "audit": audit,
    "found": found,
    "erased": erased,
    "systems": systems,
    "tally": tally,
    "parked": parked,
    "odd_leases": odd_leases,
}


def must(name: str, reference: Reference) -> list[list[Any]]:
    """The rows that a query must find, as JSON has them, sorted."""
    return sorted([str(v) if isinstance(v, UUID) else v for v in row] for row in MUST[name](reference))
