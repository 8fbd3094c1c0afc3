"""The settings of the ``logs`` connector: which files, in which format, and which of their fields are personal."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from connectors.contract import ConnectorConfig, RelativePath
from connectors.logs.possessive import MISMATCHED, has_possessive

__all__ = ["COMBINED_FIELDS", "FieldConfig", "LogsConfig", "SourceConfig"]

IDENTITY_TYPE: Final = r"^(email|user_id|phone|device_id|ip|stripe_customer_id|custom:.+)$"

DEFAULT_CATEGORY: Final = {
    "email": "user.contact.email",
    "user_id": "user.unique_id",
    "phone": "user.contact.phone_number",
    "device_id": "user.device.device_id",
    "ip": "user.device.ip_address",
}
"""The data category of an identity field that names none; other identity types are ``user.unique_id``."""

COMBINED_FIELDS: Final = (
    "remote_addr",
    "ident",
    "remote_user",
    "time",
    "request",
    "status",
    "size",
    "referer",
    "user_agent",
)
"""The fields of a line in Apache's and nginx's combined format, in order."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _inside_the_root(pattern: str) -> str:
    path = PurePosixPath(pattern)
    if not pattern or "\0" in pattern or path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a relative pattern without '..', so that it stays inside the root directory")
    return pattern


def _plain_token(token: str) -> str:
    if not token.isascii() or not token.isprintable() or re.search(r'[\s"\\]', token):
        raise ValueError(
            "must be printable ASCII without spaces, quotes and backslashes, so that every format holds it"
        )
    return token


Glob = Annotated[str, AfterValidator(_inside_the_root)]
Globs = Annotated[tuple[Glob, ...], BeforeValidator(_listed)]
IdentityType = Annotated[str, Field(pattern=IDENTITY_TYPE)]
Category = Annotated[str, Field(min_length=1)]


class FieldConfig(BaseModel):
    """One personal field of a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: IdentityType | None = None
    """The type of identity that the field holds, if it holds one."""
    categories: Annotated[tuple[Category, ...], BeforeValidator(_listed)] = ()
    """Data categories (Fides keys); an identity field has one by default, such as ``user.contact.email``."""

    @model_validator(mode="after")
    def _has_a_category(self) -> Self:
        if not self.categories and self.identity is None:
            raise ValueError("a field needs 'categories', or an 'identity' that implies one")
        return self

    def kinds(self) -> tuple[str, ...]:
        """The field's data categories, the implied one included."""
        return self.categories or (DEFAULT_CATEGORY.get(self.identity or "", "user.unique_id"),)


class SourceConfig(BaseModel):
    """One kind of log: its files, their format, their personal fields, and what erasure does to a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """What counts and access records are filed under, e.g. ``access``."""
    files: Annotated[Globs, Field(min_length=1)]
    """Patterns below the root, e.g. ``nginx/access.log*``; ``**`` goes down directories."""
    live: Globs = ()
    """Patterns of those files that are still written to: they are searched, and rewritten only once rotated."""
    format: Literal["jsonl", "combined", "regex"]
    pattern: str | None = None
    """Format ``regex``: matched from the start of each line; its named groups are the fields."""
    fields: Annotated[dict[str, FieldConfig], Field(min_length=1)]
    """Field → what it holds. JSON lines: a dotted path such as ``client.ip``."""
    context: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Further fields, not personal by themselves, that access records show (a time, say) and erasure leaves alone."""
    on_erase: Literal["remove", "redact", "pseudonymise"] = "remove"
    """Remove the line, or replace its personal fields with ``token``, or with a keyed hash of their value."""

    @model_validator(mode="after")
    def _fields_exist(self) -> Self:
        if (self.pattern is not None) != (self.format == "regex"):
            raise ValueError("'pattern' belongs to format 'regex', and that format needs it")
        known: tuple[str, ...] = COMBINED_FIELDS
        if self.format == "jsonl":
            return self
        if self.pattern is not None:
            try:
                known = tuple(re.compile(self.pattern.encode()).groupindex)
            except re.error as error:
                raise ValueError(f"'pattern' is not a regular expression: {error}") from None
            if MISMATCHED and has_possessive(self.pattern):
                raise ValueError(
                    "'pattern' has a possessive quantifier or an atomic group, and Python before 3.11.5 matches these "
                    "wrongly: write it without, or use a newer Python"
                )
        unknown = sorted({*self.fields, *self.context} - set(known))
        if unknown:
            raise ValueError(f"there is no field {unknown[0]!r} in this format; there are: {', '.join(known)}")
        return self


class LogsConfig(ConnectorConfig):
    """Settings of the ``logs`` connector."""

    root: RelativePath
    """The directory that holds the logs; nothing outside it is read or written."""
    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """A file that matches several sources belongs to the first."""
    identities: tuple[IdentityType, ...] | None = None
    """The identity types that select a line. By default all that fields hold except ``ip``: an address is shared."""
    discover: tuple[IdentityType, ...] = ()
    """The identity types to look for on a person's lines, e.g. ``[ip, device_id]``."""
    token: Annotated[str, AfterValidator(_plain_token), Field(min_length=1, max_length=64)] = "[erased]"  # noqa: S105 - what it says
    """What a redacted field holds afterwards."""
    pseudonym_key: SecretStr | None = None
    """The key of the hash (HMAC-SHA-256) that ``on_erase: pseudonymise`` leaves in a field; at least 16 characters."""
    poll_after: Annotated[timedelta, Field(gt=timedelta(0))] = timedelta(hours=1)
    """How long to wait for a live file's rotation before looking again."""
    lock_wait: Annotated[float, Field(ge=0, le=600)] = 30
    """Seconds to wait for another worker that is rewriting below the same root."""
    processes: Annotated[int, Field(ge=1, le=32)] = 2
    """Processes that search or rewrite files at the same time, where there is much to do; 1: the worker itself does."""
    longest_line: Annotated[int, Field(ge=1024, le=1 << 24)] = 1 << 20
    """Bytes; a longer line is left alone and counted as unparsed."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("'sources' must have different names")
        if any(source.on_erase == "pseudonymise" for source in self.sources) and (
            self.pseudonym_key is None or len(self.pseudonym_key.get_secret_value()) < 16  # noqa: PLR2004
        ):
            raise ValueError("'on_erase: pseudonymise' needs a 'pseudonym_key' of at least 16 characters")
        held = self.held()
        for name, asked in (("identities", self.identities or ()), ("discover", self.discover)):
            missing = sorted(set(asked) - held)
            if missing:
                raise ValueError(f"{name!r} names {missing[0]!r}, and no field of any source has that 'identity'")
        if not self.selecting():
            raise ValueError("'identities' leaves nothing to find a person by: give a field an 'identity', or name it")
        return self

    def held(self) -> frozenset[str]:
        """The identity types that any field holds."""
        return frozenset(f.identity for s in self.sources for f in s.fields.values() if f.identity)

    def selecting(self) -> frozenset[str]:
        """The identity types that select lines."""
        return self.held() - {"ip"} if self.identities is None else frozenset(self.identities)
