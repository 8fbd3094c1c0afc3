"""Who may send requests, and what they may ask: ``sources.yaml``.

How a message is bound to its source: the ``source`` attribute chooses the entry here, and the signature must hold under
one of that entry's secrets. The signature covers the raw body and ``webhook-id``, which must equal the CloudEvents id.
In structured mode that covers every attribute. In binary mode the headers are not covered, so none of them decides
anything on its own: ``source`` is bound because no two sources may share a secret, ``id`` is in the signed content,
``type`` has one value that is accepted, the right and everything else that is asked stand in the body, and ``time`` is
not used. What stays open to someone with write access to the broker is where a copy of the answers goes (``reply_to``),
in both modes; answers name no person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from orchestrator.core.vocabulary import Right
from orchestrator.errors import ConfigurationError, Fault, Refusal, RefusedMessage
from orchestrator.messages.envelope import MAX_ATTRIBUTE, Delivery, Envelope
from orchestrator.messages.request import RightsRequest
from orchestrator.messages.signing import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Secret, verify

__all__ = ["Source", "Sources", "Unsigned", "authenticate", "authorise"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _duration(value: object) -> object:
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", value.strip()) if isinstance(value, str) else None
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else value


Age = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0), le=timedelta(days=366))]


class Unsigned(StrEnum):
    """What becomes of an unsigned message."""

    ALLOWED = "allowed"
    REFUSED = "refused"


class Source(BaseModel):
    """One upstream service."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    source: str = Field(min_length=1, max_length=MAX_ATTRIBUTE, examples=["urn:shop:accounts"])
    """The CloudEvents ``source`` attribute, compared exactly."""
    secrets: tuple[SecretStr, ...] = ()
    """``whsec_…`` or ``whpk_…``; several while they are rotated. No two sources may share one."""
    rights: frozenset[Right] = frozenset(Right)
    """What it may ask for; all when left out."""
    unsigned: Unsigned = Unsigned.REFUSED
    max_age: Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0), le=timedelta(days=366))] = (
        timedelta(days=7)
    )
    """How long after signing a message is taken: ``7d``, ``12h``; at most a year. Covers the time in the queue."""
    regulation: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]{0,39}$")
    """The regulation of requests that name none."""
    trusted_to_verify: bool = False
    """Whether its word that a person's identity was verified counts."""
    _keys: tuple[Secret, ...] = PrivateAttr(default=())

    @field_validator("source")
    @classmethod
    def _no_personal_data(cls, value: str) -> str:
        if "@" in value or not value.isprintable():
            raise ValueError("use printable characters, and no @")
        return value

    @model_validator(mode="after")
    def _can_be_checked(self) -> Source:
        if not self.secrets and self.unsigned is Unsigned.REFUSED:
            raise ValueError("give at least one secret, or say 'unsigned: allowed'")
        try:
            self._keys = tuple(Secret(secret.get_secret_value()) for secret in self.secrets)
        except ConfigurationError as error:
            raise ValueError("; ".join(fault.text for fault in error.faults)) from None
        return self

    @property
    def keys(self) -> tuple[Secret, ...]:
        """The secrets, ready to verify with."""
        return self._keys


class Sources:
    """The known sources by their URI."""

    __slots__ = ("_by_uri",)

    def __init__(self, sources: Sequence[Source]) -> None:
        """Raises ``ConfigurationError`` when two entries have one URI, or share a secret."""
        faults: list[Fault] = []
        by_uri: dict[str, Source] = {}
        owner: dict[str, str] = {}
        for source in sources:
            if source.source in by_uri:
                faults.append(Fault(f"{source.source} is listed twice; merge the two entries", "source"))
            by_uri[source.source] = source
            for key in source.keys:
                if owner.setdefault(key.fingerprint, source.source) != source.source:
                    text = f"{source.source} shares a secret with {owner[key.fingerprint]}; give each its own"
                    faults.append(Fault(text, "secrets"))
        if faults:
            raise ConfigurationError("the sources are not usable", faults)
        self._by_uri: Mapping[str, Source] = by_uri

    def __repr__(self) -> str:
        """How many."""
        return f"Sources({len(self._by_uri)})"

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_uri)

    def get(self, uri: str) -> Source | None:
        """The source of that URI, if it is known."""
        return self._by_uri.get(uri)


def authenticate(delivery: Delivery, envelope: Envelope, sources: Sources) -> Source:
    """The source that a message is proven to come from.

    Raises ``RefusedMessage``: ``unknown_source``, ``bad_signature``, ``stale``. A signature that is there must hold,
    even when the source may send without.
    """
    source = sources.get(envelope.source)
    if source is None:
        hint = "send from a source that is listed in sources.yaml"
        raise RefusedMessage(Refusal.UNKNOWN_SOURCE, faults=[Fault(hint, "source")])
    headers = {name: delivery.header(name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)}
    if not any(headers.values()) and source.unsigned is Unsigned.ALLOWED:
        return source
    verify(delivery.body, headers, source.keys, delivery.received_at, source.max_age)
    if headers[ID_HEADER] != envelope.id:
        hint = "webhook-id must be the CloudEvents id"
        raise RefusedMessage(Refusal.BAD_SIGNATURE, faults=[Fault(hint, ID_HEADER)])
    return source


def authorise(request: RightsRequest, source: Source) -> RightsRequest:
    """The request with the source's defaults and trust applied. Raises ``RefusedMessage``: ``not_allowed``."""
    if request.right not in source.rights:
        hint = f"this source may not ask for {request.right.value}; allow it in sources.yaml"
        raise RefusedMessage(Refusal.NOT_ALLOWED, faults=[Fault(hint, "right")])
    return replace(
        request,
        regulation=request.regulation or source.regulation,
        verified=request.verification is not None and source.trusted_to_verify,
    )
