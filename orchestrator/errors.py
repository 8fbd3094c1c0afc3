"""Every error Habeas raises on purpose, sorted by what the caller should do about it.

An error's docstring is its default message. No error's text carries personal data: it names fields, files and ids of
our own making, never what stood in them. Connectors have a tree of their own (``connectors.contract``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ConfigurationError",
    "Conflict",
    "Fault",
    "HabeasError",
    "NotFound",
    "Refusal",
    "RefusedMessage",
    "Unavailable",
    "VaultError",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, where it stands, and how to put it right."""

    text: str
    """One sentence: what is wrong and the fix. Never the offending value."""
    field: str = ""
    """Path inside the document, e.g. ``subject.identities[0].value``."""
    file: str = ""
    line: int | None = None
    """Counted from 1."""

    def __str__(self) -> str:
        """``file:line: field: text``, leaving out what is not known."""
        place = f"{self.file}:{self.line}" if self.file and self.line is not None else self.file
        return ": ".join(part for part in (place, self.field, self.text) if part)


class Refusal(StrEnum):
    """Why a message was refused. Sent to its sender and shown in quarantine, so the names never change."""

    MALFORMED = "malformed"
    """The message or its body can't be read, or a field is missing, unknown or of the wrong type."""
    TOO_LARGE = "too_large"
    UNSUPPORTED_VERSION = "unsupported_version"
    """The CloudEvents version or the message type is not one that Habeas knows."""
    UNKNOWN_RIGHT = "unknown_right"
    UNKNOWN_REGULATION = "unknown_regulation"
    """No deadline is configured for it."""
    MISSING_IDENTITY = "missing_identity"
    UNKNOWN_SOURCE = "unknown_source"
    BAD_SIGNATURE = "bad_signature"
    """Not signed though the source must sign, or signed with something else."""
    STALE = "stale"
    """Signed too long ago, or in the future."""
    NOT_ALLOWED = "not_allowed"
    """The source is known and may not ask for this."""
    CONFLICTING_REPLAY = "conflicting_replay"
    """The same source and id came before with another body."""
    UNKNOWN_SYSTEM = "unknown_system"
    """The scope names a system that is not configured."""
    UNPROCESSABLE = "unprocessable"
    """Reading it hit a defect in Habeas; it waits for a repaired version."""


class HabeasError(Exception):
    """Habeas could not do this."""

    def __init__(self, message: str = "") -> None:
        """``message``: one sentence without personal data; the class's docstring when empty."""
        super().__init__(message or (self.__doc__ or "").strip())


class ConfigurationError(HabeasError):
    """The configuration is not usable; fix the settings or files named."""

    def __init__(self, message: str = "", faults: Iterable[Fault] = ()) -> None:
        """``faults``: everything that is wrong at once, appended to the text line by line."""
        self.faults = tuple(faults)
        head = message or (self.__doc__ or "").strip()
        super().__init__("\n".join([head, *(f"  {fault}" for fault in self.faults)]))


class RefusedMessage(HabeasError):
    """The message was refused; it goes to quarantine."""

    def __init__(self, reason: Refusal, message: str = "", *, faults: Iterable[Fault] = ()) -> None:
        """``faults``: each with the ``field`` concerned and a hint how to fix it."""
        self.reason = reason
        self.source = ""
        """The source, once it has proven to be that; empty before."""
        self.faults = tuple(faults)
        self.message = message or (str(self.faults[0]) if self.faults else (self.__doc__ or "").strip())
        super().__init__(f"{reason.value}: {self.message}")

    @property
    def field(self) -> str:
        """The path of the first field at fault, empty when the message as a whole is."""
        return self.faults[0].field if self.faults else ""

    @property
    def hint(self) -> str:
        """How to fix the first fault."""
        return self.faults[0].text if self.faults else self.message


class Unavailable(HabeasError):
    """The database or the broker does not answer; wait and try again."""


class StoreFull(HabeasError):
    """The artifacts folder takes no more; make room there, and the work goes on by itself."""


class NotFound(HabeasError):
    """There is no such thing; check the id."""


class Conflict(HabeasError):
    """The state of the request does not allow this."""


class VaultError(HabeasError):
    """Sealed data can't be opened: its key is missing, was destroyed, or the data was tampered with."""
