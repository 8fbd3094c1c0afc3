"""Fair turns: a source that floods stands back behind the others, and never more than a day.

Each source has a mark that runs ahead of time by one ``STEP`` for each request it sends, and falls back to the present
as time goes by. A request's steps are claimed in the order of its deadline plus the lead that its source's mark had. So
of two sources whose requests are due at the same time, the one that sent one request is served before the hundredth of
the one that sent a hundred; and since the lead is bounded, no request waits for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Connection

from orchestrator.store import bulk

STEP = timedelta(seconds=1)
"""How far one request moves its source's mark."""
FURTHEST = timedelta(days=1)
"""The most a request stands back."""


def take(tx: Connection, requests: Mapping[str, int]) -> dict[str, timedelta]:
    """Take turns for a number of requests of each source; the lead of the first of each."""
    names = sorted(requests)
    values = {"sources": names, "leads": [requests[n] * STEP for n in names], "furthest": FURTHEST}
    return {source: lead - requests[source] * STEP for source, lead in bulk.send(tx, _TAKE, values).fetchall()}


# Losing this in a crash loses nothing but a little fairness.
_TAKE = """
WITH unsynced AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO turn AS t (source, taken_until)
SELECT source, now() + lead
FROM unsynced, unnest(CAST(%(sources)s AS text[]), CAST(%(leads)s AS interval[])) AS u(source, lead)
ON CONFLICT (source) DO UPDATE SET taken_until =
    least(greatest(t.taken_until, now()), now() + %(furthest)s)
    + (EXCLUDED.taken_until - now())
RETURNING source, taken_until - now() AS lead"""
