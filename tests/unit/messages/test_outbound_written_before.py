"""A completion whose systems were written before is the one that is written in one piece."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.vocabulary import Action, Outcome, Resolution, Right
from orchestrator.messages import outbound

REPORTS = st.builds(
    outbound.StepReport,
    action=st.sampled_from(Action),
    outcome=st.sampled_from(Outcome),
    counts=st.dictionaries(st.text(max_size=5), st.integers(0, 10**9), max_size=3),
    retained=st.lists(
        st.builds(
            outbound.Retained,
            what=st.text(max_size=9),
            reason=st.text(max_size=9),
            legal_basis=st.text(max_size=9),
            records=st.integers(0, 9),
            until=st.none() | st.dates(),
        ),
        max_size=2,
    ),
    residues=st.lists(st.builds(outbound.Residue, where=st.text(max_size=9), until=st.just(date(2027, 1, 1)))),
    note=st.sampled_from(["", "]}", '"systems":[]}', "naïve"]) | st.text(max_size=9),
)
SYSTEMS = st.lists(
    st.builds(outbound.SystemReport, system=st.text(max_size=9), steps=st.lists(REPORTS, max_size=3)), max_size=3
)
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def _completed(systems: list[outbound.SystemReport], reason: str) -> outbound.Completed:
    return outbound.Completed(
        request_id=UUID(int=7),
        right=Right.ERASURE,
        regulation="gdpr",
        resolution=Resolution.COMPLETED,
        reason=reason,
        received_at=NOW,
        deadline=NOW,
        closed_at=NOW,
        systems=systems,
    )


@given(SYSTEMS, st.text(max_size=9))
def test_systems_written_before_make_the_same_event(systems: list[outbound.SystemReport], reason: str) -> None:
    about = {"event_id": "e1", "source": "https://habeas.example", "time": NOW, "origin": outbound.Origin("shop", "m1")}
    whole = outbound.compose(_completed(systems, reason), **about)
    joined = outbound.compose(_completed([], reason), **about, systems=outbound.written(systems))
    assert json.loads(joined.body) == json.loads(whole.body)
