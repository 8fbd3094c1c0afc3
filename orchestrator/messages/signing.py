"""Standard Webhooks 1.0 signatures, on messages as on HTTP.

Signed is ``<webhook-id>.<webhook-timestamp>.<raw body>``; ``webhook-signature`` is a space-separated list of
``v1,<base64 HMAC-SHA256>`` (secret ``whsec_…``) and ``v1a,<base64 Ed25519>`` (``whsk_…`` signs, ``whpk_…`` verifies).
A message is good when any of its signatures holds under any secret of its source, so that secrets can be rotated.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from orchestrator.errors import ConfigurationError, Fault, Refusal, RefusedMessage

__all__ = ["ID_HEADER", "SIGNATURE_HEADER", "TIMESTAMP_HEADER", "Secret", "sign", "verify"]

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

HTTP_MAX_AGE = timedelta(minutes=5)
"""What Standard Webhooks advises for HTTP. Messages may lie in a queue: a source has a ``max_age`` of its own."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far in the future a timestamp may lie."""

_MAX_SIGNATURES = 16
_HMAC_BYTES = range(24, 65)
_ED25519_BYTES = 32
_MAX_TIMESTAMP_DIGITS = 11


class Secret:
    """A signing secret or key. Never shows itself."""

    __slots__ = ("_hmac", "_private", "_public", "fingerprint")

    def __init__(self, text: str) -> None:
        """``text``: ``whsec_``, ``whsk_`` or ``whpk_`` and base64. Raises ``ConfigurationError``, without the text."""
        prefix, _, encoded = text.strip().partition("_")
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        self._hmac = key if prefix == "whsec" and len(key) in _HMAC_BYTES else None
        self._private: Ed25519PrivateKey | None = None
        self._public: Ed25519PublicKey | None = None
        if prefix == "whsk" and len(key) in {_ED25519_BYTES, 2 * _ED25519_BYTES}:
            # Some tools write the public half after the seed.
            self._private = Ed25519PrivateKey.from_private_bytes(key[:_ED25519_BYTES])
            self._public = self._private.public_key()
        elif prefix == "whpk" and len(key) == _ED25519_BYTES:
            self._public = Ed25519PublicKey.from_public_bytes(key)
        if self._hmac is None and self._public is None:
            raise ConfigurationError(
                "a signing secret is not usable",
                [Fault("give whsec_ and base64 of 24 to 64 bytes, or an Ed25519 key as whsk_ (to sign) or whpk_")],
            )
        material = self._hmac or (self._public.public_bytes_raw() if self._public else b"")
        self.fingerprint = hashlib.sha256(b"habeas.secret.v1\0" + material).hexdigest()
        """Tells two secrets apart without showing them."""

    def __repr__(self) -> str:
        """Nothing of the secret."""
        return "Secret(…)"

    @property
    def can_sign(self) -> bool:
        """Whether it can sign, or only verify (``whpk_``)."""
        return self._hmac is not None or self._private is not None

    def sign(self, content: bytes) -> str:
        """One entry of the signature header. Raises ``ConfigurationError`` for a key that can only verify."""
        if self._hmac is not None:
            return "v1," + base64.b64encode(hmac.digest(self._hmac, content, "sha256")).decode()
        if self._private is None:
            raise ConfigurationError("a whpk_ key can only verify; sign with the whsk_ key that belongs to it")
        return "v1a," + base64.b64encode(self._private.sign(content)).decode()

    def holds(self, version: str, signature: bytes, content: bytes) -> bool:
        """Whether this secret made the signature; in constant time."""
        if version == "v1" and self._hmac is not None:
            return hmac.compare_digest(hmac.digest(self._hmac, content, "sha256"), signature)
        if version == "v1a" and self._public is not None:
            try:
                self._public.verify(signature, content)
            except InvalidSignature:
                return False
            return True
        return False


def sign(body: bytes, message_id: str, at: datetime, secrets: Iterable[Secret]) -> dict[str, str]:
    """The three headers, signed with every secret given (several: while receivers change over)."""
    stamp = str(int(at.timestamp()))
    content = _content(message_id, stamp, body)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: " ".join(secret.sign(content) for secret in secrets),
    }


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: Iterable[Secret],
    now: datetime,
    max_age: timedelta = HTTP_MAX_AGE,
) -> datetime:
    """When it was signed. Header names in lower case.

    Raises ``RefusedMessage``: ``bad_signature``, or ``stale`` when the signature holds and the time does not.
    """
    missing = [name for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER) if not headers.get(name)]
    if missing:
        raise _refused(Refusal.BAD_SIGNATURE, "sign the message: add this header", *missing)
    stamp = headers[TIMESTAMP_HEADER]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= _MAX_TIMESTAMP_DIGITS):
        raise _refused(Refusal.BAD_SIGNATURE, "give the time in whole seconds since 1970", TIMESTAMP_HEADER)
    content = _content(headers[ID_HEADER], stamp, body)
    held = False
    entries = headers[SIGNATURE_HEADER].split()[:_MAX_SIGNATURES]
    known = tuple(secrets)
    for version, signature in map(_entry, entries):
        for secret in known:
            # No early end: how long it takes does not tell which secret held.
            held |= secret.holds(version, signature, content)
    if not held:
        raise _refused(
            Refusal.BAD_SIGNATURE, "sign id, timestamp and raw body with a secret of this source", SIGNATURE_HEADER
        )
    signed_at = datetime.fromtimestamp(min(int(stamp), 253_402_300_799), UTC)  # the end of the year 9999
    if signed_at < now - max_age:
        raise _refused(Refusal.STALE, "it was signed too long ago; sign and send it again", TIMESTAMP_HEADER)
    if signed_at > now + CLOCK_SKEW:
        raise _refused(Refusal.STALE, "it was signed in the future; set the sender's clock", TIMESTAMP_HEADER)
    return signed_at


def _content(message_id: str, stamp: str, body: bytes) -> bytes:
    return b".".join((message_id.encode("utf-8", "surrogatepass"), stamp.encode(), body))


def _entry(entry: str) -> tuple[str, bytes]:
    version, _, encoded = entry.partition(",")
    try:
        return version, base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return "", b""


def _refused(reason: Refusal, hint: str, *fields: str) -> RefusedMessage:
    return RefusedMessage(reason, faults=[Fault(hint, field) for field in fields])
