"""The audit chain, pure: each entry's hash covers the one before, and signed checkpoints cover the heads.

``link`` is SHA-256 over the previous hash and the entry in canonical JSON, so changing, dropping or reordering an
entry breaks every link after it. Someone who can rewrite the whole table could also recompute every link; a checkpoint
is therefore signed with Ed25519 under a key derived from the master key, and checked with the public key alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orchestrator.privacy.vault import MasterKeys

__all__ = ["GENESIS", "Break", "Checkpoints", "Form", "Json", "canonical", "link", "verify_chain", "verify_checkpoint"]

Json: TypeAlias = "bool | int | float | str | list[Json] | tuple[Json, ...] | Mapping[str, Json] | None"

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_VERSION = b"habeas.audit.v1\0"
GENESIS = bytes(32)
"""What stands in place of a previous hash before the first entry."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain stops holding."""

    position: int
    """Index of the entry, from 0."""
    reason: str


def canonical(value: Json) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8. Raises ``ValueError`` (NaN, infinity) or ``TypeError``."""
    return _CANONICAL(value).encode()


def link(previous: bytes, entry: Mapping[str, Json]) -> bytes:
    """The hash (32 bytes) of an entry that follows ``previous`` (``GENESIS`` for the first)."""
    return hashlib.sha256(_VERSION + previous + canonical(entry)).digest()


class Form:
    """An entry that many requests' chains get, each under its own request and number; what it says is written once."""

    __slots__ = ("_after", "_before")

    def __init__(self, entry: Mapping[str, Json]) -> None:
        """``entry``: everything but ``request`` and ``seq``."""
        # In canonical JSON these two are neighbours. Behind them is no other place like this: quotes are escaped there.
        self._before, _, self._after = canonical({**entry, "request": "", "seq": 0}).rpartition(b'"request":"","seq":0')

    def link(self, previous: bytes, request: str, seq: int) -> bytes:
        """What ``link`` says of the entry of this request (a UUID) with this number."""
        own = f'"request":"{request}","seq":{seq}'.encode()
        return hashlib.sha256(_VERSION + previous + self._before + own + self._after).digest()


def verify_chain(entries: Iterable[tuple[Mapping[str, Json], bytes]], start: bytes = GENESIS) -> Break | None:
    """The first broken link of ``(entry, stored hash)`` pairs in order, or ``None`` when all hold."""
    previous = start
    for position, (entry, stored) in enumerate(entries):
        try:
            expected = link(previous, entry)
        except (TypeError, ValueError):
            return Break(position, "the entry is not something that canonical JSON can hold")
        if expected != stored:
            return Break(position, "the stored hash does not follow from the entry and the hash before it")
        previous = stored
    return None


class Checkpoints:
    """Signs checkpoints with the key derived from the current master key."""

    __slots__ = ("_key", "key_id", "public_key")

    def __init__(self, masters: MasterKeys) -> None:
        """``key_id`` is the master key's id; ``public_key`` its raw 32 bytes, safe to publish."""
        self.key_id = masters.current
        self._key = Ed25519PrivateKey.from_private_bytes(masters.derive("audit"))
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        """The key's id alone."""
        return f"Checkpoints({self.key_id})"

    def sign(self, checkpoint: Mapping[str, Json]) -> bytes:
        """A 64-byte signature over the checkpoint in canonical JSON, e.g. ``{"at": …, "heads": {request: hex}}``."""
        return self._key.sign(b"habeas.checkpoint.v1\0" + canonical(checkpoint))


def public_keys(masters: MasterKeys) -> Mapping[str, bytes]:
    """Master key id → public key, for checking checkpoints signed before a rotation."""
    keys = {}
    for name in masters.ids():
        private = Ed25519PrivateKey.from_private_bytes(masters.derive("audit", name))
        keys[name] = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return keys


def verify_checkpoint(checkpoint: Mapping[str, Json], signature: bytes, public_key: bytes) -> bool:
    """Whether the signature is that key's, over exactly this checkpoint."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            signature, b"habeas.checkpoint.v1\0" + canonical(checkpoint)
        )
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
