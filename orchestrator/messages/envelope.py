"""CloudEvents 1.0 as they come from a broker, in binary or structured mode.

Structured: content type ``application/cloudevents+json``, the attributes stand in the body beside ``data``.
Binary: the attributes stand in headers prefixed ``cloudEvents_`` (preferred), ``cloudEvents:``, ``ce-`` or ``ce_``, the
body is the data.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from orchestrator.errors import Fault, Refusal, RefusedMessage
from orchestrator.messages import strictjson
from orchestrator.messages.names import REQUEST_TYPE
from orchestrator.messages.strictjson import Json, refuse

__all__ = ["MAX_BODY", "Delivery", "Envelope", "claims", "unpack"]

MAX_BODY = 256 * 1024
"""Bytes of a message body, unless configured otherwise."""
MAX_ATTRIBUTE = 255
"""Characters of an attribute."""

_PREFIXES = ("cloudEvents_", "cloudEvents:", "ce-", "ce_")
_STRUCTURED = "application/cloudevents"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class BrokerMessage(Protocol):
    """What a ``Delivery`` needs of a kombu message."""

    body: bytes | str
    content_type: str | None
    headers: Mapping[str, object] | None
    properties: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the broker handed it over. Its repr shows neither body nor headers."""

    body: bytes = field(repr=False)
    received_at: datetime
    """With time zone."""
    content_type: str = ""
    headers: Mapping[str, object] = field(default_factory=dict, repr=False)
    reply_to: str = field(default="", repr=False)
    correlation_id: str = field(default="", repr=False)

    @classmethod
    def of(cls, message: BrokerMessage, received_at: datetime) -> Delivery:
        """From a kombu message."""
        properties = message.properties or {}
        body = message.body
        return cls(
            body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body),
            received_at,
            message.content_type or "",
            message.headers or {},
            _text(properties.get("reply_to")),
            _text(properties.get("correlation_id")),
        )

    def header(self, name: str) -> str:
        """A header by name, in any case; empty when it is missing or no text."""
        if name in self.headers:
            return _text(self.headers[name])
        wanted, size = name.lower(), len(name)
        for key, value in self.headers.items():
            if len(str(key)) == size and str(key).lower() == wanted:
                return _text(value)
        return ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of an event, checked, and its data, parsed but not checked."""

    id: str
    source: str
    type: str
    time: datetime | None
    data: Json = field(repr=False)
    correlation_id: str = field(default="", repr=False)
    traceparent: str = ""
    reply_to: str = field(default="", repr=False)


def unpack(delivery: Delivery, max_body: int = MAX_BODY) -> Envelope:
    """The event in a delivery. Raises ``RefusedMessage``; over ``max_body`` bytes it does before any parsing."""
    if len(delivery.body) > max_body:
        hint = f"send a body of at most {max_body} bytes"
        raise RefusedMessage(Refusal.TOO_LARGE, faults=[Fault(hint)])
    media = delivery.content_type.split(";")[0].strip().lower()
    if media.startswith(_STRUCTURED):
        attributes, data = _structured(delivery.body, media)
    else:
        attributes, data = _binary(delivery, media)
    _check(attributes)
    trace = attributes.get("traceparent", "") or delivery.header("traceparent")
    return Envelope(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        time=_time(attributes.get("time", "")),
        data=data,
        correlation_id=_route(delivery.correlation_id, "correlation_id") or attributes.get("correlationid", ""),
        traceparent=trace if _TRACEPARENT.fullmatch(trace) else "",
        reply_to=_route(delivery.reply_to, "reply_to"),
    )


def claims(delivery: Delivery, max_body: int = MAX_BODY) -> tuple[str, str]:
    """``(source, id)`` as a message claims them, empty where it says nothing usable. Never raises.

    For quarantine: unproven, and cut to what a refusal may show.
    """
    attributes: dict[str, str] = {}
    try:
        if len(delivery.body) <= max_body and delivery.content_type.lower().startswith(_STRUCTURED):
            attributes, _ = _structured(delivery.body, f"{_STRUCTURED}+json")
        else:
            attributes = _header_attributes(delivery)
    except RefusedMessage:
        return "", ""
    source, identifier = (attributes.get(name, "")[:MAX_ATTRIBUTE] for name in ("source", "id"))
    return ("" if "@" in source else source), ("" if "@" in identifier else identifier)


def _structured(body: bytes, media: str) -> tuple[dict[str, str], Json]:
    if media != f"{_STRUCTURED}+json":
        refuse("send one event per message, with content type application/cloudevents+json")
    event = strictjson.parse(body)
    if not isinstance(event, dict):
        refuse("send a CloudEvents object")
    data = event.pop("data", None)
    encoded = event.pop("data_base64", None)
    if encoded is not None:
        if data is not None or not isinstance(encoded, str):
            refuse("give either data or data_base64", "data_base64")
        try:
            data = strictjson.parse(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            refuse("data_base64 must be base64 of JSON", "data_base64")
    attributes: dict[str, str] = {}
    for name, value in event.items():
        if isinstance(value, str):
            attributes[name] = value
        elif name in {"id", "source", "type", "specversion", "time", "subject", "datacontenttype"}:
            refuse("give this attribute as a string", name)
    _check_media(attributes.get("datacontenttype", ""))
    return attributes, data


def _binary(delivery: Delivery, media: str) -> tuple[dict[str, str], Json]:
    attributes = _header_attributes(delivery)
    if not attributes:
        refuse("send a CloudEvent: content type application/cloudevents+json, or attributes in cloudEvents_ headers")
    _check_media(media)
    return attributes, strictjson.parse(delivery.body)


def _header_attributes(delivery: Delivery) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for key, value in delivery.headers.items():
        prefix = next((p for p in _PREFIXES if str(key).lower().startswith(p.lower())), None)
        if prefix is None:
            continue
        name = str(key)[len(prefix) :].lower()
        text = _text(value)
        if attributes.setdefault(name, text) != text:
            refuse("give each attribute in one header only", name if name in _REQUIRED else "")
    return attributes


_REQUIRED = ("specversion", "id", "source", "type")


def _check(attributes: Mapping[str, str]) -> None:
    """Refuse an envelope for all its faults at once."""
    faults = [
        Fault("add this CloudEvents attribute", name) for name in _REQUIRED if not attributes.get(name, "").strip()
    ]
    for name in ("id", "source", "type", "subject", "correlationid"):
        value = attributes.get(name, "")
        if len(value) > MAX_ATTRIBUTE or not value.isprintable():
            faults.append(Fault(f"use at most {MAX_ATTRIBUTE} printable characters", name))
        elif "@" in value:
            faults.append(Fault("attributes travel in the clear: put no e-mail address (no @) here", name))
    if faults:
        raise RefusedMessage(Refusal.MALFORMED, faults=faults)
    if attributes["specversion"] != "1.0":
        raise RefusedMessage(Refusal.UNSUPPORTED_VERSION, faults=[Fault("use CloudEvents 1.0", "specversion")])
    if attributes["type"] != REQUEST_TYPE:
        raise RefusedMessage(Refusal.UNSUPPORTED_VERSION, faults=[Fault(f"use the type {REQUEST_TYPE}", "type")])


def _check_media(media: str) -> None:
    plain = media.split(";", maxsplit=1)[0].strip().lower()
    if plain not in {"", "application/json", "text/json", "application/octet-stream"} and not plain.endswith("+json"):
        refuse("send the data as application/json", "datacontenttype")


def _route(value: str, name: str) -> str:
    if len(value) > MAX_ATTRIBUTE or not value.isprintable() or "@" in value:
        refuse(f"use at most {MAX_ATTRIBUTE} printable characters, and no e-mail address", name)
    return value


def _time(text: str) -> datetime | None:
    if not text:
        return None
    moment = None
    if _RFC3339.fullmatch(text):
        with suppress(ValueError):
            moment = datetime.fromisoformat(text.upper())
    if moment is None:
        refuse("give the time as in RFC 3339, with time zone", "time")
    return moment


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return ""
