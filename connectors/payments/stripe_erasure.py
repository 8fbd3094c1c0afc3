"""Erasing Stripe customers: what is deleted, what is blanked, what has to stay, and whether it held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

import stripe

from connectors.contract import Done, Outcome, Result, Retention, Task
from connectors.payments.stripe_config import StripeConfig
from connectors.payments.stripe_gateway import (
    ENDED,
    Gateway,
    Record,
    idempotency_key,
    live,
    missing_is_fine,
    translated,
)
from connectors.payments.stripe_records import (
    ADDRESS,
    CATEGORIES,
    FIELDS,
    PAYMENT_METHODS,
    changes_for,
    day_of,
    differs,
)
from connectors.payments.stripe_redaction import Redactions

if TYPE_CHECKING:
    from stripe.params import PaymentMethodUpdateParamsBillingDetails

__all__ = ["Erasure"]

BLANK: Final[PaymentMethodUpdateParamsBillingDetails] = {"name": "", "email": "", "phone": "", "address": ""}
"""Billing details, taken away."""


class Erasure:
    """Erases one account's customers."""

    def __init__(self, gateway: Gateway, config: StripeConfig) -> None:
        """Does no I/O."""
        self._gateway = gateway
        self._config = config
        self._redactions = Redactions(gateway, config)

    def erase(self, task: Task, now: datetime) -> Result:
        """Detach what the person pays with, and delete or redact their customers; or follow a redaction under way."""
        if task.handle is not None and "jobs" in task.handle:
            return self._redactions.follow(task.handle, now)
        customers = self._gateway.customers(task)
        if not customers:
            return Done(Outcome.NO_MATCH)
        if not all(task.covers(category) for category in CATEGORIES):
            return self._erase_in_scope(task, live(customers))
        counts: Counter[str] = Counter()
        retained: list[Retention] = []
        redact: list[str] = []
        for customer in customers:
            kept = self._kept(customer["id"], now.date())
            retained += kept
            redacts = self._config.erasure == "redaction_job" and not kept
            if customer.get("deleted") or (redacts and _says_redacted(customer)):
                continue
            counts["customers"] += 1
            if redacts:
                redact.append(customer["id"])
            else:
                self._delete(customer["id"], task, counts)
        retained = _summed(retained)
        if redact:
            return self._redactions.start(task, redact, now, counts, retained)
        if retained:
            return Done(Outcome.RETAINED, counts=dict(counts), retained=tuple(retained))
        # Only customers gone before. On a repeated attempt that was us, and the answer was lost; else it was earlier.
        repeated = task.attempt > 1
        return Done(Outcome.EXECUTED if counts or repeated else Outcome.NO_MATCH, counts=dict(counts))

    def _delete(self, customer_id: str, task: Task, counts: Counter[str]) -> None:
        """Every call here may be repeated, and may meet another that does the same: what is gone already is fine."""
        v1 = self._gateway.v1
        # Lists are read to their end before anything is deleted: a page cannot start after what is gone.
        for subscription in list(self._gateway.subscriptions(customer_id)):
            if subscription.get("status") not in ENDED:
                with translated("cancelling a subscription"), missing_is_fine():
                    v1.subscriptions.cancel(subscription["id"])
                    counts["subscriptions"] += 1
        for invoice in list(self._gateway.invoices(customer_id)):
            if _one_off_draft(invoice):
                with translated("deleting a draft invoice"), missing_is_fine():
                    v1.invoices.delete(invoice["id"])
                    counts["draft_invoices"] += 1
        self._detach(customer_id, task, counts)
        with translated("deleting a customer"), missing_is_fine():
            # No idempotency key: Stripe takes them on POST alone; a second DELETE finds nothing to do.
            v1.customers.delete(customer_id)

    def _detach(self, customer_id: str, task: Task, counts: Counter[str]) -> None:
        """A detached payment method stays as an object, so its billing details are blanked while they can be."""
        v1 = self._gateway.v1
        for method in list(self._gateway.payment_methods(customer_id)):
            with translated("detaching a payment method"):
                try:
                    if any((method.get("billing_details") or {}).values()):
                        key = idempotency_key(task, "blank", method["id"])
                        v1.payment_methods.update(method["id"], {"billing_details": BLANK}, {"idempotency_key": key})
                    key = idempotency_key(task, "detach", method["id"])
                    v1.payment_methods.detach(method["id"], {}, {"idempotency_key": key})
                except stripe.InvalidRequestError:
                    if v1.payment_methods.retrieve(method["id"]).customer is not None:
                        raise  # refused for another reason than that it is detached by now
            counts["payment_methods"] += 1

    def _erase_in_scope(self, task: Task, customers: Sequence[Record]) -> Result:
        """Blank the fields in scope and detach payment methods, where the request names categories."""
        blanks = {category: "" for category in (*FIELDS, *ADDRESS) if task.covers(category)}
        detaches = task.covers(PAYMENT_METHODS)
        if not blanks and not detaches:
            return Done(Outcome.UNSUPPORTED, note="Stripe cannot erase these categories and keep the customer")
        if not customers:
            return Done(Outcome.NO_MATCH)
        counts: Counter[str] = Counter()
        for customer in customers:
            if detaches:
                self._detach(customer["id"], task, counts)
            if blanks:
                self._gateway.update_customer(customer["id"], changes_for(blanks, customer), task, "blank")
            counts["customers"] += 1
        return Done(Outcome.EXECUTED, counts=dict(counts))

    def _kept(self, customer_id: str, today: date) -> list[Retention]:
        """What stays of a customer that is deleted: finalised invoices, and charges."""
        law = self._config.retain_invoices
        if law is None:
            return []
        invoices = [i for i in self._gateway.invoices(customer_id) if i.get("status") != "draft"]
        charges = list(self._gateway.charges(customer_id))
        last = day_of([*invoices, *charges])
        if last is None:
            return []
        until = _years_after(last, law.years)
        if until < today and self._config.erasure == "redaction_job":
            return []
        over = until < today
        reason = "its time is over, and Stripe cannot delete it: use a redaction job" if over else law.reason
        return [
            Retention(what, reason, "" if over else law.legal_basis, len(items), None if over else until)
            for what, items in (("invoices", invoices), ("charges", charges))
            if items
        ]

    def holds(self, task: Task, customer: Record) -> bool:
        """Whether a customer is erased, as far as the task's scope goes."""
        if task.covers(PAYMENT_METHODS) and next(self._gateway.payment_methods(customer["id"]), None) is not None:
            return False
        if customer.get("deleted"):
            return True
        fields = [*FIELDS, *ADDRESS]
        if all(task.covers(category) for category in CATEGORIES):
            return self._config.erasure == "redaction_job" and _is_redacted(customer)
        return not differs(changes_for({c: "" for c in fields if task.covers(c)}, customer), customer)


