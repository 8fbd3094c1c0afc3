"""The words of Habeas: closed sets that everything else speaks in."""

from __future__ import annotations

from enum import StrEnum


class Right(StrEnum):
    """What a person may ask for (GDPR articles; other laws have the same rights under other numbers)."""

    ACCESS = "access"
    """Art. 15"""
    RECTIFICATION = "rectification"
    """Art. 16"""
    ERASURE = "erasure"
    """Art. 17"""
    RESTRICTION = "restriction"
    """Art. 18"""
    PORTABILITY = "portability"
    """Art. 20"""
    OBJECTION = "objection"
    """Art. 21"""


class Action(StrEnum):
    """What a step asks of a system. The same words as the connector contract's, held equal by a test."""

    DISCOVER = "discover"
    ACCESS = "access"
    RECTIFY = "rectify"
    ERASE = "erase"
    RESTRICT = "restrict"
    SUPPRESS = "suppress"
    VERIFY = "verify"
    GATE = "gate"
    PACKAGE = "package"


CHANGES_DATA = frozenset({Action.RECTIFY, Action.ERASE, Action.RESTRICT, Action.SUPPRESS})
"""Actions after which a system is no longer as it was; what a cancellation can no longer take back."""


class Outcome(StrEnum):
    """How a step ended. A closed set, never blurred."""

    EXECUTED = "executed"
    """Done, by the system's own word."""
    VERIFIED = "verified"
    """Looked up afterwards and found to hold."""
    ACCEPTED = "accepted"
    """The vendor said yes; not yet proven."""
    RESIDUAL = "residual"
    """Gone from the live system; in backups or time travel until a date."""
    NO_MATCH = "no_match"
    """The system holds nothing about the person."""
    RETAINED = "retained"
    """Something rightly stays: with reason, legal basis and until-date."""
    UNSUPPORTED = "unsupported"
    """The system cannot do this; says why."""
    SKIPPED = "skipped"
    """An operator, or the end of the request, left it out; says why."""


EXCEPTIONS = frozenset({Outcome.ACCEPTED, Outcome.RESIDUAL, Outcome.RETAINED, Outcome.UNSUPPORTED, Outcome.SKIPPED})
"""Outcomes that make a request ``completed_with_exceptions`` rather than ``completed``."""


class StepState(StrEnum):
    """Where a step is. ``machine.TRANSITIONS`` says how it moves."""

    WAITING = "waiting"
    """Its needs are not settled yet."""
    READY = "ready"
    """May be claimed now."""
    RUNNING = "running"
    """Claimed under a lease."""
    PARKED = "parked"
    """Waits for a time or a report; holds no worker."""
    ATTENTION = "attention"
    """Wants an operator: retry, skip with a reason, or mark done with evidence."""
    DONE = "done"
    """Settled, with an outcome."""


class ParkedFor(StrEnum):
    """What a parked step waits for."""

    REPORT = "report"
    """The system's answer, a person's decision, or the time to ask again."""
    RETRY = "retry"
    """The end of a back-off after a failure."""
    PAUSE = "pause"
    """An operator paused the request."""


class Resolution(StrEnum):
    """How a request closed."""

    COMPLETED = "completed"
    COMPLETED_WITH_EXCEPTIONS = "completed_with_exceptions"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class DenialReason(StrEnum):
    """Why a request was denied, in the words of the Data Rights Protocol 1.0."""

    SUSPECTED_FRAUD = "suspected_fraud"
    INSUF_VERIFICATION = "insuf_verification"
    NO_MATCH = "no_match"
    CLAIM_NOT_COVERED = "claim_not_covered"
    OUTSIDE_JURISDICTION = "outside_jurisdiction"
    TOO_MANY_REQUESTS = "too_many_requests"
    OTHER = "other"


class Failure(StrEnum):
    """The class of a step's failure: what the engine should do about it."""

    RETRYABLE = "retryable"
    """Back off and try again; after the last attempt, attention."""
    RATE_LIMITED = "rate_limited"
    """As retryable, but no attempt is used up: the system is well and busy."""
    UNAUTHORISED = "unauthorised"
    """Attention at once: credentials must be renewed."""
    FATAL = "fatal"
    """Attention at once: the same call can never succeed."""
    CRASHED = "crashed"
    """The worker died, or the connector has a defect; tried again alone, then attention."""


class IdentityType(StrEnum):
    """The kinds of identity a request may name; ``custom:<name>`` besides."""

    EMAIL = "email"
    USER_ID = "user_id"
    PHONE = "phone"
    DEVICE_ID = "device_id"
    IP = "ip"
    STRIPE_CUSTOMER_ID = "stripe_customer_id"


class IdentityFormat(StrEnum):
    """How an identity's value is given."""

    RAW = "raw"
    SHA256 = "sha256"
    """Lower-case hex of the SHA-256 of the normalised value."""


class EventKind(StrEnum):
    """What upstream services are told."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    WAITING = "waiting"
    COMPLETED = "completed"
