"""The Stripe connector against a fake that follows Stripe's documentation where localstripe does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.contract import (
    Action,
    Done,
    Fatal,
    Identity,
    Outcome,
    RateLimited,
    Result,
    Retryable,
    Unauthorised,
)
from connectors.payments.stripe import Stripe, StripeConfig
from tests.support.http_fake import Answer, Asked
from tests.support.stripe_fake import StripeFake, refusal, running_stripe_fake
from tests.support.stripe_world import Collected, perform, task

ADA = Identity("email", "ada@x.example")
EVERYTHING = [Action.DISCOVER, Action.ACCESS, Action.ERASE, Action.RESTRICT, Action.SUPPRESS, Action.VERIFY]


@pytest.fixture
def account() -> Iterator[StripeFake]:
    with running_stripe_fake() as fake:
        yield fake


@pytest.fixture
def configured(account: StripeFake) -> Iterator[Callable[..., Stripe]]:
    made: list[Stripe] = []

    def build(**settings: Any) -> Stripe:
        config = {"api_key": "sk_test_habeas", "api_base": account.url, "requests_per_second": 2000, **settings}
        made.append(Stripe("payments", StripeConfig.model_validate(config)))
        return made[-1]

    yield build
    for connector in made:
        connector.close()


def done(result: Result) -> Done:
    assert isinstance(result, Done), result
    return result


# Erasure by deleting. --------------------------------------------------------------------------------------------


def test_all_payment_methods_are_listed_at_once_unless_types_are_named(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    method = account.add("payment_method", "pm", type="sepa_debit", customer=customer, billing_details={"name": "Ada"})

    done(perform(configured(), task(Action.ERASE, ADA)))

    assert account.things[method]["customer"] is None
    assert account.things[method]["billing_details"] == {"name": None, "email": None, "phone": None, "address": None}
    (listed, *_) = account.asked("GET", "/v1/payment_methods")
    assert "type" not in listed.query


def test_a_deleted_customer_is_verified_by_looking_at_it(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    by_id = Identity("stripe_customer_id", customer)

    assert isinstance(perform(configured(), task(Action.VERIFY, by_id)), Fatal)
    assert done(perform(configured(), task(Action.ERASE, ADA))).outcome is Outcome.EXECUTED
    assert account.things[customer] == {"id": customer, "object": "customer", "deleted": True}
    assert done(perform(configured(), task(Action.VERIFY, by_id))).outcome is Outcome.VERIFIED


def test_a_repeated_attempt_reports_what_the_lost_one_did(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    by_id = Identity("stripe_customer_id", account.customer("ada@x.example"))
    erasure = task(Action.ERASE, by_id)
    perform(configured(), erasure)

    assert done(perform(configured(), replace(erasure, attempt=2))).outcome is Outcome.EXECUTED
    assert done(perform(configured(), replace(erasure, key="r2/1"))).outcome is Outcome.NO_MATCH


def test_the_latest_invoice_or_charge_says_how_long_they_stay(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    leap_day = 1_709_164_800  # 29 February 2024
    account.add("invoice", "in", customer=customer, status="paid", created=leap_day)
    account.add("invoice", "in", customer=customer, status="open", created=leap_day - 10**7)
    draft = account.add("invoice", "in", customer=customer, status="draft")
    account.add("invoice", "in", customer=customer, status="void", created=leap_day - 10**6)

    law = {"years": 7, "reason": "tax records", "legal_basis": "§ 147 AO"}
    result = done(perform(configured(retain_invoices=law), task(Action.ERASE, ADA)))

    assert result.outcome is Outcome.RETAINED
    (kept,) = result.retained
    assert (kept.what, kept.records, kept.until) == ("invoices", 3, date(2031, 2, 28))
    assert (kept.reason, kept.legal_basis) == ("tax records", "§ 147 AO")
    assert draft not in account.things


def test_what_stripe_keeps_beyond_its_time_is_reported_without_a_legal_basis(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    account.add("charge", "ch", customer=customer, created=1_300_000_000)

    (kept,) = done(perform(configured(), task(Action.ERASE, ADA))).retained

    assert (kept.until, kept.legal_basis) == (None, "")
    assert "redaction job" in kept.reason


def test_deleting_cannot_be_configured_to_keep_nothing() -> None:
    with pytest.raises(ValidationError, match="redaction_job"):
        StripeConfig.model_validate({"api_key": "sk_test_x", "retain_invoices": None})


def test_the_key_is_never_shown() -> None:
    assert "sk_live_secret" not in repr(StripeConfig.model_validate({"api_key": "sk_live_secret"}))


# Access and restriction. -----------------------------------------------------------------------------------------


def test_disputes_credit_notes_and_payment_intents_are_handed_out(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    charge = account.add(
        "charge",
        "ch",
        customer=customer,
        amount=5,
        disputed=True,
        payment_method_details={
            "card": {"brand": "visa", "last4": "4242", "exp_month": 4, "exp_year": 2031, "fingerprint": "f00d"}
        },
    )
    account.add("dispute", "dp", charge=charge, reason="fraudulent")
    account.add("dispute", "dp", charge="ch_other", reason="duplicate")
    account.add("payment_intent", "pi", customer=customer, client_secret="pi_secret", latest_charge=charge)
    invoice = account.add("invoice", "in", customer=customer, post_payment_credit_notes_amount=5)
    account.add("credit_note", "cn", invoice=invoice, total=5)

    call = Collected()
    result = done(perform(configured(), task(Action.ACCESS, ADA), call))

    assert result.counts == {
        "customers": 1,
        "payment_intents": 1,
        "charges": 1,
        "disputes": 1,
        "invoices": 1,
        "credit_notes": 1,
    }
    assert call.records["disputes"][0]["reason"] == "fraudulent"
    assert call.records["charges"][0]["last4"] == "4242"
    written = json.dumps(call.records)
    assert "f00d" not in written
    assert "pi_secret" not in written


def test_restriction_pauses_running_subscriptions_and_verify_sees_it(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    running = account.add("subscription", "sub", customer=customer, status="active")
    over = account.add("subscription", "sub", customer=customer, status="canceled")
    verify = task(Action.VERIFY, ADA, options={"of": "restrict"})

    assert isinstance(perform(configured(), verify), Fatal)
    assert done(perform(configured(), task(Action.RESTRICT, ADA))).counts == {"customers": 1, "subscriptions": 1}

    assert account.things[running]["pause_collection"] == {"behavior": "keep_as_draft"}
    assert "pause_collection" not in account.things[over]
    assert done(perform(configured(), verify)).outcome is Outcome.VERIFIED


def test_a_purpose_that_stripe_cannot_flag_is_refused(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    account.customer("ada@x.example")
    long = task(Action.SUPPRESS, ADA, purposes=frozenset({"x" * 30}))

    assert isinstance(perform(configured(), long), Fatal)
    assert not account.asked("POST", "/v1/customers/cus_1")


# What goes wrong. ------------------------------------------------------------------------------------------------

FAILURES = [
    (refusal(401, None, "Invalid API key for ada@x.example"), Unauthorised),
    (refusal(403, None, "ada@x.example may not"), Unauthorised),
    (refusal(429, "rate_limit", "slow down, ada@x.example"), RateLimited),
    (refusal(500, None, "ada@x.example broke it", kind="api_error"), Retryable),
    (Answer(503, b"<html>ada@x.example</html>"), Retryable),
    (refusal(409, None, "ada@x.example is busy"), Retryable),
    (refusal(400, "email_invalid", "Invalid email address: ada@x.example", param="email"), Fatal),
    (refusal(402, "card_declined", "ada@x.example has no money", kind="card_error"), Fatal),
    (Answer(200, b"ada@x.example, but no JSON"), Fatal),
]


@pytest.mark.parametrize("action", EVERYTHING)
@pytest.mark.parametrize(("answer", "kind"), FAILURES)
def test_each_failure_says_what_to_do_and_nothing_about_the_person(
    account: StripeFake,
    configured: Callable[..., Stripe],
    action: Action,
    answer: Answer,
    kind: type[Exception],
) -> None:
    account.failures = [lambda _: answer]

    result = perform(configured(), task(action, ADA))

    assert type(result) is kind
    assert "ada" not in f"{result} {result!r} {result.__cause__!r}".lower().replace("payments", "")


def test_the_wait_that_stripe_asks_for_is_passed_on(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    slow = refusal(429, "rate_limit", "slow down")
    account.failures = [lambda _: replace(slow, headers={"Retry-After": "17"})]

    result = perform(configured(), task(Action.ERASE, ADA))

    assert isinstance(result, RateLimited)
    assert result.after == timedelta(seconds=17)


def test_a_server_that_never_answers_is_retried_later(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    account.failures = [lambda _: Answer(hang=True)]

    assert type(perform(configured(timeout_seconds=0.2), task(Action.ERASE, ADA))) is Retryable


def test_a_server_that_is_not_there_is_retried_later(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    assert type(perform(configured(api_base="http://127.0.0.1:9"), task(Action.ERASE, ADA))) is Retryable


def test_a_request_is_sent_once_and_the_retry_is_the_engines(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    account.failures = [lambda _: refusal(500, None, "broken", kind="api_error")]
    perform(configured(), task(Action.DISCOVER, ADA))

    assert len(account.asked("GET", "/v1/customers")) == 1


def test_an_erasure_that_broke_in_the_middle_is_completed_by_the_next_attempt(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    methods = [account.add("payment_method", "pm", type="card", customer=customer) for _ in range(3)]
    erasure = task(Action.ERASE, ADA)
    detached = f"/v1/payment_methods/{methods[1]}/detach"

    def break_at_the_second(asked: Asked) -> Answer | None:
        return refusal(500, None, "broken", kind="api_error") if asked.path == detached else None

    account.failures = [break_at_the_second] * 12
    assert type(perform(configured(), erasure)) is Retryable
    account.failures = []

    assert done(perform(configured(), replace(erasure, attempt=2))).outcome is Outcome.EXECUTED
    assert {account.things[m]["customer"] for m in methods} == {None}
    assert account.things[customer]["deleted"]


def test_an_erasure_that_meets_another_of_the_same_person_succeeds(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    method = account.add("payment_method", "pm", type="card", customer=customer)

    def somebody_was_faster(asked: Asked) -> Answer | None:
        if asked.path.endswith("/detach"):
            account.things[method]["customer"] = None
            account.things[customer] = {"id": customer, "object": "customer", "deleted": True}
        return None

    account.failures = [somebody_was_faster] * 12

    assert done(perform(configured(), task(Action.ERASE, ADA))).outcome is Outcome.EXECUTED
