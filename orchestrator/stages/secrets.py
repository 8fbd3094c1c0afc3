"""The sealed facts of requests: sealing them at intake, opening them for a batch at execution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, select

from connectors import contract
from orchestrator.core.model import Identity
from orchestrator.errors import VaultError
from orchestrator.privacy.ledger import Ledger
from orchestrator.privacy.vault import RequestKey, Vault
from orchestrator.store import arrays, bulk, tables

PAYLOAD = "payload"
FINDING = "finding"
EFFECTS = "effects"
"""Beside a request's facts: what the idempotency keys of its effects begin with."""


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """A request's facts in the clear: lives while a worker is at it, is never logged (it has no repr)."""

    key: RequestKey
    identities: tuple[Identity, ...]
    told: tuple[contract.Identity, ...]
    """The same as connectors are told them."""
    corrections: Mapping[str, str]
    purposes: frozenset[str]
    categories: frozenset[str] | None
    effects: str
    """What the idempotency keys of its effects begin with."""
    findings: frozenset[int]
    """Ordinals of the steps whose findings are among the identities."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The facts of requests as they are stored."""

    facts: Mapping[UUID, tuple[bytes, bytes]]
    """Wrapped key and payload."""
    findings: Mapping[UUID, Sequence[tuple[int, bytes]]]
    """Ordinal of the step that found, and what it found."""


Facts = Mapping[UUID, Opened | VaultError]
"""The facts of requests; what could not be opened stands in its place. A shredded request is left out."""


