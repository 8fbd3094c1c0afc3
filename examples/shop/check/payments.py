"""The check of the payment processor: its objects, read over its own HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from examples.shop.check.model import NOBODY, Finding
from examples.shop.payments import Answer, api
from examples.shop.people import Request

__all__ = ["Payments", "check", "read"]

SYSTEM = "payments"

ADDRESS: Mapping[str, str] = MappingProxyType(
    {
        "user.contact.address.street": "line1",
        "user.contact.address.postal_code": "postal_code",
        "user.contact.address.city": "city",
        "user.contact.address.country": "country",
    }
)
"""Data category → field of a customer's address."""

MONEY = ("amount", "amount_due", "amount_paid", "currency", "status", "created")
"""What tax law cares about in them."""
TAX_RECORDS = ("charges", "invoices")
"""What stays when a customer goes."""

MARKS: Mapping[str, Callable[[Request], Answer]] = MappingProxyType(
    {
        "restriction": lambda _: {"habeas_restricted": "true"},
        "objection": lambda request: {f"habeas_suppressed_{purpose}": "true" for purpose in request.purposes},
    }
)
"""Right → what it leaves in a customer's metadata."""


@dataclass(frozen=True, slots=True)
class Payments:
    """The account at one time."""

    customers: Mapping[str, Answer]
    """Customer id → customer."""
    cards: Mapping[str, Answer]
    """Payment method id → payment method."""
    records: Mapping[str, Mapping[str, Answer]]
    """One of ``TAX_RECORDS`` → id → object."""
    users: Mapping[str, str]
    """Customer id → user id."""


def read(url: str, known_cards: Iterable[str] = ()) -> Payments:
    """The account. A card is looked up by its id: that of a customer's default card, or one known before."""
    with api(url) as stripe:
        customers = {customer["id"]: customer for customer in stripe.all("customers")}
        defaults = (customer["invoice_settings"]["default_payment_method"] for customer in customers.values())
        ids = dict.fromkeys([*known_cards, *filter(None, defaults)])
        cards = {id_: card for id_ in ids if (card := stripe.get(f"/v1/payment_methods/{id_}"))}
        records = {kind: {item["id"]: item for item in stripe.all(kind)} for kind in TAX_RECORDS}
    users = {id_: customer["metadata"]["user_id"] for id_, customer in customers.items()}
    return Payments(customers, cards, records, users)


def check(before: Payments, url: str, requests: Sequence[Request]) -> Iterator[Finding]:
    """Everything at the processor that is not as the requests ask."""
    after = read(url, before.cards)
    by_person = {request.person.user_id: request for request in requests}
    for id_, customer in before.customers.items():
        person = before.users[id_]
        request = by_person.get(person)
        now = after.customers.get(id_)
        if request and request.right == "erasure":
            if now is not None:
                yield Finding(SYSTEM, person, "the customer is still there and should be gone")
        elif now is None:
            yield Finding(SYSTEM, person, "the customer is missing")
        elif not _as_asked(customer, now, request):
            yield Finding(SYSTEM, person, "the customer is not as asked, or was changed")
    yield from _cards(before, after, by_person)
    for kind in TAX_RECORDS:
        yield from _tax_records(before, after, kind, by_person)
    for id_ in after.customers.keys() - before.customers.keys():
        yield Finding(SYSTEM, after.users.get(id_, ""), "a customer is new")


def _as_asked(was: Answer, now: Answer, request: Request | None) -> bool:
    wanted = _plain(was)
    corrections = request.corrections if request else {}
    wanted["name"] = corrections.get("user.name", wanted["name"])
    wanted["email"] = corrections.get("user.contact.email", wanted["email"])
    wanted["address"] |= {field: corrections[key] for key, field in ADDRESS.items() if key in corrections}
    if request and request.right in MARKS:
        wanted["metadata"] |= MARKS[request.right](request)
    return _plain(now) == wanted


def _cards(before: Payments, after: Payments, by_person: Mapping[str, Request]) -> Iterator[Finding]:
    for id_, card in before.cards.items():
        person = before.users.get(card["customer"], NOBODY)
        request = by_person.get(person)
        now = after.cards.get(id_)
        if request and request.right == "erasure":
            # A processor keeps a detached card's record; what matters is that nobody can be charged with it.
            if now and now["customer"] in after.customers:
                yield Finding(SYSTEM, person, "a card is still attached and should be gone")
            elif now and any((now["billing_details"] or {}).values()):
                yield Finding(SYSTEM, person, "a detached card still names its holder")
        elif now != card:
            yield Finding(SYSTEM, person, "a card is missing or was changed")


def _tax_records(before: Payments, after: Payments, kind: str, by_person: Mapping[str, Request]) -> Iterator[Finding]:
    for id_, item in before.records[kind].items():
        now = after.records[kind].get(id_)
        person = before.users.get(item["customer"], NOBODY)
        request = by_person.get(person)
        if now is None:
            yield Finding(SYSTEM, person, f"one of the {kind} is missing, and tax law wants it kept")
        elif request and request.right == "erasure":
            if any(
                now[field] != item[field] for field in ("amount_due", "amount", "currency", "status") if field in item
            ):
                yield Finding(SYSTEM, person, f"one of the {kind} was changed, and tax law wants it kept")
        elif now != item:
            yield Finding(SYSTEM, person, f"one of the {kind} was changed")


def _plain(customer: Answer) -> Answer:
    """A customer as it can be compared: an address line that is empty and one that is missing are the same."""
    address = {field: value for field, value in (customer["address"] or {}).items() if value}
    return {**customer, "address": address, "metadata": dict(customer["metadata"])}
