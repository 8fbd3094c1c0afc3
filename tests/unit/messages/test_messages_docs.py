"""The reference of messages names everything there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.vocabulary import IdentityType, Outcome, Right
from orchestrator.errors import Refusal
from orchestrator.messages.body import RequestBody
from orchestrator.messages.names import EVENT_TYPES, EVENTS_EXCHANGE, INTAKE_QUEUE, REQUEST_TYPE, REQUESTS_EXCHANGE
from orchestrator.messages.sources import Source

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "messages.md").read_text()
WORDS = [
    *(word.value for kind in (Right, IdentityType, Outcome, Refusal) for word in kind),
    *(set(RequestBody.model_fields) - {"subject"}),
    *Source.model_fields,
    *EVENT_TYPES.values(),
    *(REQUEST_TYPE, REQUESTS_EXCHANGE, EVENTS_EXCHANGE, INTAKE_QUEUE),
]


@pytest.mark.parametrize("word", sorted(set(WORDS)))
def test_it_is_documented(word):
    assert f"`{word}`" in PAGE


@pytest.mark.parametrize("reason", list(Refusal))
def test_every_reason_for_a_refusal_has_a_row(reason):
    assert f"| `{reason.value}` |" in PAGE
