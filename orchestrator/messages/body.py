"""The data of a rights request, version 1: what pydantic checks and the JSON Schema is generated from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import Right
from orchestrator.errors import Fault, Refusal, RefusedMessage
from orchestrator.messages.identities import MAX_VALUE, TYPE_PATTERN, normalise
from orchestrator.messages.strictjson import Json

__all__ = ["MAX_IDENTITIES", "RequestBody", "validate"]

MAX_IDENTITIES = 50
MAX_CORRECTIONS = 100
MAX_NAMES = 100
"""Entries of purposes, systems and categories."""

_CATEGORY = r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$"
_NAME = r"^[a-z0-9][a-z0-9_.\-]*$"

Category = Annotated[str, Field(pattern=_CATEGORY, max_length=200)]
Name = Annotated[str, Field(pattern=_NAME, max_length=100)]


def _text_only(value: object) -> object:
    # pydantic would take a number for seconds since 1970; a sender who means milliseconds would be off by centuries.
    if not isinstance(value, str):
        raise PydanticCustomError("time_text", "give the time as in RFC 3339, with time zone")
    return value


def _distinct(names: list[str]) -> list[str]:
    return sorted(set(names))


def _in_our_time(moment: datetime) -> datetime:
    # Years at the ends of the calendar can't be converted to UTC.
    if not 1900 <= moment.year <= 2200:  # noqa: PLR2004 - no request is older than its subject
        raise PydanticCustomError("time_range", "give a time between the years 1900 and 2200")
    return moment


Time = Annotated[AwareDatetime, BeforeValidator(_text_only), AfterValidator(_in_our_time)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MAX_NAMES), AfterValidator(_distinct)]


class _Part(BaseModel):
    # A typo must not pass for a missing optional field.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class IdentityPart(_Part):
    """One way the person is known."""

    type: str = Field(pattern=TYPE_PATTERN, max_length=50, examples=["email"])
    value: str = Field(min_length=1, max_length=MAX_VALUE)
    format: Literal["raw", "sha256"] = "raw"
    """``sha256``: hex digest of the normalised value."""

    @model_validator(mode="after")
    def _normal(self) -> IdentityPart:
        try:
            normal = normalise(self.type, self.value, self.format)
        except ValueError as error:
            raise PydanticCustomError("identity_value", str(error)) from None
        self.__dict__["value"] = normal.value  # nobody has seen it yet
        return self

    def identity(self) -> Identity:
        """In its normal form."""
        return Identity(self.type, self.value, self.format)


class SubjectPart(_Part):
    """The data subject: the person whose data it is."""

    identities: list[IdentityPart] = Field(min_length=1, max_length=MAX_IDENTITIES)


class VerificationPart(_Part):
    """How the sender made sure that the person is who they say."""

    method: Name = Field(examples=["login"])
    """e.g. ``login``, ``email_link``, ``document``."""
    verified_at: Time
    verified_by: str | None = Field(default=None, min_length=1, max_length=200)
    evidence: str | None = Field(default=None, min_length=1, max_length=1000)
    """A reference to the proof (a ticket, a session), not the proof itself."""


class ScopePart(_Part):
    """Limits the request to part of the data; everything when left out."""

    systems: Names | None = None
    categories: (
        Annotated[list[Category], Field(min_length=1, max_length=MAX_NAMES), AfterValidator(_distinct)] | None
    ) = None
    """Fides data category keys; a key covers its children."""


class RequestBody(_Part):
    """A person's exercise of one right."""

    right: Right
    subject: SubjectPart
    regulation: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None = None
    """e.g. ``gdpr``, ``ccpa``; when left out, the source's default."""
    verification: VerificationPart | None = None
    corrections: dict[Category, Annotated[str, Field(max_length=10_000)]] | None = Field(
        default=None, min_length=1, max_length=MAX_CORRECTIONS
    )
    """Rectification only, and required there: Fides data category key → the right value."""
    purposes: Names | None = None
    """Objection and restriction only: the purposes concerned, e.g. ``marketing``; all when left out."""
    scope: ScopePart | None = None
    submitted_at: Time | None = None
    """When the person asked; the time of receipt when left out."""
    requested_by: str | None = Field(default=None, min_length=1, max_length=200)
    """Who asked on the person's behalf, e.g. an authorised agent."""
    locale: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] | None = None
    """BCP 47 tag of the language to answer the person in."""

    @model_validator(mode="after")
    def _fits_the_right(self) -> RequestBody:
        if self.right is Right.RECTIFICATION and not self.corrections:
            raise PydanticCustomError("corrections", "a rectification needs corrections: category → right value")
        if self.right is not Right.RECTIFICATION and self.corrections:
            raise PydanticCustomError("corrections", "only a rectification takes corrections; leave them out")
        if self.right not in {Right.OBJECTION, Right.RESTRICTION} and self.purposes:
            raise PydanticCustomError("purposes", "only an objection or a restriction takes purposes; leave them out")
        return self


