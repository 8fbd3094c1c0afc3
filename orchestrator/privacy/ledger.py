"""Keyed hashes of erased identities: enough to recognise a person who comes back, useless without the key.

A plain hash of an e-mail address or phone number is found by trying all of them; an HMAC under a key derived from the
master key is not. Hashes are made under the current master key and looked up under every configured one, so a lookup
keeps working while an old master key is still listed.
"""

from __future__ import annotations

import hashlib

from orchestrator.core.model import Identity
from orchestrator.privacy.vault import MasterKeys, keyed_hash

__all__ = ["Ledger"]


class Ledger:
    """Hashes identities. The value must be normalised already (``messages.identities``)."""

    __slots__ = ("_keys",)

    def __init__(self, masters: MasterKeys) -> None:
        """Derives one key per master key, the current one's first."""
        self._keys = tuple(masters.derive("ledger", name) for name in masters.ids())

    def __repr__(self) -> str:
        """Nothing of the keys."""
        return "Ledger(…)"

    def hash(self, identity: Identity) -> bytes:
        """32 bytes to store. The raw value and its sha256 form give the same hash."""
        return self.candidates(identity)[0]

    def candidates(self, identity: Identity) -> tuple[bytes, ...]:
        """What ``hash`` gives now and gave under each older master key: look for any of these."""
        digest = identity.value
        if identity.format != "sha256":
            digest = hashlib.sha256(identity.value.encode()).hexdigest()
        return tuple(keyed_hash(key, identity.type, digest) for key in self._keys)

    def hash_body(self, digest: str) -> bytes:
        """32 bytes to store for a message's ``body_digest``, which unkeyed could be found by guessing its few facts."""
        return self.body_candidates(digest)[0]

    def body_candidates(self, digest: str) -> tuple[bytes, ...]:
        """What ``hash_body`` gives now and gave under each older master key."""
        return tuple(keyed_hash(key, "body", digest) for key in self._keys)
