"""What workers and operators may say, and what happens when they say it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

from hypothesis import strategies as st

from orchestrator.core import events as ev
from orchestrator.core.model import Result, Retention, RetryPolicy, Run
from orchestrator.core.vocabulary import Action, DenialReason, Failure, Outcome, ParkedFor
from orchestrator.store.claims import Claimed
from tests.model.reference import Said

words = st.sampled_from(
    ["finish", "finish", "park", "park", "quiet park", "retain", "no match", "hand back", "decline", *Failure]
)
"""What a worker may say of a step."""
asks = st.sampled_from(["pause", "pause", "report", "report", "resume", "retry", "skip", "done", "cancel"])


def saying(one: Claimed, word: str, policy: RetryPolicy, began: datetime) -> Said:
    """A worker's word about a step it has. ``began``: when the history did."""
    n, token = one.step.ordinal, one.token
    finding, artifact = one.step.action is Action.DISCOVER, one.step.action is Action.ACCESS
    match word:
        case "finish":
            return Said(one.request, ev.Finished(n, token, Result(Outcome.EXECUTED, {"rows": 2})), finding, artifact)
        case "retain":
            kept = Retention("invoices", "the law", "Art. 17(3)(b)", 3, date(2030, 1, 1))
            result = Result(Outcome.RETAINED, {"rows": 1}, (kept,), evidence={"ticket": 7}, note="some stays")
            return Said(one.request, ev.Finished(n, token, result))
        case "no match":
            return Said(one.request, ev.Finished(n, token, Result(Outcome.NO_MATCH)))
        case "park" | "quiet park":
            until = began + timedelta(days=3)
            return Said(one.request, ev.Parked(n, token, {"job": n}, until, "somebody" if word == "park" else ""))
        case "hand back":
            return Said(one.request, ev.HandedBack(n, token))
        case "decline":
            return Said(one.request, ev.GateDeclined(n, token, DenialReason.NO_MATCH, expired=n % 2 == 1))
        case _:
            return Said(one.request, ev.Failed(n, token, Failure(word), "no luck", policy, jitter=0.5))


def asking(run: Run, ordinal: int, what: str) -> ev.Event:
    """An operator's or a reporter's ask."""
    waiting = [s.ordinal for s in run.steps if s.parked_for is ParkedFor.REPORT]
    events: dict[str, Callable[[], ev.Event]] = {
        "retry": lambda: ev.RetryAsked(ordinal, "ops"),
        "skip": lambda: ev.SkipAsked(ordinal, "ops", "not needed"),
        "done": lambda: ev.DoneAsked(ordinal, "ops", "ticket 4711"),
        "cancel": lambda: ev.CancelAsked("ops", "withdrawn"),
        "pause": lambda: ev.PauseAsked("ops", "wait"),
        "resume": lambda: ev.ResumeAsked("ops"),
        "report": lambda: ev.Reported(waiting[0] if waiting else ordinal, {"decision": "approved", "actor": "ops"}),
    }
    return events[what]()
