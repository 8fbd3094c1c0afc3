"""When a field's value is somebody's identity, and which byte strings any line with it must contain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ["needs_folding", "normalise", "safe_run", "spellings"]

SAFE_RUN: Final = re.compile(r"[ !#-.0-\[\]-~]+")
"""Printable ASCII except the quote, the slash and the backslash: what no common encoder has a short escape for."""


def normalise(kind: str, value: str) -> str:
    """The form in which two values of one identity type are compared.

    E-mail addresses: without case. IP addresses: canonical, an IPv4 address mapped into IPv6 as IPv4. Others: as is.
    """
    if kind == "email":
        if value.isascii():
            return value.lower()
        # Without one ASCII character there is nothing to search for in every spelling (and it is no address).
        return "".join(map(_fold, value)) if any(c.isascii() for c in value) else value
    if kind == "ip":
        try:
            address = ip_address(value)
        except ValueError:
            return value
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return str(mapped or address)
    return value


def _fold(character: str) -> str:
    # ASCII letters and others are never folded into each other ("K" the unit Kelvin is no "k"), because the search for
    # candidates folds ASCII alone and must not miss what this would call equal.
    lower = character.lower()
    return lower if len(lower) == 1 and lower.isascii() == character.isascii() else character


def needs_folding(kind: str, value: str) -> bool:
    """Whether values of this type may be spelt with other capitals."""
    return kind == "email" or (kind == "ip" and ":" in value)


def spellings(kind: str, value: str) -> Iterator[tuple[str, bool]]:
    """The strings of which every spelling of a normalised value contains one, and whether it is the whole spelling.

    IPv6 addresses are found in their canonical form, without ``::``, and with leading zeros.
    """
    if kind == "ip":
        yield value, False
        try:
            long = IPv6Address(value).exploded
        except ValueError:
            return
        yield long, False
        yield ":".join(group.lstrip("0") or "0" for group in long.split(":")), False
        return
    ascii_run = max(re.split(r"[^\x00-\x7f]+", value), key=len) if kind == "email" else value
    yield (ascii_run, ascii_run == value) if ascii_run else (value, True)


def safe_run(text: str) -> str:
    """The longest part of a text that an encoder leaves alone; empty when there is none."""
    return max(SAFE_RUN.findall(text), key=len, default="")
