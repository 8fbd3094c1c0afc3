"""New ids."""

from __future__ import annotations

import os
import time
from uuid import NAMESPACE_URL, UUID, uuid5

_VERSION_7 = 0x7 << 76 | 0b10 << 62
"""And the variant."""
_RANDOM = (1 << 80) - 1 & ~(0xF << 76 | 0b11 << 62)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): sorts by time, so that new rows lie together in an index."""
    stamp = time.time_ns() // 1_000_000
    return UUID(int=stamp << 80 | int.from_bytes(os.urandom(10), "big") & _RANDOM | _VERSION_7)


def effects_key(source: str, message_id: str) -> UUID:
    """What the idempotency keys of a message's effects begin with.

    It depends on the message alone: if the database that knew its request is lost and the message comes again, the
    systems are asked under the same keys, and those that take keys do nothing twice.
    """
    return uuid5(NAMESPACE_URL, f"habeas:effects:{len(source)}:{source}:{message_id}")
