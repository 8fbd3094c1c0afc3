"""What can happen to a run. Facts, in the past tense; randomness and policy come with the event that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.core.model import DEFAULT_RETRY, JSON, Result, RetryPolicy
from orchestrator.core.vocabulary import Failure

# From a worker: fenced by the lease's token. ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """A step ended with a result."""

    ordinal: int
    token: UUID
    result: Result


@dataclass(frozen=True, slots=True)
class Parked:
    """A step waits for a report, and is asked again at ``until`` at the latest."""

    ordinal: int
    token: UUID
    handle: Mapping[str, JSON]
    until: datetime
    waiting_on: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A step failed."""

    ordinal: int
    token: UUID
    failure: Failure
    message: str
    policy: RetryPolicy = DEFAULT_RETRY
    jitter: float = 1.0
    """In [0, 1]: the share of the full delay to wait."""
    after: timedelta | None = None
    """The least the system asks us to wait."""


@dataclass(frozen=True, slots=True)
class GateDeclined:
    """A gate said no, or nobody answered in time: the request ends."""

    ordinal: int
    token: UUID
    reason: str
    expired: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class HandedBack:
    """A worker that is shutting down gives a step back before having begun it."""

    ordinal: int
    token: UUID


# From the sweep. ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """A running step's lease ran out: its worker is gone, or as good as gone."""

    ordinal: int
    token: UUID
    policy: RetryPolicy = DEFAULT_RETRY


@dataclass(frozen=True, slots=True)
class Woken:
    """A parked step's time has come."""

    ordinal: int


# From an operator, or somebody who reports. -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reported:
    """Something a parked step waited for: a decision, a vendor's callback, a remote team's report."""

    ordinal: int
    signal: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """Try a step that wants attention (or backs off) again, now, with a full count of attempts."""

    ordinal: int
    actor: str


@dataclass(frozen=True, slots=True)
class SkipAsked:
    """Leave a step out."""

    ordinal: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class DoneAsked:
    """A step was carried out by hand; ``evidence`` says how that is known."""

    ordinal: int
    actor: str
    evidence: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Begin nothing more; close once what runs has ended."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Begin nothing more until resumed."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Go on."""

    actor: str


WorkerEvent = Finished | Parked | Failed | GateDeclined | HandedBack
Event = (
    WorkerEvent
    | LeaseExpired
    | Woken
    | Reported
    | RetryAsked
    | SkipAsked
    | DoneAsked
    | CancelAsked
    | PauseAsked
    | ResumeAsked
)

FENCED = (Finished, Parked, Failed, GateDeclined, HandedBack, LeaseExpired, Woken)
"""Events that may come too late, and then change nothing."""

OWN_STEP = (Finished, Parked, Failed, HandedBack, LeaseExpired)
"""Events that change their own step and those that wait, but none that is ready: a claim may take it meanwhile."""
