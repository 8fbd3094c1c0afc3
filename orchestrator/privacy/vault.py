"""Envelope sealing: a key per request, wrapped by a master key, destroyed to shred what it sealed.

Every request gets a random 256-bit key. Identities, payloads and gathered data are sealed under it with AES-256-GCM;
the key itself is stored only wrapped by a master key. Deleting the wrapped key makes everything sealed under it
unreadable, in backups too (crypto-shredding). Messages in quarantine get a key in the same way, under an id of their
own.

Formats, both versioned by their first byte:

* sealed: ``0x01 | nonce (12) | ciphertext and tag``
* wrapped key: ``0x81 | length of key id (1) | key id | nonce (12) | ciphertext and tag (48)``

Random 96-bit nonces are safe for 2³² seals per key; a request makes a few hundred.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.errors import ConfigurationError, Fault, VaultError

__all__ = ["KEY_BYTES", "MasterKeys", "RequestKey", "Vault"]

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_SEALED = b"\x01"
_WRAPPED = b"\x81"
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_OPEN_FAILED = "sealed data can't be opened: it was tampered with, or sealed under another key or for another place"


def derive(secret: bytes, purpose: str, salt: bytes | None = None) -> bytes:
    """32 bytes for one purpose from another key (HKDF-SHA256); knowing them tells nothing about ``secret``."""
    return HKDF(SHA256(), KEY_BYTES, salt, b"habeas/" + purpose.encode()).derive(secret)


class RequestKey:
    """The key of one request. Never shows its bytes."""

    __slots__ = ("_aead", "_key")

    def __init__(self, key: bytes) -> None:
        """``key``: 32 bytes; raises ``VaultError`` for any other length."""
        if len(key) != KEY_BYTES:
            raise VaultError(f"a request key must have {KEY_BYTES} bytes")
        self._key = key
        self._aead = AESGCM(key)

    def __repr__(self) -> str:
        """Nothing of the key."""
        return "RequestKey(…)"

    def __reduce__(self) -> str:
        """Refuse to be pickled: a key must not travel by accident."""
        raise VaultError("a request key can't be pickled; pass the wrapped key")

    def seal(self, plaintext: bytes, aad: str) -> bytes:
        """Seal; ``aad`` names the place it belongs (e.g. ``request/…/identities``) and must be given again to open."""
        nonce = os.urandom(_NONCE_BYTES)
        return _SEALED + nonce + self._aead.encrypt(nonce, plaintext, _SEALED + aad.encode())

    def open(self, sealed: bytes, aad: str) -> bytes:
        """What was sealed. Raises ``VaultError`` when it, the key or ``aad`` is not the same."""
        if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _SEALED:
            raise VaultError("sealed data has a format this version does not know, or is cut off")
        try:
            return self._aead.decrypt(sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :], _SEALED + aad.encode())
        except InvalidTag:
            raise VaultError(_OPEN_FAILED) from None

    def subkey(self, purpose: str, salt: bytes) -> bytes:
        """A key derived from this one for a stream of its own; 32 bytes."""
        return derive(self._key, purpose, salt)


class MasterKeys:
    """The master keys by id, the current one first. Old ones stay until everything is re-wrapped."""

    __slots__ = ("_keys", "current")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """``keys``: id (letters, digits, ``_.-``, at most 32) → 32 bytes. Raises ``ConfigurationError``."""
        faults = [
            Fault(f"key {number} must have an id of letters, digits and _.- (at most 32) and 32 bytes in base64")
            for number, (name, key) in enumerate(keys.items(), 1)
            if not _KEY_ID.fullmatch(name) or len(key) != KEY_BYTES
        ]
        if not keys:
            faults = [Fault("there is no master key; make one with MasterKeys.generate and set it as 'id:base64'")]
        if faults:
            raise ConfigurationError("the master keys are not usable", faults)
        self._keys: Mapping[str, bytes] = MappingProxyType(dict(keys))
        self.current = next(iter(keys))

    def __repr__(self) -> str:
        """The ids alone."""
        return f"MasterKeys({', '.join(self._keys)})"

    def __reduce__(self) -> str:
        """Refuse to be pickled: a key must not travel by accident."""
        raise VaultError("master keys can't be pickled")

    @classmethod
    def parse(cls, text: str) -> MasterKeys:
        """From ``id:base64`` entries, separated by commas or lines; ``#`` starts a comment. The first is current.

        Raises ``ConfigurationError`` naming the entry by its number, never its text.
        """
        keys: dict[str, bytes] = {}
        lines = (line.split("#", 1)[0] for line in text.splitlines())
        for number, entry in enumerate((e.strip() for line in lines for e in line.split(",") if e.strip()), 1):
            name, colon, encoded = entry.partition(":")
            try:
                key = base64.b64decode(encoded.strip(), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not colon or name.strip() in keys or len(key) != KEY_BYTES:
                raise ConfigurationError(
                    "the master keys are not usable",
                    [Fault(f"entry {number} must be 'id:base64 of 32 bytes', with an id of its own")],
                )
            keys[name.strip()] = key
        return cls(keys)

    @classmethod
    def read(cls, path: Path) -> MasterKeys:
        """From a file of ``id:base64`` lines. Raises ``ConfigurationError``."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(
                "the master key file can't be read", [Fault("give its path", file=str(path))]
            ) from None

    @staticmethod
    def generate(name: str) -> str:
        """A new entry, ``id:base64``, for ``parse`` to read."""
        return f"{name}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"

    def ids(self) -> tuple[str, ...]:
        """All ids, the current one first."""
        return tuple(self._keys)

    def derive(self, purpose: str, name: str | None = None) -> bytes:
        """32 bytes for one purpose, from the current master key or the one named. Raises ``VaultError``."""
        return derive(self._get(name or self.current), purpose)

    def _get(self, name: str) -> bytes:
        key = self._keys.get(name)
        if key is None:
            raise VaultError("the master key that wrapped this is not configured; add it after the current one")
        return key


