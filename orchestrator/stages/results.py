"""Connector results → core values, with a last look that no identity of the person slips into words."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from connectors import contract
from orchestrator.core.model import Identity, Residue, Result, Retention
from orchestrator.core.vocabulary import Failure, Outcome
from orchestrator.messages.identities import normalise

MAX_TEXT = 500
"""Characters kept of an error or a note."""
_SHORT = 3
"""Identities shorter than this would turn words into noise; connectors are trusted with those."""


_REMEMBERED = 10_000
"""Texts of one batch whose scrubbed form is remembered."""


class Scrub:
    """Replaces people's identities in words. The contract forbids them there; this is the safety net.

    One is made for a whole batch: what a system says about one call may name anybody who was in it.
    """

    def __init__(self, identities: Iterable[Identity] = ()) -> None:
        """Values are matched without regard to case, as whole words, plain and as they stand in a URL."""
        self._values: set[str] = set()
        self._by_start: dict[str, list[str]] = defaultdict(list)
        self._unquoted: set[str] = set()
        """Values that were not yet written as they stand in a URL: few texts have any."""
        self._known: dict[str, str] = {}
        self.also(identities)

    def also(self, identities: Iterable[Identity]) -> bool:
        """Look for these, too; whether any is new."""
        fresh = {i.value for i in identities} - self._values
        if not fresh:
            return False
        self._values |= fresh
        self._known.clear()
        plain = {value.lower() for value in fresh if len(value) >= _SHORT}
        for value in plain:
            self._by_start[value[:_SHORT]].append(value)
        self._unquoted |= plain
        return True

    def text(self, text: str) -> str:
        """The text without them, without what the database can't hold, and not too long."""
        # The results of a batch say the same few things over and over.
        scrubbed = self._known.get(text)
        if scrubbed is None:
            scrubbed = self._scrubbed(text)
            if len(self._known) < _REMEMBERED:
                self._known[text] = scrubbed
        return scrubbed

    def _scrubbed(self, text: str) -> str:
        for value in self._inside(text.lower()):
            text = re.sub(rf"(?i)(?<![\w.@-]){re.escape(value)}(?![\w@-])", "[identity]", text)
        # PostgreSQL holds no NUL, and UTF-8 no half of a surrogate pair. Cut last, so that no identity is cut in half.
        return text.replace("\x00", "").encode("utf-8", "replace").decode()[:MAX_TEXT]

    def _inside(self, lowered: str) -> list[str]:
        """The values that the text contains, the longest first: its places are looked up, not the batch's people."""
        if "%" in lowered:
            for value in {quote(v, safe="").lower() for v in self._unquoted} - self._unquoted:
                self._by_start[value[:_SHORT]].append(value)
            self._unquoted.clear()
        starts = {lowered[n : n + _SHORT] for n in range(len(lowered) - _SHORT + 1)} & self._by_start.keys()
        found = (value for start in starts for value in self._by_start[start] if value in lowered)
        return sorted(found, key=len, reverse=True)

    def json(self, value: Any) -> Any:
        """The same inside a JSON value; what JSON does not know is told in words."""
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.json(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.json(v) for v in value]
        return self.text(str(value))


class Results:
    """What systems said, as the core's values. Equal ones become one: what follows from them is worked out once."""

    def __init__(self) -> None:
        """Nobody is known yet."""
        self.scrub = Scrub()
        self._known: dict[Hashable, Result] = {}

    def also(self, identities: Iterable[Identity]) -> None:
        """Results may come that speak of these people."""
        if self.scrub.also(identities):
            self._known.clear()

    def result(self, done: contract.Done) -> Result:
        """A connector's result as the core's value."""
        if done.evidence:
            return self._one(self._made(done))
        said = done.outcome, tuple(done.counts.items()), done.retained, done.residues, done.note
        try:
            known = self._known.get(said)
        except TypeError:  # a list, say, where the contract has a tuple
            return self._one(self._made(done))
        if known is None:
            known = self._known[said] = self._one(self._made(done))
        return known

    def _one(self, result: Result) -> Result:
        return self._known.setdefault(repr(result), result)

    def _made(self, done: contract.Done) -> Result:
        scrub = self.scrub
        return Result(
            Outcome(done.outcome),
            {scrub.text(kind): int(n) for kind, n in done.counts.items()},
            tuple(
                Retention(scrub.text(r.what), scrub.text(r.reason), scrub.text(r.legal_basis), r.records, r.until)
                for r in done.retained
            ),
            tuple(Residue(scrub.text(r.where), r.until) for r in done.residues),
            scrub.json(dict(done.evidence)),
            scrub.text(done.note),
        )


def new_identities(found: Iterable[contract.Identity], known: Sequence[Identity]) -> list[Identity]:
    """What a discovery found beyond what is known, normalised as in a message."""
    have = set(known)
    fresh: dict[Identity, None] = {}
    for identity in found:
        try:
            normal = normalise(identity.type, identity.value, identity.format)
        except ValueError:
            normal = Identity(identity.type, identity.value.strip(), identity.format)
        if normal.value and normal not in have:
            fresh[normal] = None
    return list(fresh)


def failure_of(error: contract.ConnectorError) -> Failure:
    """What the engine should do about a connector's error."""
    match error:
        case contract.RateLimited():
            return Failure.RATE_LIMITED
        case contract.Retryable():
            return Failure.RETRYABLE
        case contract.Unauthorised():
            return Failure.UNAUTHORISED
        case _:
            return Failure.FATAL
