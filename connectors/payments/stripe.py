"""Stripe: customers, and what they paid with and for.

Written against API version 2026-10-28 with the official SDK. A person is found by customer id and by e-mail; every
customer with the address is theirs. Payments made as a guest belong to no customer and are not found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from connectors.contract import (
    MOST_PARALLEL,
    Action,
    Call,
    Connector,
    Done,
    Fatal,
    Identity,
    Outcome,
    Result,
    Sink,
    Task,
)
from connectors.payments.stripe_config import InvoiceRetention, StripeConfig
from connectors.payments.stripe_erasure import Erasure
from connectors.payments.stripe_gateway import ENDED, Gateway, Record, idempotency_key, live, translated
from connectors.payments.stripe_records import (
    ADDRESS,
    CATEGORIES,
    COLLECTIONS,
    FIELDS,
    changes_for,
    customer_record,
    differs,
    record,
)

__all__ = ["InvoiceRetention", "Stripe", "StripeConfig"]

RESTRICTED: Final = "habeas_restricted"
"""Metadata key that marks a customer whose processing is restricted."""
SUPPRESSED: Final = "habeas_suppressed_"
"""Start of the metadata keys that mark a purpose objected to; with ``all`` for every purpose."""
METADATA_KEY: Final = 40  # characters; Stripe's limit


class Stripe(Connector[StripeConfig]):
    """One Stripe account."""

    Config = StripeConfig
    parallel = 8
    batch = 100

    def __init__(self, system: str, config: StripeConfig) -> None:
        """Does no I/O."""
        super().__init__(system, config)
        # Connections are opened as they are needed; how many tasks run at once is for the system's settings to say.
        self._gateway = Gateway(config, threads=MOST_PARALLEL)
        self._erasure = Erasure(self._gateway, config)

    def categories(self) -> frozenset[str]:
        """Names and contact details, payment methods, payments and purchases."""
        return CATEGORIES

    def identified_by(self) -> frozenset[str]:
        """Customer id and e-mail."""
        return frozenset({"stripe_customer_id", "email"})

    def discovers(self) -> frozenset[str]:
        """The ids of customers found by e-mail, and the e-mail of customers found by id."""
        return frozenset({"stripe_customer_id", "email"})

    def close(self) -> None:
        """Close the connections."""
        self._gateway.close()

    # Looking. ------------------------------------------------------------------------------------------------------

    def discover(self, task: Task, call: Call) -> Result:  # noqa: ARG002 (the contract's signature)
        """The person's customer ids and addresses."""
        if (refusal := _cannot_look(task)) is not None:
            return refusal
        customers = self._gateway.customers(task)
        if not customers:
            return Done(Outcome.NO_MATCH)
        found = dict.fromkeys(Identity("stripe_customer_id", c["id"]) for c in customers)
        found |= dict.fromkeys(Identity("email", c["email"]) for c in customers if c.get("email"))
        return Done(Outcome.EXECUTED, counts={"customers": len(customers)}, found=tuple(found))

    def access(self, task: Task, call: Call) -> Result:
        """The person's customers, and what hangs on them."""
        if (refusal := _cannot_look(task)) is not None:
            return refusal
        customers = self._gateway.customers(task)
        if not customers:
            return Done(Outcome.NO_MATCH)
        sink = call.sink(task)
        counts: Counter[str] = Counter()
        for customer in customers:
            sink.write("customers", customer_record(customer, task))
            counts["customers"] += 1
            self._gather(customer["id"], task, sink, counts)
        return Done(Outcome.EXECUTED, counts=dict(counts))

    def _gather(self, customer_id: str, task: Task, sink: Sink, counts: Counter[str]) -> None:
        lists: Mapping[str, Iterator[Record]] = {
            "payment_methods": self._gateway.payment_methods(customer_id),
            "payment_intents": self._gateway.payment_intents(customer_id),
            "charges": self._gateway.charges(customer_id),
            "invoices": self._gateway.invoices(customer_id),
            "subscriptions": self._gateway.subscriptions(customer_id),
            "tax_ids": self._gateway.tax_ids(customer_id),
        }

        def put(collection: str, items: Iterator[Record]) -> None:
            if collection not in self.config.collections or not task.covers(COLLECTIONS[collection]):
                return
            for item in items:
                sink.write(collection, record(collection, item))
                counts[collection] += 1
                # What hangs on a charge or an invoice is asked for only where Stripe says that there is some.
                if collection == "charges" and item.get("amount_refunded"):
                    put("refunds", self._gateway.refunds(item["id"]))
                if collection == "charges" and item.get("disputed"):
                    put("disputes", self._gateway.disputes(item["id"]))
                if item.get("pre_payment_credit_notes_amount") or item.get("post_payment_credit_notes_amount"):
                    put("credit_notes", self._gateway.credit_notes(item["id"]))

        for collection, items in lists.items():
            put(collection, items)

    # Changing. -----------------------------------------------------------------------------------------------------

    def rectify(self, task: Task, call: Call) -> Result:  # noqa: ARG002 (the contract's signature)
        """Write name, e-mail, phone and address; corrections of other categories are not Stripe's."""
        if (refusal := _cannot_look(task)) is not None:
            return refusal
        customers = live(self._gateway.customers(task))
        if not customers:
            return Done(Outcome.NO_MATCH)
        if not task.corrections.keys() & {*FIELDS, *ADDRESS}:
            return Done(Outcome.UNSUPPORTED, note="Stripe's customers have none of the fields to correct")
        for customer in customers:
            self._gateway.update_customer(customer["id"], changes_for(task.corrections, customer), task, "rectify")
        return Done(Outcome.EXECUTED, counts={"customers": len(customers)})

    def restrict(self, task: Task, call: Call) -> Result:  # noqa: ARG002 (the contract's signature)
        """Mark the customers and stop collecting payments for their subscriptions."""
        if (refusal := _cannot_look(task)) is not None:
            return refusal
        customers = live(self._gateway.customers(task))
        if not customers:
            return Done(Outcome.NO_MATCH)
        counts: Counter[str] = Counter()
        for customer in customers:
            self._gateway.update_customer(customer["id"], {"metadata": {RESTRICTED: "true"}}, task, "restrict")
            counts["customers"] += 1
            for subscription in self._running(customer["id"]):
                with translated("pausing a subscription"):
                    self._gateway.v1.subscriptions.update(
                        subscription["id"],
                        {"pause_collection": {"behavior": self.config.pause_collection or "keep_as_draft"}},
                        {"idempotency_key": idempotency_key(task, "pause", subscription["id"])},
                    )
                counts["subscriptions"] += 1
        return Done(Outcome.EXECUTED, counts=dict(counts))

    def suppress(self, task: Task, call: Call) -> Result:  # noqa: ARG002 (the contract's signature)
        """Mark the customers with each purpose objected to, for whatever sends or scores by Stripe's data."""
        if (refusal := _cannot_look(task)) is not None:
            return refusal
        flags = _purpose_flags(task.purposes)
        customers = live(self._gateway.customers(task))
        if not customers:
            return Done(Outcome.NO_MATCH)
        for customer in customers:
            self._gateway.update_customer(customer["id"], {"metadata": flags}, task, "suppress")
        return Done(Outcome.EXECUTED, counts={"customers": len(customers)})

    def _running(self, customer_id: str) -> list[Record]:
        """The subscriptions to pause: none, if the settings say so."""
        if self.config.pause_collection is None:
            return []
        return [s for s in self._gateway.subscriptions(customer_id) if s.get("status") not in ENDED]

    def erase(self, task: Task, call: Call) -> Result:
        """Detach what the person pays with, and delete or redact their customers."""
        if task.handle is None and (refusal := _cannot_look(task)) is not None:
            return refusal
        return self._erasure.erase(task, call.now)

    # Verifying. ----------------------------------------------------------------------------------------------------

    def verify(self, task: Task, call: Call) -> Result:  # noqa: ARG002 (the contract's signature)
        """Look whether ``options["of"]`` (erase, by default) holds.

        Raises ``Fatal`` where it does not.
        """
        if (refusal := _cannot_look(task)) is not None:
            return refusal
        of = task.options.get("of", Action.ERASE)
        if of not in {Action.ERASE, Action.RECTIFY, Action.RESTRICT, Action.SUPPRESS}:
            return Done(
                Outcome.UNSUPPORTED, note="only erase, rectify, restrict and suppress leave something to verify"
            )
        customers = self._gateway.customers(task)
        if of != Action.ERASE and not live(customers):
            return Done(Outcome.NO_MATCH)
        wrong = sum(not self._holds(Action(of), task, customer) for customer in customers)
        if wrong:
            return Fatal(f"{of} does not hold for {wrong} of {len(customers)} Stripe customers: run the step again")
        return Done(Outcome.VERIFIED, counts={"customers": len(customers)} if customers else {})

    def _holds(self, of: Action, task: Task, customer: Record) -> bool:
        metadata = customer.get("metadata") or {}
        if of == Action.ERASE:
            return self._erasure.holds(task, customer)
        if customer.get("deleted"):
            return True
        if of == Action.RECTIFY:
            return not differs(changes_for(task.corrections, customer), customer)
        if of == Action.SUPPRESS:
            return all(metadata.get(flag) == text for flag, text in _purpose_flags(task.purposes).items())
        paused = all(s.get("pause_collection") for s in self._running(customer["id"]))
        return metadata.get(RESTRICTED) == "true" and paused


def _cannot_look(task: Task) -> Done | None:
    """Stripe compares plain values only; saying “no match” to a hash would claim that somebody had looked."""
    if task.values("stripe_customer_id") or task.values("email"):
        return None
    return Done(Outcome.UNSUPPORTED, note="Stripe finds a person by an unhashed e-mail or stripe_customer_id only")


def _purpose_flags(purposes: frozenset[str]) -> dict[str, str]:
    flags = {f"{SUPPRESSED}{purpose}": "true" for purpose in sorted(purposes or {"all"})}
    if any(len(flag) > METADATA_KEY or "[" in flag or "]" in flag for flag in flags):
        room = METADATA_KEY - len(SUPPRESSED)
        raise Fatal(f"a purpose cannot be flagged in Stripe: name purposes with at most {room} characters, no brackets")
    return flags
