"""The answers of Habeas, as an upstream service reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import from_json

from orchestrator.core.vocabulary import EventKind, Resolution
from orchestrator.errors import RefusedMessage
from orchestrator.messages.names import EVENT_TYPES
from orchestrator.messages.signing import Secret, verify

__all__ = ["Answer", "read_answer"]

MAX_AGE = timedelta(days=7)
"""How long after signing an answer is taken."""
_KINDS = {name: kind for kind, name in EVENT_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that Habeas said about a request."""

    kind: EventKind
    message_id: str
    """Of the message it answers: what ``request`` returned."""
    request_id: str
    """Habeas's own id of the request; empty for ``refused``."""
    event_id: str
    """The same when an answer is delivered twice."""
    data: Mapping[str, Any] = field(repr=False)
    """As ``docs/reference/schemas`` says for its kind."""
    dataref: str = ""
    """Where the package of an access or portability request lies."""

    @property
    def final(self) -> bool:
        """Whether no further answer comes."""
        return self.kind in {EventKind.COMPLETED, EventKind.REFUSED}

    @property
    def resolution(self) -> Resolution | None:
        """How the request closed; ``None`` unless ``completed``."""
        return Resolution(self.data["resolution"]) if self.kind is EventKind.COMPLETED else None


def read_answer(body: bytes, headers: Mapping[str, object], secrets: Sequence[Secret], now: datetime) -> Answer | None:
    """The answer in a message; ``None`` when it is something else, or not signed by one of ``secrets``."""
    try:
        if secrets:
            verify(body, {str(k).lower(): str(v) for k, v in headers.items()}, secrets, now, MAX_AGE)
        event = from_json(body)
        data = event["data"]
        return Answer(
            kind=_KINDS[event["type"]],
            message_id=str(event.get("causationid", "")),
            request_id=str(data.get("request_id", "")),
            event_id=str(event["id"]),
            data=data,
            dataref=str(event.get("dataref", "")),
        )
    except (RefusedMessage, ValueError, KeyError, TypeError, AttributeError):
        return None
