"""Signatures hold for what was signed, by whom, and when; for nothing else."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook

from orchestrator.errors import ConfigurationError, RefusedMessage
from orchestrator.messages.envelope import Delivery, unpack
from orchestrator.messages.signing import HTTP_MAX_AGE, Secret, sign, verify
from orchestrator.messages.sources import Source, Sources, authenticate

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def new_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def new_pair() -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return "whsk_" + base64.b64encode(private).decode(), "whpk_" + base64.b64encode(public).decode()


ONE, TWO = new_secret(), new_secret()


def reason(call, *arguments) -> str:
    with pytest.raises(RefusedMessage) as caught:
        call(*arguments)
    return caught.value.reason.value


def test_the_reference_library_takes_our_signatures():
    headers = sign(b'{"a": 1}', "m-1", datetime.now(UTC), [Secret(ONE)])
    assert Webhook(ONE).verify(b'{"a": 1}', headers) == {"a": 1}


def test_we_take_the_reference_library_s_signatures():
    now = datetime.now(UTC).replace(microsecond=0)
    headers = {
        "webhook-id": "m-1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(ONE).sign("m-1", now, "{}"),
    }
    assert verify(b"{}", headers, [Secret(TWO), Secret(ONE)], now) == now


def test_an_ed25519_signature_is_verified_with_the_public_key_alone():
    private, public = new_pair()
    headers = sign(b"x", "m-1", NOW, [Secret(private)])
    assert headers["webhook-signature"].startswith("v1a,")
    assert verify(b"x", headers, [Secret(public)], NOW) == NOW
    assert reason(verify, b"x", headers, [Secret(new_pair()[1])], NOW) == "bad_signature"
    with pytest.raises(ConfigurationError):
        Secret(public).sign(b"x")


def test_any_signature_by_any_secret_of_the_source_is_enough_while_secrets_are_rotated():
    both = sign(b"x", "m-1", NOW, [Secret(ONE), Secret(TWO)])
    assert verify(b"x", both, [Secret(TWO)], NOW) == NOW
    assert verify(b"x", sign(b"x", "m-1", NOW, [Secret(ONE)]), [Secret(TWO), Secret(ONE)], NOW) == NOW


@given(st.binary(max_size=50), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_body_does_not_verify(body, position, flip):
    headers = sign(body, "m-1", NOW, [Secret(ONE)])
    changed = bytearray(body or b"\0")
    changed[position % len(changed)] ^= flip
    assert reason(verify, bytes(changed), headers, [Secret(ONE)], NOW) == "bad_signature"


@pytest.mark.parametrize("change", [
    {"webhook-id": "m-2"}, {"webhook-timestamp": "1"}, {"webhook-signature": "v1,AAAA"},
    {"webhook-signature": "v2,AAAA"},
    {"webhook-signature": ""}, {"webhook-timestamp": "-1"}, {"webhook-timestamp": "1e9"}, {"webhook-timestamp": "٣"},
    {"webhook-signature": "v1,é"}, {"webhook-timestamp": "9" * 400},
])  # fmt: skip
def test_a_changed_header_does_not_verify(change):
    assert (
        reason(verify, b"x", {**sign(b"x", "m-1", NOW, [Secret(ONE)]), **change}, [Secret(ONE)], NOW) == "bad_signature"
    )


@given(st.text(), st.text(), st.text())
def test_no_header_raises_anything_but_a_refusal(first, second, third):
    headers = {"webhook-id": first, "webhook-timestamp": second, "webhook-signature": third}
    assert reason(verify, b"x", headers, [Secret(ONE)], NOW) == "bad_signature"


def test_a_signature_too_old_or_from_the_future_is_stale():
    headers = sign(b"x", "m-1", NOW, [Secret(ONE)])
    late = NOW + HTTP_MAX_AGE + timedelta(seconds=1)
    assert reason(verify, b"x", headers, [Secret(ONE)], late) == "stale"
    assert verify(b"x", headers, [Secret(ONE)], late, timedelta(days=7)) == NOW
    assert reason(verify, b"x", headers, [Secret(ONE)], NOW - timedelta(minutes=6)) == "stale"


@pytest.mark.parametrize("text", ["", "whsec_AAAA", "hunter2", "whpk_AAAA", "whsec_!!!", "whsk_" + "A" * 44])
def test_an_unusable_secret_is_refused_without_showing_it(text):
    with pytest.raises(ConfigurationError) as caught:
        Secret(text)
    assert not text or text not in str(caught.value)


def test_a_secret_does_not_show_itself():
    source = Source(source="urn:a", secrets=[ONE])
    assert ONE[8:] not in repr(Secret(ONE)) + repr(source) + repr(Sources([source])) + source.model_dump_json()


# Sources. ------------------------------------------------------------------------------------------------------------


def message(source="urn:a", identifier="m-1", mode="binary", secret=ONE, signed_id=None, at=NOW) -> Delivery:
    attributes = {"specversion": "1.0", "id": identifier, "source": source, "type": "habeas.request.v1"}
    if mode == "binary":
        delivery = Delivery(b"{}", NOW, "application/json", {f"cloudEvents_{k}": v for k, v in attributes.items()})
    else:
        delivery = Delivery(json.dumps({**attributes, "data": {}}).encode(), NOW, "application/cloudevents+json")
    signed = sign(delivery.body, signed_id or identifier, at, [Secret(secret)]) if secret else {}
    return replace(delivery, headers={**delivery.headers, **signed})


def check(delivery: Delivery, *sources: Source) -> Source:
    return authenticate(delivery, unpack(delivery), Sources(sources))


A, B = Source(source="urn:a", secrets=[ONE]), Source(source="urn:b", secrets=[TWO])


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_source_is_who_its_secret_says(mode):
    assert check(message(mode=mode), A, B) is A
    assert reason(check, message(mode=mode, source="urn:b"), A, B) == "bad_signature"
    assert reason(check, message(mode=mode, source="urn:c"), A, B) == "unknown_source"
    assert reason(check, message(mode=mode, secret=""), A, B) == "bad_signature"


def test_in_binary_mode_no_other_id_can_be_put_on_a_signed_body():
    assert reason(check, message(identifier="m-2", signed_id="m-1"), A) == "bad_signature"


def test_a_source_s_max_age_covers_the_time_in_the_queue():
    old = message(at=NOW - timedelta(days=3))
    assert check(old, A) is A
    assert reason(check, old, Source(source="urn:a", secrets=[ONE], max_age="2d")) == "stale"


def test_unsigned_is_refused_unless_the_source_says_otherwise_and_a_signature_that_is_there_must_hold():
    loose = Source(source="urn:a", secrets=[ONE], unsigned="allowed")
    assert check(message(secret=""), loose) is loose
    assert reason(check, message(secret=TWO), loose) == "bad_signature"


def test_two_sources_may_not_share_a_secret_or_a_name():
    with pytest.raises(ConfigurationError, match="shares a secret"):
        Sources([A, Source(source="urn:c", secrets=[ONE])])
    with pytest.raises(ConfigurationError, match="listed twice"):
        Sources([A, A])


@pytest.mark.parametrize("entry", [
    {"source": "urn:a"}, {"source": "urn:a", "secrets": ["x"]}, {"source": "a@b.example", "unsigned": "allowed"},
    {"source": "urn:a", "unsigned": "allowed", "rights": ["oblivion"]},
    {"source": "urn:a", "secrets": [ONE], "typo": 1},
    {"source": "urn:a", "secrets": [ONE], "max_age": "0s"}, {"source": "urn:a", "secrets": [ONE], "max_age": "soon"},
])  # fmt: skip
def test_a_source_that_makes_no_sense_is_refused(entry):
    with pytest.raises(ValidationError) as caught:
        Source.model_validate(entry)
    assert ONE not in str(caught.value)