class Secrets:
    """Seals and opens."""

    def __init__(self, vault: Vault, ledger: Ledger) -> None:
        """Holds keys only."""
        self._vault, self._ledger = vault, ledger

    def seal(self, request: UUID, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The ``request_secret`` row of new facts, under a new key."""
        key, wrapped = self._vault.new_request_key(str(request))
        payload = key.seal(to_json(facts), PAYLOAD)
        return {"request_id": request, "wrapped_key": wrapped, "payload": payload}

    @staticmethod
    def seal_finding(key: RequestKey, request: UUID, ordinal: int, found: Sequence[Identity]) -> dict[str, Any]:
        """The ``finding`` row of identities that a discover step found."""
        text = to_json([[i.type, i.value, i.format] for i in found])
        return {"request_id": request, "ordinal": ordinal, "sealed": key.seal(text, f"{FINDING}/{ordinal}")}

    def key(self, tx: Connection, request: UUID) -> RequestKey:
        """A request's key. Raises ``VaultError`` when it was shredded."""
        table = tables.request_secret
        query = select(table.c.wrapped_key).where(table.c.request_id == request)
        return self._vault.unwrap(str(request), tx.execute(query).scalar_one_or_none())

    def open(self, tx: Connection, requests: Iterable[UUID]) -> dict[UUID, Opened]:
        """The facts of many requests, with all identities found so far. A shredded request is left out.

        Raises ``VaultError``.
        """
        opened: dict[UUID, Opened] = {}
        for request, facts in self.unseal(self.sealed(tx, requests)).items():
            if isinstance(facts, VaultError):
                raise facts
            opened[request] = facts
        return opened

    @staticmethod
    def sealed(tx: Connection, requests: Iterable[UUID]) -> Sealed:
        """Read the facts of many requests as they are stored: opening them can wait for the end of the transaction."""
        ids = list(set(requests))
        found: dict[UUID, list[tuple[int, bytes]]] = defaultdict(list)
        if not ids:
            return Sealed({}, found)
        facts: dict[UUID, tuple[bytes, bytes]] = {}
        for id_, key, payload, ordinal, finding in bulk.send(tx, _SEALED, {"ids": arrays.ids(ids)}).fetchall():
            facts[id_] = key, payload
            if finding is not None:
                found[id_].append((ordinal, finding))
        return Sealed(facts, found)

    def unseal(self, sealed: Sealed) -> dict[UUID, Opened | VaultError]:
        """Open what was read; what can't be opened stands in its place. A shredded request is left out."""
        opened: dict[UUID, Opened | VaultError] = {}
        for request, (wrapped, payload) in sealed.facts.items():
            try:
                key = self._vault.unwrap(str(request), wrapped)
                opened[request] = _opened(request, key, payload, sealed.findings.get(request, ()))
            except VaultError as error:
                opened[request] = error
        return opened

    @staticmethod
    def catch_up(tx: Connection, known: Mapping[UUID, Opened]) -> Callable[[], Facts]:
        """What is known of requests, with what was found since. It may be read later (``bulk.together``)."""
        asked = bulk.send(tx, _FOUND, {"ids": arrays.ids(list(known))})

        def caught_up() -> Facts:
            facts: dict[UUID, Opened | VaultError] = dict(known)
            for request, ordinal, sealed in asked.fetchall():
                facts[request] = _and_found(facts[request], ordinal, sealed)
            return facts

        return caught_up

    @staticmethod
    def and_found(known: Opened | VaultError, finding: Mapping[str, Any]) -> Opened | VaultError:
        """What is known of a request, with a ``finding`` row that ``seal_finding`` made."""
        return _and_found(known, finding["ordinal"], finding["sealed"])

    def identity_hashes(self, tx: Connection, requests: Sequence[UUID], facts: Facts) -> dict[UUID, list[bytes]]:
        """The keyed hashes of the requests' identities, for the ledger. ``facts``: what is known of some of them."""
        known = {r: one for r in requests if isinstance(one := facts.get(r), Opened)}
        opened = {**known, **self.open(tx, (r for r in requests if r not in known))}
        return {r: sorted({self._ledger.hash(i) for i in one.identities}) for r, one in opened.items()}

    @staticmethod
    def shred(tx: Connection, requests: Sequence[UUID]) -> None:
        """Destroy the keys, and what they sealed."""
        for table in (tables.artifact, tables.finding, tables.request_secret):
            tx.execute(table.delete().where(table.c.request_id.in_(requests)))

    @staticmethod
    def store(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write new ``request_secret`` rows."""
        bulk.insert(tx, tables.request_secret, rows)


# An array, for a list of a thousand parameters costs more than what it finds.
_SEALED = """
SELECT s.request_id, s.wrapped_key, s.payload, f.ordinal, f.sealed
FROM request_secret s LEFT JOIN finding f ON f.request_id = s.request_id
WHERE s.request_id = ANY(%(ids)s) ORDER BY f.ordinal"""


_FOUND = "SELECT request_id, ordinal, sealed FROM finding WHERE request_id = ANY(%(ids)s) ORDER BY ordinal"


def _opened(request: UUID, key: RequestKey, payload: bytes, findings: Sequence[tuple[int, bytes]]) -> Opened:
    facts = from_json(key.open(payload, PAYLOAD))
    identities = [Identity(i["type"], i["value"], i.get("format", "raw")) for i in facts["subject"]["identities"]]
    for ordinal, sealed in findings:
        identities += _found(key, ordinal, sealed)
    categories = facts.get("scope", {}).get("categories")
    known = tuple(dict.fromkeys(identities)) if len(identities) > 1 else (*identities,)
    return Opened(
        key,
        known,
        _told(known),
        facts.get("corrections", {}),
        frozenset(facts.get("purposes", ())),
        frozenset(categories) if categories else None,
        facts.get(EFFECTS) or str(request),  # before there were keys of their own, the id served
        frozenset(ordinal for ordinal, _ in findings),
    )


def _and_found(known: Opened | VaultError, ordinal: int, sealed: bytes) -> Opened | VaultError:
    if not isinstance(known, Opened) or ordinal in known.findings:
        return known
    try:
        identities = tuple(dict.fromkeys((*known.identities, *_found(known.key, ordinal, sealed))))
    except VaultError as error:
        return error
    return Opened(
        known.key,
        identities,
        _told(identities),
        known.corrections,
        known.purposes,
        known.categories,
        known.effects,
        known.findings | {ordinal},
    )


def _told(identities: Iterable[Identity]) -> tuple[contract.Identity, ...]:
    return tuple([contract.Identity(i.type, i.value, i.format) for i in identities])


def _found(key: RequestKey, ordinal: int, sealed: bytes) -> list[Identity]:
    return [Identity(*i) for i in from_json(key.open(sealed, f"{FINDING}/{ordinal}"))]