def _one_off_draft(invoice: Record) -> bool:
    """Stripe deletes drafts that belong to no subscription; the others end with their subscription."""
    parent = invoice.get("parent") or {}
    return (
        invoice.get("status") == "draft" and not invoice.get("subscription") and not parent.get("subscription_details")
    )


def _texts(customer: Record) -> list[str]:
    fields = [customer.get(field) for field in ("name", "email", "phone", "description")]
    return [str(text) for text in (*fields, *(customer.get("address") or {}).values()) if text]


def _says_redacted(customer: Record) -> bool:
    """Redacted fields read ``[redacted]`` or alike."""
    return any("redacted" in text.lower() for text in _texts(customer))


def _is_redacted(customer: Record) -> bool:
    """Whether every field that a customer has reads so."""
    return all("redacted" in text.lower() for text in _texts(customer))


def _years_after(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return day.replace(year=day.year + years, day=28)


def _summed(retained: Sequence[Retention]) -> list[Retention]:
    """One entry a kind and reason, over all of a person's customers."""
    groups: dict[tuple[str, str, str], list[Retention]] = {}
    for entry in retained:
        groups.setdefault((entry.what, entry.reason, entry.legal_basis), []).append(entry)
    return [
        Retention(
            what,
            reason,
            basis,
            sum(e.records for e in entries),
            max((e.until for e in entries if e.until), default=None),
        )
        for (what, reason, basis), entries in groups.items()
    ]
