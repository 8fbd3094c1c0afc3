"""Names that services agree on: message types, exchanges, queues. Each stands here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from orchestrator.core.vocabulary import EventKind

REQUEST_TYPE = "habeas.request.v1"
"""CloudEvents type of a rights request."""

EVENT_TYPES: Mapping[EventKind, str] = MappingProxyType({kind: f"habeas.request.{kind.value}.v1" for kind in EventKind})
"""CloudEvents types of what Habeas says back."""

REQUESTS_EXCHANGE = "rights.requests"
"""Durable topic exchange that requests are published to; routing key: the right."""
EVENTS_EXCHANGE = "rights.events"
"""Durable topic exchange that Habeas publishes to; routing key: ``<right>.<event>``, e.g. ``erasure.completed``."""
DEAD_EXCHANGE = "rights.dead"
"""Durable topic exchange for messages that the broker gave up delivering."""

INTAKE_QUEUE = "habeas.intake"
INTAKE_BINDING = "#"
DEAD_QUEUE = "habeas.dead"

INTAKE_ARGUMENTS: Mapping[str, str | int] = MappingProxyType(
    {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,  # deliveries; intake stores what it refuses, so only crashes get here
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once dead-lettering requires it
    }
)
"""Arguments of the intake queue. Whoever declares it must give exactly these, or RabbitMQ refuses."""

UNKNOWN_RIGHT = "unknown"
"""Stands for the right in the routing key of a ``refused`` event whose message named none."""


def routing_key(right: str, kind: EventKind) -> str:
    """The routing key of an event, e.g. ``erasure.completed``."""
    return f"{right or UNKNOWN_RIGHT}.{kind.value}"


def package_reference(request: UUID) -> str:
    """The ``dataref`` of a request's package; ``habeas package`` takes it."""
    return f"urn:habeas:package:{request}"
