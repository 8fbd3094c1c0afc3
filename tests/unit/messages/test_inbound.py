"""What comes in becomes a request, or a refusal that says what to fix and nothing personal."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cloudevents.v1.conversion import to_json
from cloudevents.v1.http import CloudEvent
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import Right
from orchestrator.errors import RefusedMessage
from orchestrator.messages.identities import normalise
from orchestrator.messages.inbound import Delivery, claims, read_facts, receive
from orchestrator.messages.signing import Secret, sign
from orchestrator.messages.sources import Source, Sources

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OPEN = Sources([Source(source="urn:shop", unsigned="allowed", trusted_to_verify=True, regulation="gdpr")])
BODY = {"right": "erasure", "subject": {"identities": [{"type": "email", "value": " Ada@Example.ORG "}]}}
ATTRIBUTES = {"specversion": "1.0", "id": "m-1", "source": "urn:shop", "type": "habeas.request.v1"}


def structured(body=BODY, **attributes) -> Delivery:
    event = {**ATTRIBUTES, "data": body, **attributes}
    return Delivery(json.dumps(event).encode(), NOW, "application/cloudevents+json; charset=utf-8")


def binary(body=BODY, prefix="cloudEvents_", **attributes) -> Delivery:
    headers = {prefix + name: value for name, value in {**ATTRIBUTES, **attributes}.items()}
    return Delivery(json.dumps(body).encode(), NOW, "application/json", headers)


def refused(delivery: Delivery, sources: Sources = OPEN) -> RefusedMessage:
    with pytest.raises(RefusedMessage) as caught:
        receive(delivery, sources)
    return caught.value


def body(**changes):
    return {name: value for name, value in {**BODY, **changes}.items() if value is not ...}


# Both modes. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:", "ce-", "ce_", "CE-"])
def test_binary_and_structured_mode_give_the_same_request(prefix):
    assert receive(binary(prefix=prefix), OPEN) == receive(structured(), OPEN)


def test_the_official_sdk_s_messages_are_read():
    event = CloudEvent({"type": "habeas.request.v1", "source": "urn:shop", "id": "m-9"}, BODY)
    request = receive(Delivery(to_json(event), NOW, "application/cloudevents+json"), OPEN)
    assert (request.message_id, request.right) == ("m-9", Right.ERASURE)


def test_data_in_base64_is_read():
    encoded = base64.b64encode(json.dumps(BODY).encode()).decode()
    event = {**ATTRIBUTES, "data_base64": encoded}
    assert receive(Delivery(json.dumps(event).encode(), NOW, "application/cloudevents+json"), OPEN).message_id == "m-1"


def test_every_field_arrives_normalised():
    full = body(
        right="rectification",
        subject={
            "identities": [
                {"type": "phone", "value": "0044 (0)1632 960-001"},
                {"type": "ip", "value": "::FFFF:10.0.0.1"},
                {"type": "custom:loyalty", "value": "X1"},
                {"type": "email", "value": "A" * 64, "format": "sha256"},
                {"type": "custom:loyalty", "value": " X1"},
            ]
        },
        regulation="ccpa",
        verification={"method": "login", "verified_at": "2026-11-22T12:00:00+01:00", "evidence": "session 1"},
        corrections={"user.name": "Ada Lovelace"},
        scope={"systems": ["crm"], "categories": ["user.contact"]},
        submitted_at="2026-11-21T23:00:00Z",
        locale="de-AT",
    )
    request = receive(replace(structured(full), reply_to="q1", correlation_id="c1"), OPEN)
    assert request.identities == (
        Identity("custom:loyalty", "X1"),
        Identity("email", "a" * 64, "sha256"),
        Identity("ip", "10.0.0.1"),
        Identity("phone", "+441632960001"),
    )
    assert request.verification is not None
    assert request.verification.verified_at == datetime(2026, 11, 22, 11, 0, tzinfo=UTC)
    assert request.verified
    assert request.regulation == "ccpa"
    assert (request.systems, request.categories) == (frozenset({"crm"}), frozenset({"user.contact"}))
    assert (request.reply_to, request.correlation_id, request.locale) == ("q1", "c1", "de-AT")
    assert read_facts(request.facts(), source="urn:shop", message_id="m-1", received_at=NOW).facts() == request.facts()


def test_the_source_s_regulation_stands_in_and_does_not_change_the_digest():
    request = receive(structured(), OPEN)
    other = receive(structured(), Sources([Source(source="urn:shop", unsigned="allowed", regulation="ccpa")]))
    assert (request.regulation, other.regulation) == ("gdpr", "ccpa")
    assert request.body_digest == other.body_digest


def test_verification_counts_only_from_a_source_trusted_with_it():
    told = body(verification={"method": "login", "verified_at": "2026-11-22T11:00:00Z"})
    assert receive(structured(told), OPEN).verified
    assert not receive(structured(told), Sources([Source(source="urn:shop", unsigned="allowed")])).verified
    assert not receive(structured(), OPEN).verified


# The digest. ---------------------------------------------------------------------------------------------------------


def test_the_same_facts_have_the_same_digest_whatever_their_spelling():
    two = [{"type": "email", "value": "ada@example.org"}, {"type": "user_id", "value": "7"}]
    first = receive(structured(body(subject={"identities": two})), OPEN)
    spaced = json.dumps({**ATTRIBUTES, "data": body(subject={"identities": [*reversed(two), two[0]]})}, indent=3)
    again = receive(Delivery(spaced.encode(), NOW + timedelta(days=1), "application/cloudevents+json"), OPEN)
    assert (
        first.body_digest == again.body_digest == receive(binary(body(subject={"identities": two})), OPEN).body_digest
    )


@given(
    st.dictionaries(st.sampled_from(["user.name", "user.contact", "a.b"]), st.text(max_size=20), min_size=1),
    st.text(min_size=1, max_size=20),
    st.lists(st.sampled_from(["crm", "shop", "mail"]), min_size=1),
)
def test_the_digest_is_of_canonical_json_whatever_is_asked(corrections, name, systems):
    asked = body(
        right="rectification",
        corrections=corrections,
        requested_by=name,
        scope={"systems": systems, "categories": ["user.name", "user.contact"]},
        verification={"method": "login", "verified_at": "2026-11-22T11:00:00Z", "evidence": "e", "verified_by": name},
        locale="de-AT",
        submitted_at="2026-11-22T10:00:00Z",
    )
    request = read_facts(asked, source="urn:shop", message_id="m-1", received_at=NOW)
    canonical = json.dumps(request.facts(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert request.body_digest == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"right": "access"}, {"regulation": "ccpa"}, {"scope": {"systems": ["crm"]}}])
def test_other_facts_have_another_digest(change):
    assert receive(structured(body(**change)), OPEN).body_digest != receive(structured(), OPEN).body_digest


# Refusals. -----------------------------------------------------------------------------------------------------------

PERSON = {"identities": [{"type": "email", "value": "ada@example.org"}]}
REFUSALS = [
    ("unknown_right", "right", body(right="oblivion")),
    ("malformed", "right", body(right=...)),
    ("missing_identity", "subject", body(subject=...)),
    ("missing_identity", "subject.identities", body(subject={})),
    ("missing_identity", "subject.identities", body(subject={"identities": []})),
    ("malformed", "subject.identities", body(subject={"identities": PERSON["identities"] * 51})),
    ("malformed", "subject.identities[0].type", body(subject={"identities": [{"type": "ssn", "value": "1"}]})),
    ("malformed", "subject.identities[0].value", body(subject={"identities": [{"type": "email", "value": "ada"}]})),
    ("malformed", "subject.identities[0].value", body(subject={"identities": [{"type": "phone", "value": "0170 1"}]})),
    ("malformed", "subject.identities[0].value", body(subject={"identities": [{"type": "ip", "value": "10.0.0.0/8"}]})),
    ("malformed", "subject.identities[0].value", body(subject={"identities": [{"type": "email", "value": "a@b.c", "format": "sha256"}]})),  # noqa: E501
    ("malformed", "subject.identities[0].value", body(subject={"identities": [{"type": "user_id", "value": 7}]})),
    ("malformed", "subject.identities[0].value", body(subject={"identities": [{"type": "ip", "value": "x" * 513}]})),
    ("malformed", "regulation", body(regulation="GDPR!")),
    ("malformed", "corrections", body(right="rectification")),
    ("malformed", "corrections", body(corrections={"user.name": "Ada"})),
    ("malformed", "purposes", body(purposes=["marketing"])),
    ("malformed", "submitted_at", body(submitted_at=1700000000)),
    ("malformed", "submitted_at", body(submitted_at="2026-11-22T12:00:00")),
    ("malformed", "submitted_at", body(submitted_at="0001-01-01T00:00:00+14:00")),
    ("malformed", "verification.verified_at", body(verification={"method": "login"})),
    ("malformed", "scope.systems", body(scope={"systems": []})),
    ("malformed", "<name>", body(rihgt="erasure")),
    ("malformed", "", []),
    ("malformed", "", None),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "field", "data"), REFUSALS)
def test_a_faulty_body_is_refused_naming_the_field(reason, field, data):
    error = refused(structured(data))
    assert error.reason == reason
    assert field in {fault.field for fault in error.faults}
    assert all(fault.text for fault in error.faults)
    assert error.source == "urn:shop"


def test_all_faults_of_a_body_are_told_at_once():
    error = refused(structured({"right": "oblivion", "subject": {}, "regulaton": "gdpr", "locale": "?"}))
    assert {fault.field for fault in error.faults} == {"right", "subject.identities", "<name>", "locale"}
    assert any("did you mean regulation?" in fault.text for fault in error.faults)


@pytest.mark.parametrize(
    ("reason", "delivery"),
    [
        ("malformed", Delivery(b"", NOW)),
        ("malformed", Delivery(b"{", NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b"[]", NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b"[]", NOW, "application/cloudevents-batch+json")),
        ("malformed", Delivery(b"\xff\xfe", NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b'{"id":"1","id":"2"}', NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b'{"id":NaN}', NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b'{"id":1e999}', NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b'{"id":' + b"9" * 5000 + b"}", NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b'{"id":"\\ud800"}', NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b'{"id":"\\u0000"}', NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b"[" * 100_000, NOW, "application/cloudevents+json")),
        ("malformed", Delivery(b'{"a":' * 50_000, NOW, "application/cloudevents+json")),
        ("too_large", Delivery(b" " * 10_000_000, NOW, "application/cloudevents+json")),
        ("malformed", structured(source="")),
        ("malformed", structured(subject="ada@example.org")),
        ("malformed", structured(id="ada@example.org")),
        ("malformed", structured(id=7)),
        ("malformed", structured(time="yesterday")),
        ("malformed", structured(time="2026-13-01T00:00:00Z")),
        ("malformed", structured(datacontenttype="application/xml")),
        ("malformed", replace(binary(), content_type="application/x-python-serialize")),
        ("unsupported_version", structured(specversion="0.3")),
        ("unsupported_version", structured(type="habeas.request.v2")),
        ("unknown_source", structured(source="urn:stranger")),
        ("malformed", replace(structured(), reply_to="ada@example.org")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_faulty_envelope_is_refused(reason, delivery):
    assert refused(delivery).reason == reason


def test_a_right_that_the_source_may_not_ask_for_is_refused():
    sources = Sources([Source(source="urn:shop", unsigned="allowed", rights=["access"])])
    error = refused(structured(), sources)
    assert (error.reason, error.field) == ("not_allowed", "right")


@pytest.mark.parametrize(("reason", "field", "data"), REFUSALS)
def test_a_refusal_tells_nothing_of_what_was_sent(reason, field, data):
    marked = json.loads(
        json.dumps(data).replace("ada", "zaphod").replace("oblivion", "zaphod").replace("GDPR!", "ZAPHOD")
    )
    error = refused(structured(marked))
    assert "zaphod" not in (str(error) + repr(error) + str(error.faults)).lower()


def test_a_sender_s_own_field_names_are_not_repeated():
    error = refused(structured(body(right="rectification", corrections={"Ada Lovelace": "x"}, zaphod=1)))
    assert "Ada" not in str(error.faults)
    assert "zaphod" not in str(error.faults)


def test_reprs_hold_no_personal_data():
    delivery = structured(body(right="rectification", corrections={"user.name": "Zaphod"}, requested_by="Zaphod"))
    text = repr(delivery) + repr(receive(delivery, OPEN))
    assert "Zaphod" not in text
    assert "xample.org" not in text.lower()


def test_claims_are_read_where_there_are_any_and_never_raise():
    assert claims(structured(id="x", source="urn:other")) == ("urn:other", "x")
    assert claims(binary(id="x")) == ("urn:shop", "x")
    assert claims(structured(id="ada@example.org")) == ("urn:shop", "")
    assert claims(Delivery(b"\x00", NOW)) == ("", "")


# Fuzz. ---------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(list(ATTRIBUTES)), inner, max_size=4),  # noqa: E501
    max_leaves=12,
)  # fmt: skip


def settled(delivery: Delivery) -> None:
    """Taken or refused; anything else fails the test."""
    with suppress(RefusedMessage):
        receive(delivery, OPEN)
    claims(delivery)


@given(st.binary(max_size=300), st.sampled_from(["", "application/json", "application/cloudevents+json", "\x00;/"]))
def test_no_bytes_raise_anything_but_a_refusal(data, content_type):
    settled(Delivery(data, NOW, content_type))
    settled(Delivery(data, NOW, content_type, {f"cloudEvents_{k}": v for k, v in ATTRIBUTES.items()}))


@settings(max_examples=200)
@given(JSON)
@example({"right": "erasure", "subject": {"identities": [{"type": "ip", "value": "fe80::1%eth0"}]}})
def test_no_json_raises_anything_but_a_refusal(data):
    text = json.dumps(data).encode()
    settled(Delivery(text, NOW, "application/cloudevents+json"))
    settled(Delivery(text, NOW, "", {f"ce-{k}": v for k, v in ATTRIBUTES.items()}))


@settings(max_examples=200)
@given(
    st.sampled_from(["right", "subject", "regulation", "verification", "corrections", "purposes", "scope", "locale"]),
    JSON,
)
def test_no_value_of_a_field_raises_anything_but_a_refusal(name, value):
    settled(
        Delivery(
            json.dumps({**ATTRIBUTES, "data": body(**{name: value})}).encode(), NOW, "application/cloudevents+json"
        )
    )


@given(st.dictionaries(st.text(), st.text() | st.binary() | st.integers() | st.none(), max_size=5))
def test_no_header_raises_anything_but_a_refusal(headers):
    settled(replace(binary(), headers={**binary().headers, **headers}))
    settled(replace(binary(), headers=headers))


@given(st.sampled_from(["email", "user_id", "phone", "ip", "device_id", "custom:x"]), st.text(max_size=40))
def test_normalising_twice_changes_nothing(kind, value):
    try:
        once = normalise(kind, value)
    except ValueError:
        return
    assert normalise(kind, once.value) == once


def test_a_hash_of_the_normal_form_is_what_an_upstream_service_would_send():
    digest = hashlib.sha256(b"ada@example.org").hexdigest().upper()
    hashed = body(subject={"identities": [{"type": "email", "value": digest, "format": "sha256"}]})
    assert receive(structured(hashed), OPEN).identities == (Identity("email", digest.lower(), "sha256"),)


def test_a_signed_message_in_either_mode_is_taken():
    sources = Sources([Source(source="urn:shop", secrets=[SECRET])])
    for delivery in (structured(), binary()):
        headers = {**delivery.headers, **sign(delivery.body, "m-1", NOW, [Secret(SECRET)])}
        assert receive(replace(delivery, headers=headers), sources).source == "urn:shop"
