"""Identities in their normal form, so that the same person written in two ways is the same person.

=====================  ===============================================================================================
type                   normal form
=====================  ===============================================================================================
email                  Unicode NFC, trimmed, lower case: domain and local part. (RFC 5321 lets a host tell ``Ada@`` from
                       ``ada@``; hardly any does, and a request that misses a record is worse than one that finds two
                       spellings of one mailbox.) Sub-addresses (``ada+news@``) and dots are kept.
phone                  E.164: ``+`` and 7 to 15 digits; spaces, dots, hyphens, slashes, brackets and a ``(0)`` after the
                       country code are dropped, ``00`` at the start becomes ``+``
ip                     IPv4 dotted, IPv6 compressed lower case (RFC 5952); an IPv4 address mapped into IPv6 becomes IPv4
the others             Unicode NFC, trimmed; case is kept
format ``sha256``      64 lower-case hex digits, of the SHA-256 of the UTF-8 of the normal form above
=====================  ===============================================================================================
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import IdentityFormat, IdentityType

__all__ = ["MAX_VALUE", "TYPE_PATTERN", "normalise"]

MAX_VALUE = 512
"""Characters."""
TYPE_PATTERN = rf"^(?:{'|'.join(kind.value for kind in IdentityType)}|custom:[a-z][a-z0-9_]{{0,39}})$"
"""What an identity's type looks like."""

_TYPE = re.compile(TYPE_PATTERN)
_EMAIL = re.compile(r"[^\s@]{1,256}@[^\s@]{1,255}")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_DECORATION = re.compile(r"[\s().\-/\u2010-\u2015\u00a0]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STRIPE = re.compile(r"cus_[A-Za-z0-9]{1,250}")


def normalise(kind: str, value: str, form: str = IdentityFormat.RAW) -> Identity:
    """The identity in its normal form. Raises ``ValueError`` with a hint that holds nothing of the value."""
    if not _TYPE.fullmatch(kind):
        raise ValueError("use one of the known identity types, or custom:<name> in lower case")
    text = unicodedata.normalize("NFC", value).strip()
    if not text or len(text) > MAX_VALUE:
        raise ValueError(f"give a value of 1 to {MAX_VALUE} characters")
    # What is printable has none; it is the quicker question.
    if not text.isprintable() and any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise ValueError("leave control characters out of the value")
    if form == IdentityFormat.SHA256:
        return Identity(kind, _sha256(text), IdentityFormat.SHA256.value)
    if form != IdentityFormat.RAW:
        raise ValueError("use the format raw or sha256")
    if kind == IdentityType.EMAIL:
        text = _email(text)
    elif kind == IdentityType.PHONE:
        text = _phone(text)
    elif kind == IdentityType.IP:
        text = _ip(text)
    elif kind == IdentityType.STRIPE_CUSTOMER_ID and not _STRIPE.fullmatch(text):
        raise ValueError("a Stripe customer id starts with cus_")
    return Identity(kind, text, IdentityFormat.RAW.value)


def _sha256(text: str) -> str:
    digest = text.lower()
    if not _SHA256.fullmatch(digest):
        raise ValueError("with the format sha256 give 64 hex digits: the SHA-256 of the normalised value")
    return digest


def _email(text: str) -> str:
    # Lower-casing can leave NFC (e.g. a capital I with dot), so it is normalised again.
    address = unicodedata.normalize("NFC", text.lower())
    if not _EMAIL.fullmatch(address):
        raise ValueError("give an e-mail address: local part, @ and domain, without spaces or display name")
    return address


def _phone(text: str) -> str:
    number = _PHONE_DECORATION.sub("", text.replace("(0)", ""))
    if number.startswith("00"):
        number = "+" + number[2:]
    if not _PHONE.fullmatch(number):
        raise ValueError("give the phone number with its country code, as in +441632960001")
    return number


def _ip(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("give one IPv4 or IPv6 address, without port or mask") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError("give the IPv6 address without its zone")
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
    return str(address)
