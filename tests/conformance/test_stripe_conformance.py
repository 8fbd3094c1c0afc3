"""The Stripe connector keeps the contract's laws, on localstripe and on a fake of the redaction preview."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from connectors.conformance import ConnectorConformance, World
from connectors.contract import Identity, Pending, Task
from connectors.payments.stripe import Stripe, StripeConfig
from tests.support.localstripe_server import running_localstripe, wipe
from tests.support.stripe_fake import running_stripe_fake
from tests.support.stripe_world import Account, connector_at

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


def identities(email: str, customer: str) -> tuple[Identity, ...]:
    return Identity("email", email), Identity("stripe_customer_id", customer)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_localstripe() as url:
        yield url


class TestStripeConformance(ConnectorConformance):
    actions = Stripe.actions()

    @pytest.fixture
    def world(self, server: str) -> Iterator[World]:
        account = Account(server)
        customers = {}
        for label, email in (("person", "ada@x.example"), ("other", "bob@x.example"), ("third", "eve@x.example")):
            customers[label] = account.person(email, name=label.title())
            card = account.card(customers[label], name=label.title())
            account.payment(customers[label], card)
            account.subscription(customers[label], card)
        yield World(
            connector=connector_at(server),
            person=identities("ada@x.example", customers["person"]),
            other=identities("bob@x.example", customers["other"]),
            stranger=identities("nobody@x.example", "cus_nobody"),
            snapshot=lambda: {label: account.picture(customer) for label, customer in customers.items()},
            unreachable=connector_at(NOWHERE),
        )
        wipe(server)


class TestStripeRedactionConformance(ConnectorConformance):
    actions = Stripe.actions()

    @pytest.fixture
    def world(self) -> Iterator[World]:
        with running_stripe_fake() as account:

            def configured(url: str) -> Stripe:
                settings = {"api_key": "sk_test_x", "api_base": url, "requests_per_second": 2000}
                return Stripe("payments", StripeConfig.model_validate({**settings, "erasure": "redaction_job"}))

            def time_passes(task: Task, pending: Pending) -> None:
                account.validated()
                account.redacted()

            customers = {}
            for label, email in (("person", "ada@x.example"), ("other", "bob@x.example"), ("third", "eve@x.example")):
                customers[label] = account.customer(email)
                account.add("payment_method", "pm", type="card", customer=customers[label])
                account.add("subscription", "sub", customer=customers[label], status="active")

            def picture() -> Mapping[str, Any]:
                return {
                    label: [
                        copy.deepcopy(t) for t in account.things.values() if customer in (t["id"], t.get("customer"))
                    ]
                    for label, customer in customers.items()
                }

            yield World(
                connector=configured(account.url),
                person=identities("ada@x.example", customers["person"]),
                other=identities("bob@x.example", customers["other"]),
                stranger=identities("nobody@x.example", "cus_nobody"),
                snapshot=picture,
                unreachable=configured(NOWHERE),
                respond=time_passes,
            )
