"""What goes out is a CloudEvent that fits its published schema and names no person."""

from __future__ import annotations

import json
import typing
from datetime import UTC, date, datetime
from uuid import UUID

import jsonschema
import pytest
from cloudevents.v1.http import from_http
from pydantic import BaseModel

from orchestrator.core.vocabulary import Action, EventKind, Outcome, Resolution, Right
from orchestrator.errors import Fault, Refusal, RefusedMessage
from orchestrator.messages import schemas
from orchestrator.messages.answers import read_answer
from orchestrator.messages.body import validate
from orchestrator.messages.names import EVENT_TYPES
from orchestrator.messages.outbound import (
    Accepted,
    Completed,
    Origin,
    Residue,
    Retained,
    StepReport,
    SystemReport,
    Waiting,
    WaitingOn,
    compose,
    refusal,
)
from orchestrator.messages.signing import Secret

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
REQUEST = UUID("018f3c2a-7b1c-7000-8000-123456789012")
SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ABOUT = {"request_id": REQUEST, "right": Right.ERASURE, "regulation": "gdpr", "deadline": NOW}
EVENTS = [
    Accepted(**ABOUT, received_at=NOW, workflow="erasure", workflow_version=1),
    refusal(RefusedMessage(Refusal.UNKNOWN_RIGHT, faults=[Fault("use one of …", "right")]), "m-1"),
    Waiting(**ABOUT, waiting_on=[WaitingOn(system="desk", action=Action.GATE, on="approval by the privacy team")]),
    Completed(
        **ABOUT,
        resolution=Resolution.COMPLETED_WITH_EXCEPTIONS,
        received_at=NOW,
        closed_at=NOW,
        systems=[
            SystemReport(
                system="payments",
                steps=[
                    StepReport(
                        action=Action.ERASE,
                        outcome=Outcome.RETAINED,
                        counts={"customers": 1},
                        retained=[Retained(what="invoices", reason="tax", legal_basis="GDPR Art. 17(3)(b)", records=3,
                                           until=date(2034, 1, 1))],
                        residues=[Residue(where="backups", until=date(2026, 12, 31))],
                    )
                ],
            )
        ],
    ),
]  # fmt: skip


def composed(data, **more):
    origin = Origin("urn:shop", "m-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    return compose(data, event_id="e-1", source="urn:habeas", time=NOW, origin=origin, **more)


@pytest.mark.parametrize("data", EVENTS, ids=lambda e: e.kind.value)
def test_an_event_fits_its_published_schema(data):
    event = json.loads(composed(data).body)
    schema = json.loads((schemas.DIRECTORY / f"{event['type']}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(event["data"], schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("data", EVENTS, ids=lambda e: e.kind.value)
def test_the_official_sdk_reads_an_event_and_the_sender_recognises_it(data):
    message = composed(data, dataref="urn:package:1")
    event = from_http({"content-type": message.properties()["content_type"]}, message.body)
    assert event["type"] == EVENT_TYPES[data.kind] == message.type
    assert (event["causationid"], event["correlationid"], event["dataref"]) == ("m-1", "m-1", "urn:package:1")
    assert message.routing_key.endswith("." + data.kind.value)
    assert message.properties()["delivery_mode"] == 2


@pytest.mark.parametrize("data", EVENTS, ids=lambda e: e.kind.value)
def test_an_answer_is_read_back_and_only_with_the_right_signature(data):
    message = composed(data, secrets=[SECRET])
    answer = read_answer(message.body, message.headers, [SECRET], NOW)
    assert answer is not None
    assert (answer.kind, answer.message_id, answer.event_id) == (data.kind, "m-1", "e-1")
    assert answer.final is (data.kind in {EventKind.COMPLETED, EventKind.REFUSED})
    assert read_answer(message.body + b" ", message.headers, [SECRET], NOW) is None
    assert read_answer(b"nonsense", {}, [], NOW) is None


def test_composing_twice_gives_the_same_bytes():
    assert composed(EVENTS[3], secrets=[SECRET]) == composed(EVENTS[3], secrets=[SECRET])


def test_no_event_has_a_field_for_an_identity():
    names: set[str] = set()
    pending: list[object] = [type(event) for event in EVENTS]
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= set(kind.model_fields)
            pending += [field.annotation for field in kind.model_fields.values()]
        else:
            pending += typing.get_args(kind)
    assert not names & {"identity", "identities", "subject", "value", "email", "corrections"}


# Schemas. ------------------------------------------------------------------------------------------------------------


def test_the_checked_in_schemas_are_what_the_models_give():
    assert schemas.main([]) == 0
    assert {path.name for path in schemas.DIRECTORY.glob("*.json")} == set(schemas.schemas())


def test_a_stale_schema_is_told_and_written_anew(tmp_path, capsys):
    assert schemas.main(["--directory", str(tmp_path)]) == 1
    assert "--write" in capsys.readouterr().err
    assert schemas.main(["--directory", str(tmp_path), "--write"]) == 0
    assert schemas.main(["--directory", str(tmp_path)]) == 0


PERSON = {"identities": [{"type": "email", "value": "ada@example.org"}]}
BODIES = [
    (True, {"right": "erasure", "subject": PERSON}),
    (True, {"right": "erasure", "subject": PERSON, "corrections": None, "purposes": None}),
    (True, {"right": "rectification", "subject": PERSON, "corrections": {"user.name": "Ada"}}),
    (True, {"right": "objection", "subject": PERSON, "purposes": ["marketing"]}),
    (False, {"right": "rectification", "subject": PERSON}),
    (False, {"right": "erasure", "subject": PERSON, "corrections": {"user.name": "Ada"}}),
    (False, {"right": "access", "subject": PERSON, "purposes": ["marketing"]}),
    (False, {"right": "erasure", "subject": {"identities": []}}),
    (False, {"right": "erasure", "subject": PERSON, "typo": 1}),
    (False, {"right": "erasure", "subject": {"identities": [{"type": "custom:Bad", "value": "1"}]}}),
    (False, {"right": "rectification", "subject": PERSON, "corrections": {"Not A Key": "x"}}),
]


@pytest.mark.parametrize(("good", "body"), BODIES)
def test_the_request_s_schema_and_the_intake_agree(good, body):
    schema = json.loads(schemas.schemas()["habeas.request.v1.json"])
    assert jsonschema.Draft202012Validator(schema).is_valid(body) is good
    if good:
        validate(body)
    else:
        with pytest.raises(RefusedMessage):
            validate(body)


def test_the_routing_key_of_a_refusal_without_a_right_says_so():
    assert composed(EVENTS[1]).routing_key == "unknown.refused"
