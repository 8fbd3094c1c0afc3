"""What Habeas says back: CloudEvents about a request, none of which names a person.

Events are composed in structured mode, so that a signature over the body covers the attributes too. The event's id is
given by the caller and the same for every delivery of one event: receivers may drop repeats by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from orchestrator.core.vocabulary import Action, EventKind, Outcome, Resolution, Right
from orchestrator.errors import Refusal, RefusedMessage
from orchestrator.messages.names import EVENT_TYPES, routing_key
from orchestrator.messages.signing import Secret, sign

__all__ = [
    "Accepted",
    "Completed",
    "EventData",
    "Origin",
    "Outgoing",
    "Refused",
    "Residue",
    "Retained",
    "StepReport",
    "SystemReport",
    "Waiting",
    "WaitingOn",
    "compose",
    "refusal",
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EventData(_Part):
    """What every event says of its request."""

    kind: ClassVar[EventKind]


class Accepted(EventData):
    """The request was taken; work on it has begun."""

    kind: ClassVar[EventKind] = EventKind.ACCEPTED

    request_id: UUID
    right: Right
    regulation: str
    received_at: datetime
    deadline: datetime
    """By when the regulation wants it answered."""
    workflow: str
    workflow_version: int


class RefusalFault(_Part):
    """One thing to fix."""

    field: str = ""
    """Path inside the data, or the attribute or header concerned; empty: the message as a whole."""
    hint: str


class Refused(EventData):
    """The message was not taken; nothing was done."""

    kind: ClassVar[EventKind] = EventKind.REFUSED

    message_id: str
    """The CloudEvents id of the message refused."""
    right: Right | None = None
    reason: Refusal
    faults: list[RefusalFault] = []


class WaitingOn(_Part):
    """One thing that a request waits for."""

    system: str
    action: Action
    on: str
    """Whom or what, in words, e.g. ``approval by the privacy team``."""
    until: datetime | None = None
    """When it is looked at again at the latest; ``None``: when an answer comes."""


class Waiting(EventData):
    """The request can't go on until someone answers or a time comes."""

    kind: ClassVar[EventKind] = EventKind.WAITING

    request_id: UUID
    right: Right
    regulation: str
    deadline: datetime
    waiting_on: list[WaitingOn] = Field(min_length=1)


class Retained(_Part):
    """What rightly stays, and why."""

    what: str
    reason: str
    legal_basis: str
    records: int = Field(ge=0)
    until: date | None = None


class Residue(_Part):
    """What is gone from the live system and lies in a backup or time travel until a date."""

    where: str
    until: date


class StepReport(_Part):
    """How one action on one system ended."""

    action: Action
    outcome: Outcome
    counts: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Kind of record → how many."""
    retained: list[Retained] = []
    residues: list[Residue] = []
    note: str = ""
    """For unsupported and skipped: why."""


class SystemReport(_Part):
    """What was done in one system."""

    system: str
    steps: list[StepReport]


class Completed(EventData):
    """The request is closed."""

    kind: ClassVar[EventKind] = EventKind.COMPLETED

    request_id: UUID
    right: Right
    regulation: str
    resolution: Resolution
    reason: str = ""
    """For denied, cancelled and expired: why; for denied a reason of the Data Rights Protocol."""
    received_at: datetime
    deadline: datetime
    closed_at: datetime
    systems: list[SystemReport] = []


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the request came from: what the answer has to carry so that its sender recognises it."""

    source: str = ""
    message_id: str = ""
    correlation_id: str = field(default="", repr=False)
    """The sender's own; the message id where it gave none."""
    traceparent: str = ""


ALWAYS: Mapping[str, str | int] = {
    "content_type": "application/cloudevents+json",
    "content_encoding": "utf-8",
    "delivery_mode": 2,
}
"""AMQP's properties that all events share."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message ready to be published, persistent, on the events exchange and to the sender's reply queue."""

    body: bytes
    headers: Mapping[str, str]
    message_id: str
    correlation_id: str
    type: str
    routing_key: str
    timestamp: int
    """Seconds since 1970."""

    def properties(self) -> dict[str, str | int]:
        """Keyword arguments for ``kombu.Producer.publish``, besides body, headers, exchange and routing key."""
        return {
            **ALWAYS,
            "message_id": self.message_id,
            "correlation_id": self.correlation_id,
            "type": self.type,
            "timestamp": self.timestamp,
        }


def compose(
    data: EventData,
    *,
    event_id: str,
    source: str,
    time: datetime,
    origin: Origin,
    dataref: str = "",
    secrets: Sequence[Secret] = (),
) -> Outgoing:
    """The message for an event.

    ``source``: the URI of this deployment. ``time``: when it happened, with time zone. ``dataref``: where the package
    of an access or portability request lies. ``secrets``: signs with each of them; unsigned when empty.
    """
    kind = data.kind
    right = getattr(data, "right", None)
    request = getattr(data, "request_id", None)
    correlation = origin.correlation_id or origin.message_id
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": EVENT_TYPES[kind],
        "time": time.isoformat().replace("+00:00", "Z"),
        "subject": str(request) if request else "",
        "datacontenttype": "application/json",
        "correlationid": correlation,
        "causationid": origin.message_id,
        "traceparent": origin.traceparent,
        "dataref": dataref,
    }
    event = {name: value for name, value in attributes.items() if value}
    # The data as pydantic writes it, behind the attributes: reading it back to write it again would cost twice as much.
    body = to_json(event)[:-1] + b',"data":' + data.model_dump_json().encode() + b"}"
    return Outgoing(
        body=body,
        headers=sign(body, event_id, time, secrets) if secrets else {},
        message_id=event_id,
        correlation_id=correlation,
        type=EVENT_TYPES[kind],
        routing_key=routing_key(right.value if right else "", kind),
        timestamp=int(time.timestamp()),
    )


def refusal(error: RefusedMessage, message_id: str, right: Right | None = None) -> Refused:
    """The data of the event that tells a sender why its message was refused."""
    faults: Iterable[RefusalFault] = (RefusalFault(field=fault.field, hint=fault.text) for fault in error.faults)
    return Refused(message_id=message_id, right=right, reason=error.reason, faults=list(faults))
