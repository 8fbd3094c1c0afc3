"""What of Stripe's objects is a person's data: the fields handed out, and the fields that can be written.

Objects are copied field by field, so that a field Stripe adds tomorrow is not handed out by accident; of a card never
more than its brand, last four digits and expiry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

from connectors.contract import Task

__all__ = [
    "ADDRESS",
    "CATEGORIES",
    "COLLECTIONS",
    "FIELDS",
    "changes_for",
    "customer_record",
    "day_of",
    "differs",
    "record",
]

ADDRESS: Final[Mapping[str, str]] = {
    "user.contact.address.street": "line1",
    "user.contact.address.city": "city",
    "user.contact.address.state": "state",
    "user.contact.address.postal_code": "postal_code",
    "user.contact.address.country": "country",
}
"""Data category → field of a customer's address."""
FIELDS: Final[Mapping[str, str]] = {
    "user.name": "name",
    "user.contact.email": "email",
    "user.contact.phone_number": "phone",
}
"""Data category → field of a customer."""
PAYMENT_METHODS: Final = "user.financial.credit_card"
BANK_ACCOUNTS: Final = "user.financial.bank_account"
PAYMENTS: Final = "user.payment"
PURCHASES: Final = "user.behavior.purchase_history"
CATEGORIES: Final = frozenset(
    {*FIELDS, *ADDRESS, PAYMENT_METHODS, BANK_ACCOUNTS, PAYMENTS, PURCHASES, "user.unique_id"}
)
"""The Fides data categories that a Stripe account holds."""
COLLECTIONS: Final[Mapping[str, str]] = {
    "payment_methods": PAYMENT_METHODS,
    "charges": PAYMENTS,
    "payment_intents": PAYMENTS,
    "refunds": PAYMENTS,
    "disputes": PAYMENTS,
    "invoices": PURCHASES,
    "credit_notes": PURCHASES,
    "subscriptions": PURCHASES,
    "tax_ids": PURCHASES,
}
"""Collection of an access package → the data category it belongs to."""

_COMMON: Final = ("id", "created", "description", "metadata", "status")
_MONEY: Final = (*_COMMON, "amount", "currency", "receipt_email", "statement_descriptor", "shipping")
_PLAIN: Final[Mapping[str, tuple[str, ...]]] = {
    "charges": (*_MONEY, "amount_refunded", "billing_details", "failure_message", "invoice", "paid", "refunded"),
    "payment_intents": (*_MONEY, "amount_received", "canceled_at", "latest_charge"),
    "refunds": (*_COMMON, "amount", "currency", "charge", "reason"),
    "disputes": (*_COMMON, "amount", "currency", "charge", "reason"),
    "invoices": (
        *_COMMON,
        "number",
        "currency",
        "subtotal",
        "total",
        "amount_due",
        "amount_paid",
        "customer_name",
        "customer_email",
        "customer_phone",
        "customer_address",
        "customer_shipping",
        "customer_tax_ids",
        "due_date",
        "period_start",
        "period_end",
    ),
    "credit_notes": (*_COMMON, "number", "currency", "total", "invoice", "memo", "reason"),
    "subscriptions": (*_COMMON, "currency", "start_date", "cancel_at", "canceled_at", "ended_at", "trial_end"),
    "tax_ids": (*_COMMON, "type", "value", "country"),
    "payment_methods": ("id", "created", "type", "billing_details", "metadata"),
}
_CUSTOMER: Final = (
    "id",
    "created",
    "deleted",
    "description",
    "metadata",
    "preferred_locales",
    "shipping",
    "balance",
    "currency",
)
_CARD: Final = ("brand", "last4", "exp_month", "exp_year")
_TIMES: Final = frozenset(
    {
        "created",
        "canceled_at",
        "cancel_at",
        "due_date",
        "ended_at",
        "period_end",
        "period_start",
        "start_date",
        "trial_end",
    }
)


def customer_record(customer: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """A customer, with the name and contact fields that are in the task's scope."""
    record_ = _copied(customer, _CUSTOMER)
    for category, field in FIELDS.items():
        if task.covers(category) and customer.get(field):
            record_[field] = customer[field]
    address = customer.get("address") or {}
    in_scope = [field for category, field in ADDRESS.items() if task.covers(category)]
    if "line1" in in_scope:
        in_scope.append("line2")
    if any(address.get(field) for field in in_scope):
        record_["address"] = {field: address[field] for field in in_scope if address.get(field)}
    return record_


def record(collection: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """One object of a collection, as it is handed to the person."""
    copied = _copied(item, _PLAIN[collection])
    if collection == "payment_methods":
        card = item.get("card")
        if item.get("object") == "card":  # a card of the older Sources API, listed among payment methods
            card = item
        copied |= _card(card)
        if item.get("sepa_debit"):
            copied["last4"] = item["sepa_debit"].get("last4")
    elif collection == "charges":
        copied |= _card((item.get("payment_method_details") or {}).get("card"))
    elif collection == "invoices":
        copied["lines"] = [
            _copied(line, ("description", "amount", "currency", "quantity"))
            for line in (item.get("lines") or {}).get("data", ())
        ]
    return copied


def changes_for(values: Mapping[str, str], customer: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a customer update that write values (data category → text) over its fields.

    Stripe takes an address as a whole, so the fields of the present one that stay are sent along.
    """
    changes: dict[str, Any] = {field: values[category] for category, field in FIELDS.items() if category in values}
    parts = {field: values[category] for category, field in ADDRESS.items() if category in values}
    if parts:
        present = {k: v for k, v in (customer.get("address") or {}).items() if v}
        changes["address"] = {**present, **parts}
        if parts.get("line1") is not None:
            changes["address"]["line2"] = ""  # a second line belongs to the street it stood with
        if not any(changes["address"].values()):
            changes["address"] = ""  # Stripe's way of taking an address away
    return changes


def differs(changes: Mapping[str, Any], customer: Mapping[str, Any]) -> bool:
    """Whether a customer does not have the values that an update would have written."""
    for field, wanted in changes.items():
        held = customer.get(field)
        if isinstance(wanted, Mapping):
            if any(((held or {}).get(part) or "") != text for part, text in wanted.items()):
                return True
        elif (held or "") != wanted:
            return True
    return False


def day_of(items: Iterable[Mapping[str, Any]]) -> date | None:
    """The latest day on which one of some objects was created; ``None`` if there is none."""
    moments = [item.get("created") or item.get("date") for item in items]
    known = [moment for moment in moments if moment]
    return datetime.fromtimestamp(max(known), UTC).date() if known else None


def _copied(item: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The named fields that have something in them; times as ISO 8601."""
    copied = {field: item[field] for field in fields if item.get(field) not in (None, "", {}, [])}
    for field in _TIMES & copied.keys():
        if isinstance(copied[field], int):
            copied[field] = datetime.fromtimestamp(copied[field], UTC).isoformat()
    if isinstance(copied.get("latest_charge"), Mapping):
        copied["latest_charge"] = copied["latest_charge"].get("id")
    return copied


def _card(card: Mapping[str, Any] | None) -> dict[str, Any]:
    return {field: card[field] for field in _CARD if card.get(field)} if card else {}
