"""Quarantine: refused messages, sealed as they came, until somebody has looked at them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from orchestrator.errors import NotFound, RefusedMessage
from orchestrator.messages import inbound
from orchestrator.messages.envelope import Delivery
from orchestrator.privacy.vault import Vault
from orchestrator.stages.ids import new_id
from orchestrator.store import bulk, tables


class Quarantine:
    """Keeps and gives back refused messages."""

    def __init__(self, vault: Vault) -> None:
        """Each message is sealed under a key of its own."""
        self._vault = vault

    def put(self, tx: Connection, delivery: Delivery, error: RefusedMessage) -> UUID:
        """Keep a refused message."""
        id_ = new_id()
        key, wrapped = self._vault.new_request_key(str(id_))
        row = {
            "id": id_,
            "source": inbound.claims(delivery)[0] or None,
            "reason": str(error.reason),
            "detail": error.message,
            "field": error.field,
            "bytes": len(delivery.body),
            "wrapped_key": wrapped,
            "sealed": key.seal(_pack(delivery), "quarantine"),
        }
        bulk.insert(tx, tables.quarantine, [row])
        return id_

    def open(self, tx: Connection, id_: UUID) -> Delivery:
        """The message as it came. Raises ``NotFound``."""
        table = tables.quarantine
        row = tx.execute(select(table).where(table.c.id == id_)).one_or_none()
        if row is None:
            raise NotFound(f"there is no quarantined message {id_}")
        key = self._vault.unwrap(str(id_), row.wrapped_key)
        return _unpack(key.open(row.sealed, "quarantine"))

    @staticmethod
    def mark_replayed(tx: Connection, id_: UUID, moment: datetime) -> None:
        """Note that a message was sent to intake again."""
        table = tables.quarantine
        tx.execute(update(table).where(table.c.id == id_).values(replayed_at=moment))


def _pack(delivery: Delivery) -> bytes:
    facts: Mapping[str, Any] = {
        "body": base64.b64encode(delivery.body).decode(),
        "received_at": delivery.received_at.isoformat(),
        "content_type": delivery.content_type,
        "headers": dict(delivery.headers),
        "reply_to": delivery.reply_to,
        "correlation_id": delivery.correlation_id,
    }
    return json.dumps(facts, default=str).encode()


def _unpack(packed: bytes) -> Delivery:
    facts = json.loads(packed)
    return Delivery(
        base64.b64decode(facts["body"]),
        datetime.fromisoformat(facts["received_at"]),
        content_type=facts["content_type"],
        headers=facts["headers"],
        reply_to=facts["reply_to"],
        correlation_id=facts["correlation_id"],
    )
