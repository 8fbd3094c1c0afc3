"""From a broker delivery to a rights request, or a refusal that says what to fix.

``receive`` is the whole way: size → envelope → who sent it → signature and age → body → may they ask this. Nothing else
than ``RefusedMessage`` is raised, whatever the bytes; its text, faults and repr name fields, never values.

The order matters: the body of a structured message has to be parsed to learn its source, so parsing is bounded (size,
depth, numbers) and happens before the signature check; nothing is done with the data until the signature holds.
"""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.errors import RefusedMessage
from orchestrator.messages import sources as known
from orchestrator.messages.body import RequestBody, VerificationPart, validate
from orchestrator.messages.envelope import MAX_BODY, Delivery, Envelope, claims, unpack
from orchestrator.messages.request import RightsRequest, Verification
from orchestrator.messages.strictjson import Json

__all__ = ["MAX_BODY", "Delivery", "RightsRequest", "Verification", "claims", "parse", "read_facts", "receive"]


def receive(delivery: Delivery, sources: known.Sources, *, max_body: int = MAX_BODY) -> RightsRequest:
    """The request in a delivery, from a known source that may ask it. Raises ``RefusedMessage`` and nothing else."""
    envelope = unpack(delivery, max_body)
    source = known.authenticate(delivery, envelope, sources)
    try:
        return known.authorise(parse(delivery, envelope), source)
    except RefusedMessage as refused:
        refused.source = source.source
        raise


def parse(delivery: Delivery, envelope: Envelope) -> RightsRequest:
    """The request in an envelope, checked but not authorised. Raises ``RefusedMessage``."""
    return _request(
        validate(envelope.data),
        source=envelope.source,
        message_id=envelope.id,
        received_at=delivery.received_at,
        reply_to=envelope.reply_to,
        correlation_id=envelope.correlation_id,
        traceparent=envelope.traceparent,
    )


def read_facts(facts: Json, *, source: str, message_id: str, received_at: datetime) -> RightsRequest:
    """A request from its ``facts()``, e.g. unsealed from quarantine or the store. Raises ``RefusedMessage``."""
    return _request(validate(facts), source=source, message_id=message_id, received_at=received_at)


def _request(
    body: RequestBody,
    *,
    source: str,
    message_id: str,
    received_at: datetime,
    reply_to: str = "",
    correlation_id: str = "",
    traceparent: str = "",
) -> RightsRequest:
    identities = {part.identity() for part in body.subject.identities}
    scope = body.scope
    return RightsRequest.asked(
        source=source,
        message_id=message_id,
        right=body.right,
        identities=tuple(sorted(identities, key=lambda i: (i.type, i.format, i.value))),
        received_at=received_at,
        regulation=body.regulation,
        verification=_verification(body.verification),
        corrections=dict(sorted((body.corrections or {}).items())),
        purposes=frozenset(body.purposes or ()),
        systems=frozenset(scope.systems) if scope and scope.systems else None,
        categories=frozenset(scope.categories) if scope and scope.categories else None,
        submitted_at=_utc(body.submitted_at),
        requested_by=body.requested_by,
        locale=body.locale,
        reply_to=reply_to,
        correlation_id=correlation_id,
        traceparent=traceparent,
    )


def _verification(part: VerificationPart | None) -> Verification | None:
    if part is None:
        return None
    return Verification(part.method, part.verified_at.astimezone(UTC), part.verified_by, part.evidence)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
