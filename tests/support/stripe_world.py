"""People in a Stripe account, made and looked at through Stripe's own SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import stripe

from connectors.contract import Action, Connector, Identity, Result, Task
from connectors.payments.stripe import Stripe, StripeConfig
from tests.support.localstripe_server import API_KEY

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class Collected:
    """A call at ``NOW``; what access tasks write lies in ``records``."""

    now: datetime = NOW
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def sink(self, task: Task) -> Collected:
        return self

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        self.records.setdefault(collection, []).append(dict(record))

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        raise AssertionError("Stripe writes records one by one")

    def attach(self, name: str, chunks: object) -> None:
        raise AssertionError("Stripe has no files to attach")


def connector_at(url: str, **settings: Any) -> Stripe:
    """A connector for localstripe: its restrictions are settings, see ``localstripe_server``."""
    return Stripe(
        "payments",
        StripeConfig.model_validate(
            {
                "api_key": API_KEY,
                "api_base": url,
                "payment_method_types": ["card"],
                "pause_collection": None,
                "collections": ["payment_methods", "charges", "refunds", "invoices", "subscriptions", "tax_ids"],
                "requests_per_second": 2000,
                **settings,
            }
        ),
    )


def task(action: Action, *identities: Identity, **changes: Any) -> Task:
    """A task with a key of its own."""
    return replace(Task(f"r1/{action}", action, identities), **changes)


def perform(connector: Connector[Any], asked: Task, call: Collected | None = None) -> Result:
    """One task through the door that the engine uses."""
    ((_, result),) = connector.perform(asked.action, [asked], call or Collected())
    return result


class Account:
    """A Stripe account with a few people in it."""

    def __init__(self, url: str) -> None:
        """``url``: where the API is."""
        self.v1 = stripe.StripeClient(API_KEY, base_addresses={"api": url}).v1

    def person(self, email: str, name: str = "Ada Lovelace", **details: Any) -> str:
        """A customer who can be found by e-mail; returns the customer's id."""
        params: Any = {"email": email, "name": name, "metadata": {"shop": "1"}, **details}
        return self.v1.customers.create(params).id

    def card(self, customer: str, number: str = "4242424242424242", name: str = "Ada Lovelace") -> str:
        """A card attached to a customer; returns the payment method's id."""
        params: Any = {
            "type": "card",
            "card": {"number": number, "exp_month": 4, "exp_year": 2031, "cvc": "123"},
            "billing_details": {"name": name, "email": "card-holder@x.example"},
        }
        method = self.v1.payment_methods.create(params)
        self.v1.payment_methods.attach(method.id, {"customer": customer})
        return method.id

    def payment(self, customer: str, method: str, amount: int = 1200) -> str:
        """A payment that went through; returns the charge's id."""
        intent = self.v1.payment_intents.create(
            {"amount": amount, "currency": "eur", "customer": customer, "payment_method": method, "confirm": True}
        )
        charge = intent.latest_charge
        return charge if isinstance(charge, str) else str(charge and charge.id)

    def subscription(self, customer: str, method: str) -> tuple[str, str]:
        """A running subscription, whose first invoice is paid; returns the ids of both."""
        self.v1.customers.update(customer, {"invoice_settings": {"default_payment_method": method}})
        product = self.v1.products.create({"name": "Club"})
        plan = self.v1.plans.create({"amount": 900, "currency": "eur", "interval": "month", "product": product.id})
        items: Any = [{"plan": plan.id}]
        made = self.v1.subscriptions.create({"customer": customer, "items": items})
        return made.id, str(made.latest_invoice)

    def customer(self, customer: str) -> dict[str, Any] | None:
        """A customer as the server has it; ``None`` when it is gone."""
        try:
            found = self.v1.customers.retrieve(customer).to_dict()
        except stripe.InvalidRequestError:
            return None
        return None if found.get("deleted") else found

    def picture(self, customer: str) -> Mapping[str, Any] | None:
        """Everything that hangs on a customer, for comparing."""
        found = self.customer(customer)
        if found is None:
            return None
        return {"customer": found, **{kind: list(items) for kind, items in self._hanging(customer)}}

    def _hanging(self, customer: str) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
        v1 = self.v1
        lists: dict[str, Any] = {
            "payment_methods": v1.payment_methods.list({"customer": customer, "type": "card"}),
            "charges": v1.charges.list({"customer": customer}),
            "invoices": v1.invoices.list({"customer": customer}),
            "subscriptions": v1.subscriptions.list({"customer": customer, "status": "all"}),
        }
        for kind, listed in lists.items():
            yield kind, (item.to_dict() for item in listed.auto_paging_iter())
