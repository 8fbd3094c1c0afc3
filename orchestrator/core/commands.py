"""What the core wants done after a run has advanced. The store and the broker carry it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.model import JSON
from orchestrator.core.vocabulary import EventKind


@dataclass(frozen=True, slots=True)
class Ring:
    """A system has work that is ready now: ring its doorbell after the commit."""

    system: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the upstream service, through the outbox."""

    kind: EventKind
    facts: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """Add to the request's audit chain. No personal data."""

    what: str
    ordinal: int | None = None
    facts: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fence:
    """A worker's settle came with a lease that is no longer its own: nothing was changed; count it."""

    ordinal: int


Command = Ring | Announce | Record | Fence
