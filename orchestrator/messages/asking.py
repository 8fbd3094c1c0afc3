"""What may be asked in a request, as keyword arguments; and the message's data made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict

from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import IdentityType, Right
from orchestrator.messages.strictjson import Json

_IDENTITY_WORDS = tuple(kind.value for kind in IdentityType)


class Details(TypedDict, total=False):
    """What may be said beside the person: the fields of ``habeas.request.v1``."""

    regulation: str
    verification: Mapping[str, str]
    """``{"method": "login", "verified_at": "2026-…Z"}``, and ``verified_by``, ``evidence``."""
    corrections: Mapping[str, str]
    purposes: Iterable[str]
    systems: Iterable[str]
    categories: Iterable[str]
    submitted_at: datetime
    requested_by: str
    locale: str
    message_id: str
    """Give the same again to repeat a request safely; a new UUID when left out."""
    correlation_id: str
    """Comes back with every answer; the message id when left out."""


class Options(Details, total=False):
    """The person by the usual identities, and what else may be said."""

    email: str
    user_id: str
    phone: str
    device_id: str
    ip: str
    stripe_customer_id: str
    identities: Iterable[Identity]
    """Further ones: several of a type, hashed ones, ``custom:…``."""


def body_of(right: Right | str, options: Options) -> Json:
    """The ``data`` of ``habeas.request.v1``."""
    said: Mapping[str, Any] = options
    people = [Identity(word, said[word]) for word in _IDENTITY_WORDS if word in said]
    people += options.get("identities", ())
    submitted = options.get("submitted_at")
    scope = {name: [*said[name]] for name in ("systems", "categories") if name in said}
    fields: dict[str, Any] = {
        "right": str(right),
        "subject": {"identities": [{"type": i.type, "value": i.value, "format": i.format} for i in people]},
        "regulation": options.get("regulation"),
        "verification": dict(options["verification"]) if "verification" in options else None,
        "corrections": dict(options["corrections"]) if "corrections" in options else None,
        "purposes": [*options["purposes"]] if "purposes" in options else None,
        "scope": scope or None,
        "submitted_at": stamp(submitted) if submitted else None,
        "requested_by": options.get("requested_by"),
        "locale": options.get("locale"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def stamp(moment: datetime) -> str:
    """A time as messages give it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