class Vault:
    """Makes, wraps and unwraps request keys. Thread-safe: it holds no changing state."""

    __slots__ = ("_wrapping", "masters")

    def __init__(self, masters: MasterKeys) -> None:
        """Does no I/O."""
        self.masters = masters
        self._wrapping = {name: AESGCM(masters.derive("wrap", name)) for name in masters.ids()}

    def __repr__(self) -> str:
        """The ids of the master keys alone."""
        return f"Vault({self.masters!r})"

    def new_request_key(self, request_id: str) -> tuple[RequestKey, bytes]:
        """A fresh key, and the same wrapped, to be stored beside the request."""
        key = os.urandom(KEY_BYTES)
        return RequestKey(key), self._wrap(request_id, key)

    def unwrap(self, request_id: str, wrapped: bytes | None) -> RequestKey:
        """The request's key. Raises ``VaultError`` when it was shredded (``None``), tampered with or another's."""
        return RequestKey(self._unwrap(request_id, wrapped))

    def rewrap(self, request_id: str, wrapped: bytes) -> bytes | None:
        """The same key under the current master key; ``None`` when it already is."""
        name, _ = _split(wrapped)
        if name == self.masters.current:
            return None
        return self._wrap(request_id, self._unwrap(request_id, wrapped))

    def _wrap(self, request_id: str, key: bytes) -> bytes:
        name = self.masters.current
        head = _WRAPPED + bytes([len(name)]) + name.encode()
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._wrapping[name].encrypt(nonce, key, head + request_id.encode())

    def _unwrap(self, request_id: str, wrapped: bytes | None) -> bytes:
        if not wrapped:
            raise VaultError("the request's key was destroyed: its personal data can't be read any more")
        name, rest = _split(wrapped)
        aead = self._wrapping.get(name)
        if aead is None:
            raise VaultError("the master key that wrapped this is not configured; add it after the current one")
        head = wrapped[: len(wrapped) - len(rest)]
        try:
            return aead.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head + request_id.encode())
        except InvalidTag:
            raise VaultError("the request's wrapped key was tampered with or belongs to another request") from None


def _split(wrapped: bytes) -> tuple[str, bytes]:
    size = wrapped[1] if len(wrapped) > 1 else 0
    if wrapped[:1] != _WRAPPED or len(wrapped) != 2 + size + _NONCE_BYTES + KEY_BYTES + _TAG_BYTES:
        raise VaultError("the wrapped key has a format this version does not know, or is cut off")
    return wrapped[2 : 2 + size].decode("ascii", "replace"), wrapped[2 + size :]


def keyed_hash(key: bytes, *parts: str) -> bytes:
    """HMAC-SHA256 over parts, each preceded by its length so that no two lists of parts give the same bytes."""
    texts = [part.encode() for part in parts]
    return hmac.digest(key, b"".join([len(data).to_bytes(8, "big") + data for data in texts]), "sha256")
