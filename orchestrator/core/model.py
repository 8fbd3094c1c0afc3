"""The values that the core works on. Frozen; every change makes a new value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.bucket import Rate, rate
from orchestrator.core.vocabulary import Action, Failure, Outcome, ParkedFor, Resolution, Right, StepState

JSON = Any
"""A value that ``json.dumps`` takes."""

NEVER = datetime.fromisoformat("9999-01-01T00:00:00+00:00")
"""The due time of a step that only a report or an operator may wake. A real time, so that every driver can hold it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One way a person is known. ``value`` is normalised; it never appears in a log, an error or a repr."""

    type: str
    value: str
    format: str = "raw"

    def __repr__(self) -> str:
        return f"Identity({self.type!r}, …)"


# What is configured. -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failures of one system are retried: capped exponential delay with full jitter."""

    attempts: int = 8
    """Attempts before a step wants attention."""
    base: timedelta = timedelta(seconds=2)
    cap: timedelta = timedelta(minutes=15)
    crashes: int = 3
    """Claims that were never settled before a step wants attention."""


DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard one system may be worked. Held across all workers."""

    batch: int = 100
    """Data subjects in one call."""
    gather: timedelta = timedelta()
    """How long ready steps may wait for their batch to fill: for systems where one pass costs the same for one person
    and for a thousand."""
    concurrency: int | None = None
    """Batches under way at once; ``None``: as many as there are workers."""
    per_second: float | None = None
    """Data subjects handed over a second; ``None``: no limit."""
    burst: int = 100
    """Data subjects that may be handed over at once after a rest."""
    breaker_failures: int = 20
    """Steps failing one after another that open the circuit breaker."""
    breaker_rest: timedelta = timedelta(seconds=30)
    """How long the open breaker keeps everything off before one probe."""

    @property
    def rate(self) -> Rate | None:
        """The bucket that keeps ``per_second`` and ``burst``."""
        return None if self.per_second is None else rate(self.per_second, self.burst)

    @property
    def limited(self) -> bool:
        """Whether more than its state decides how much may be claimed."""
        return self.per_second is not None or self.concurrency is not None or bool(self.gather)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class System:
    """What the planner knows of a configured system."""

    name: str
    connector: str
    actions: frozenset[Action]
    categories: frozenset[str] = frozenset()
    """Data categories (Fides keys) that it holds."""
    identified_by: frozenset[str] = frozenset()
    discovers: frozenset[str] = frozenset()
    erase_after: frozenset[str] = frozenset()
    """Names of systems that must be erased first."""
    cannot: Mapping[Action, str] = field(default_factory=dict)
    """Actions it can't do, and why: reported as ``unsupported``."""
    title: str = ""
    retry: RetryPolicy = DEFAULT_RETRY
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class StepTemplate:
    """One entry of a workflow's ``steps``; the planner makes a step of it for each system it names."""

    id: str
    action: Action
    systems: tuple[str, ...] | None = None
    """``None``: every system that holds data in scope."""
    needs: tuple[str, ...] = ()
    """Ids of templates all of whose steps must be settled first."""
    after_same: tuple[str, ...] = ()
    """Ids of templates whose step *on the same system* must be settled first."""
    options: Mapping[str, JSON] = field(default_factory=dict)
    unless_verified: bool = False
    """Left out when the request carries accepted verification evidence."""
    only_sources: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Workflow:
    """How one right is carried out."""

    name: str
    version: int
    right: Right
    steps: tuple[StepTemplate, ...]
    categories: frozenset[str] | None = None
    """Restricts the scope, e.g. portability to what the person provided; ``None``: everything."""
    keep: timedelta = timedelta(days=30)
    """How long sealed personal data is kept after closing, before its key is destroyed."""


@dataclass(frozen=True, slots=True)
class Clock:
    """How long one regulation gives. A month is a calendar month."""

    regulation: str
    months: int = 0
    days: int = 0
    extension_months: int = 0
    extension_days: int = 0
    title: str = ""


# What was asked. ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """What planning needs to know of a request: no identity's value among it, only the types."""

    right: Right
    regulation: str
    source: str
    received_at: datetime
    identity_types: frozenset[str]
    verified: bool = False
    systems: frozenset[str] | None = None
    categories: frozenset[str] | None = None
    """Data categories (Fides keys) the request is limited to; ``None``: all."""


# What runs. --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retention:
    """What rightly stays, why, and until when."""

    what: str
    reason: str
    legal_basis: str
    records: int
    until: date | None = None


@dataclass(frozen=True, slots=True)
class Residue:
    """What is gone from the live system and lies in a backup or time travel until a date."""

    where: str
    until: date


@dataclass(frozen=True, slots=True)
class Result:
    """How a step ended: its outcome and the facts that go into the report. No personal data."""

    outcome: Outcome
    counts: Mapping[str, int] = field(default_factory=dict)
    retained: tuple[Retention, ...] = ()
    residues: tuple[Residue, ...] = ()
    evidence: Mapping[str, JSON] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One action on one system for one request."""

    ordinal: int
    name: str
    """The workflow step's id."""
    system: str
    action: Action
    state: StepState
    due: datetime = NEVER
    """While parked: when it is ready again."""
    needs: frozenset[int] = frozenset()
    """Ordinals that must be done first."""
    options: Mapping[str, JSON] = field(default_factory=dict)
    attempt: int = 0
    """Counted when claimed."""
    failures: int = 0
    """Retryable failures so far; compared with ``RetryPolicy.attempts``."""
    crashes: int = 0
    """Claims that were never settled; such a step is claimed alone."""
    token: UUID | None = None
    """The lease's token while running; settling requires it."""
    handle: Mapping[str, JSON] | None = None
    signal: Mapping[str, JSON] | None = None
    parked_for: ParkedFor | None = None
    waiting_on: str = ""
    """While parked for a report: on whom or what, in words."""
    failure: Failure | None = None
    error: str = ""
    """The last error in words, for an operator; no personal data."""
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A request under way: the whole that ``machine.advance`` works on."""

    request: UUID
    right: Right
    steps: tuple[Step, ...]
    """In order of ordinal, starting at 0."""
    deadline: datetime
    paused: bool = False
    stopping: Resolution | None = None
    """Why it is being wound up early: denied, cancelled or expired."""
    stop_reason: str = ""
    resolution: Resolution | None = None
    """How it closed; ``None`` while open."""

    @property
    def open(self) -> bool:
        """Whether it has not closed yet."""
        return self.resolution is None

    def with_steps(self, steps: tuple[Step, ...]) -> Run:
        """The same with other steps. ``replace``, only several times as fast: there are a thousand in a batch."""
        return Run(
            self.request,
            self.right,
            steps,
            self.deadline,
            self.paused,
            self.stopping,
            self.stop_reason,
            self.resolution,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What planning yields: the steps, and by when they should be done."""

    workflow: str
    version: int
    steps: tuple[Step, ...]
    deadline: datetime
