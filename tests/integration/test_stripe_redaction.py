"""Erasure by Stripe's redaction jobs, against a fake that follows the preview's documentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from connectors.contract import Action, Done, Fatal, Identity, Outcome, Pending, Result, Retryable, Task
from connectors.payments.stripe import Stripe, StripeConfig
from tests.support.stripe_fake import StripeFake, running_stripe_fake
from tests.support.stripe_world import NOW, Collected, perform, task

ADA = Identity("email", "ada@x.example")


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


def later(asked: Task, result: Result) -> Task:
    """The task as the engine hands it back: the handle has been through JSON."""
    assert isinstance(result, Pending), result
    return replace(asked, handle=json.loads(json.dumps(dict(result.handle))))


def test_a_redaction_is_made_validated_run_and_followed_to_its_end(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    connector = configured(erasure="redaction_job", poll_seconds=600)
    customer = account.customer("ada@x.example")
    by_id = Identity("stripe_customer_id", customer)
    erasure = task(Action.ERASE, ADA)

    started = perform(connector, erasure)
    assert isinstance(started, Pending)
    assert started.waiting_on == "Stripe to validate the redaction"
    assert customer not in json.dumps(dict(started.handle))
    assert isinstance(perform(connector, later(erasure, started)), Pending)
    account.validated()
    running = perform(connector, later(erasure, started))
    assert isinstance(running, Pending)
    assert (running.waiting_on, running.poll_after) == ("Stripe to redact", timedelta(minutes=10))
    assert isinstance(perform(connector, task(Action.VERIFY, by_id)), Fatal)
    account.redacted()
    ended = done(perform(connector, later(erasure, running)))

    assert (ended.outcome, ended.counts) == (Outcome.EXECUTED, {"customers": 1})
    assert ended.evidence == {"redaction_jobs": list(account.jobs)}
    assert done(perform(connector, task(Action.VERIFY, by_id))).outcome is Outcome.VERIFIED


def test_the_same_redaction_asked_for_twice_is_one_job(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    account.customer("ada@x.example")
    connector = configured(erasure="redaction_job")

    first = perform(connector, task(Action.ERASE, ADA))
    again = perform(connector, task(Action.ERASE, ADA, attempt=2))

    assert len(account.jobs) == 1
    assert isinstance(first, Pending)
    assert isinstance(again, Pending)
    assert first.handle == again.handle


def test_a_person_with_many_customers_gets_jobs_of_ten(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    for _ in range(23):
        account.customer("ada@x.example")

    perform(configured(erasure="redaction_job"), task(Action.ERASE, ADA))

    assert sorted(len(j["objects"]["customers"]) for j in account.jobs.values()) == [3, 10, 10]


def test_one_person_who_cannot_be_redacted_holds_up_nobody_else(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    connector = configured(erasure="redaction_job")
    ada, bob = account.customer("ada@x.example"), account.customer("bob@x.example")
    account.problems[ada] = [{"id": "prjve_1", "code": "invalid_state", "erroring_object": {"object_type": "charge"}}]
    tasks = [
        replace(task(Action.ERASE, ADA), key="a"),
        replace(task(Action.ERASE, Identity("email", "bob@x.example")), key="b"),
    ]
    parked = [later(t, r) for t, r in connector.perform(Action.ERASE, tasks, Collected())]
    account.validated()

    results = {t.key: r for t, r in connector.perform(Action.ERASE, parked, Collected())}

    assert isinstance(results["a"], Fatal)
    assert "invalid_state (charge)" in str(results["a"])
    assert isinstance(results["b"], Pending)
    account.redacted()
    assert account.things[bob]["email"] == "[redacted]"
    assert account.things[ada]["email"] == "ada@x.example"


def test_a_redaction_that_failed_validates_again_when_it_is_retried_later(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    connector = configured(erasure="redaction_job")
    ada = account.customer("ada@x.example")
    account.problems[ada] = [{"id": "prjve_1", "code": "invalid_state"}]
    erasure = task(Action.ERASE, ADA)
    parked = later(erasure, perform(connector, erasure))
    account.validated()
    assert isinstance(perform(connector, parked), Fatal)

    account.problems.clear()
    after = Collected(now=NOW + timedelta(hours=1))
    again = perform(connector, parked, after)
    account.validated()

    assert isinstance(perform(connector, later(erasure, again), after), Pending)
    assert [j["status"] for j in account.jobs.values()] == ["redacting"]


def test_tax_records_are_not_redacted_before_their_time(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    connector = configured(erasure="redaction_job")
    recent, old = account.customer("ada@x.example"), account.customer("ada@x.example")
    account.add("invoice", "in", customer=recent, status="paid")
    account.add("invoice", "in", customer=old, status="paid", created=1_300_000_000)
    erasure = task(Action.ERASE, ADA)
    parked = later(erasure, perform(connector, erasure))
    account.validated()
    parked = later(erasure, perform(connector, parked))
    account.redacted()

    result = done(perform(connector, parked))

    assert (result.outcome, result.counts) == (Outcome.RETAINED, {"customers": 2})
    assert [(r.what, r.records, r.until) for r in result.retained] == [("invoices", 1, date(2036, 5, 28))]
    assert account.things[recent]["deleted"]
    assert account.things[old]["email"] == "[redacted]"


def test_everything_is_redacted_where_nothing_is_to_be_kept(
    account: StripeFake, configured: Callable[..., Stripe]
) -> None:
    customer = account.customer("ada@x.example")
    account.add("invoice", "in", customer=customer, status="paid")

    perform(configured(erasure="redaction_job", retain_invoices=None), task(Action.ERASE, ADA))

    assert [j["objects"]["customers"] for j in account.jobs.values()] == [[customer]]


def test_an_account_without_the_preview_is_told_so(account: StripeFake, configured: Callable[..., Stripe]) -> None:
    account.customer("ada@x.example")
    account.preview = False

    result = perform(configured(erasure="redaction_job"), task(Action.ERASE, ADA))

    assert isinstance(result, Fatal)
    assert "delete_customer" in str(result)


@pytest.mark.parametrize(("status", "kind"), [("canceled", Fatal), ("canceling", Fatal), ("never_seen", Retryable)])
def test_a_job_that_ends_otherwise_is_not_called_done(
    account: StripeFake, configured: Callable[..., Stripe], status: str, kind: type[Exception]
) -> None:
    account.customer("ada@x.example")
    connector = configured(erasure="redaction_job")
    erasure = task(Action.ERASE, ADA)
    parked = later(erasure, perform(connector, erasure))
    for job in account.jobs.values():
        job["status"] = status

    assert type(perform(connector, parked)) is kind
