"""New ids."""

from __future__ import annotations

import os
import time
from uuid import NAMESPACE_URL, UUID, uuid5


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): sorts by time, so that new rows lie together in an index."""
    stamp = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    raw = bytearray(stamp + os.urandom(10))
    raw[6] = (raw[6] & 0x0F) | 0x70
    raw[8] = (raw[8] & 0x3F) | 0x80
    return UUID(bytes=bytes(raw))


def effects_key(source: str, message_id: str) -> UUID:
    """What the idempotency keys of a message's effects begin with.

    It depends on the message alone: if the database that knew its request is lost and the message comes again, the
    systems are asked under the same keys, and those that take keys do nothing twice.
    """
    return uuid5(NAMESPACE_URL, f"habeas:effects:{len(source)}:{source}:{message_id}")
