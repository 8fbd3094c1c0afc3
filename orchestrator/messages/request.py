"""A rights request, as everything behind the intake knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import Right
from orchestrator.messages.strictjson import Json

__all__ = ["RightsRequest", "Verification", "digest"]


@dataclass(frozen=True, slots=True)
class Verification:
    """The sender's word that the person is who they say. Evidence may be personal and stays out of the repr."""

    method: str
    verified_at: datetime
    verified_by: str | None = field(default=None, repr=False)
    evidence: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RightsRequest:
    """One person's exercise of one right, checked and normalised. Its repr holds no personal data."""

    source: str
    message_id: str
    """Unique within the source: the CloudEvents id."""
    right: Right
    identities: tuple[Identity, ...]
    """Normalised, sorted, without repeats; at least one."""
    received_at: datetime
    body_digest: str
    """SHA-256 hex of what the sender said (``facts()`` before any default). Store it keyed (``Ledger.hash_body``)."""
    regulation: str | None = None
    """As the sender says, or the source's default once authorised; ``None``: the deployment's default."""
    verification: Verification | None = None
    verified: bool = False
    """Whether the verification counts: only a source configured to be trusted with it makes it so."""
    corrections: Mapping[str, str] = field(default_factory=dict, repr=False)
    purposes: frozenset[str] = frozenset()
    systems: frozenset[str] | None = None
    categories: frozenset[str] | None = None
    submitted_at: datetime | None = None
    requested_by: str | None = field(default=None, repr=False)
    locale: str | None = None
    reply_to: str = field(default="", repr=False)
    """Queue to send a copy of the answers to, by the default exchange; empty: none."""
    correlation_id: str = field(default="", repr=False)
    traceparent: str = ""

    @classmethod
    def asked(cls, **said: Any) -> RightsRequest:
        """A request with its digest, of all the other fields that are known of it."""
        request = cls(body_digest="", **said)
        # Nobody has seen it yet; making it again would cost as much as all the rest.
        object.__setattr__(request, "body_digest", digest(request.facts()))
        return request

    def facts(self) -> dict[str, Json]:
        """What was asked, in the wire's form and normalised: seal this. ``read_facts`` reads it back.

        Without the envelope (id, source, time, mode) and without the routing (reply_to, correlation id): the same
        facts sent again in the other mode, with other white space, key order or order of identities, are the same.
        """
        # Every object's names in their order: the digest is of canonical JSON.
        facts: dict[str, Json] = {
            "corrections": dict(sorted(self.corrections.items())) or None,
            "locale": self.locale,
            "purposes": [*sorted(self.purposes)] or None,
            "regulation": self.regulation,
            "requested_by": self.requested_by,
            "right": self.right.value,
            "scope": _scope_facts(self.systems, self.categories),
            "subject": {
                "identities": [{"format": i.format, "type": i.type, "value": i.value} for i in self.identities]
            },
            "submitted_at": _stamp(self.submitted_at),
            "verification": _verification_facts(self.verification),
        }
        return {name: value for name, value in facts.items() if value is not None}


def digest(facts: Mapping[str, Json]) -> str:
    """SHA-256 hex of facts as ``RightsRequest.facts`` gives them: canonical JSON (sorted keys, no spaces, UTF-8)."""
    return hashlib.sha256(to_json(facts)).hexdigest()


def _verification_facts(verification: Verification | None) -> Json:
    if verification is None:
        return None
    facts: dict[str, Json] = {
        "evidence": verification.evidence,
        "method": verification.method,
        "verified_at": _stamp(verification.verified_at),
        "verified_by": verification.verified_by,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _scope_facts(systems: frozenset[str] | None, categories: frozenset[str] | None) -> Json:
    scope: dict[str, Json] = {}
    if categories is not None:
        scope["categories"] = [*sorted(categories)]
    if systems is not None:
        scope["systems"] = [*sorted(systems)]
    return scope or None


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