Location: TypeAlias = Sequence[int | str]

_HINTS = {
    "missing": "add this field",
    "string_type": "give a string",
    "model_type": "give an object",
    "model_attributes_type": "give an object",
    "dict_type": "give an object",
    "list_type": "give a list",
    "enum": f"use one of {', '.join(right.value for right in Right)}",
    "string_too_short": "give at least {min_length} character(s)",
    "string_too_long": "give at most {max_length} characters",
    "too_short": "give at least {min_length} entry",
    "too_long": "give at most {max_length} entries",
    "string_pattern_mismatch": "use the form that the schema gives: {pattern}",
    "literal_error": "use {expected}",
    "timezone_aware": "give the time with its time zone",
    "time_text": "give the time as in RFC 3339, with time zone",
    "time_range": "give a time between the years 1900 and 2200",
    "datetime_from_date_parsing": "give the time as in RFC 3339, with time zone",
    "datetime_parsing": "give the time as in RFC 3339, with time zone",
}
_OWN = {"identity_value": "value", "corrections": "corrections", "purposes": "purposes"}


def _field_names(model: type[BaseModel], parts: Iterable[type[BaseModel]] = ()) -> frozenset[str]:
    return frozenset(model.model_fields).union(*(part.model_fields for part in parts))


_FIELDS = _field_names(RequestBody, (SubjectPart, IdentityPart, VerificationPart, ScopePart))


def validate(data: Json) -> RequestBody:
    """The body, checked. Raises ``RefusedMessage`` carrying every fault at once, none with a value."""
    try:
        return RequestBody.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    faults = [_fault(p["type"], p["loc"], p["msg"], p.get("ctx", {})) for p in problems]
    raise RefusedMessage(_reason(data, problems), faults=faults) from None


def _reason(data: Json, problems: Sequence[object]) -> Refusal:
    kinds = {(p["type"], tuple(p["loc"])) for p in problems if isinstance(p, dict)}
    if ("enum", ("right",)) in kinds:
        return Refusal.UNKNOWN_RIGHT
    empty = {
        ("missing", ("subject",)),
        ("missing", ("subject", "identities")),
        ("too_short", ("subject", "identities")),
    }
    return Refusal.MISSING_IDENTITY if kinds & empty and isinstance(data, dict) else Refusal.MALFORMED


def _fault(kind: str, location: Location, message: str, context: dict[str, object]) -> Fault:
    if kind in _OWN:
        return Fault(message, _path([*location, _OWN[kind]]))
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1])[:40], _FIELDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return Fault(f"there is no field of this name{hint}", _path(location))
    known = {key: value for key, value in context.items() if key in {"min_length", "max_length", "pattern", "expected"}}
    text = _HINTS.get(kind, "give a value that the schema allows")
    return Fault(text.format_map(known) if re.findall(r"{(\w+)}", text) <= list(known) else text, _path(location))


def _path(location: Location) -> str:
    """``subject.identities[0].value``. A name of the sender's own making could be personal data and is not shown."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in _FIELDS:
            path += f".{part}"
        else:
            path += ".<name>"
    return path.lstrip(".")
