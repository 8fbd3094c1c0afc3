"""Settings of the Stripe connector."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import stripe
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PositiveFloat, SecretStr, model_validator

from connectors.contract import ConnectorConfig

__all__ = ["Collection", "InvoiceRetention", "StripeConfig"]

Collection = Literal[
    "payment_methods",
    "payment_intents",
    "charges",
    "refunds",
    "disputes",
    "invoices",
    "credit_notes",
    "subscriptions",
    "tax_ids",
]
"""Kinds of objects that hang on a customer."""
PREVIEW_VERSION: Final = stripe.api_version.partition(".")[0] + ".preview"
"""The preview release that goes with the SDK's API version, e.g. ``2026-10-28.preview``."""


class InvoiceRetention(BaseModel):
    """How long invoices, and the payments that belong to them, have to be kept, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    years: Annotated[int, Field(ge=1, le=100)] = 10
    reason: str = "invoices and the payments behind them are tax records"
    legal_basis: str = "GDPR Art. 17(3)(b): legal obligation"


class StripeConfig(ConnectorConfig):
    """One Stripe account."""

    api_key: SecretStr
    """A secret or restricted key (``sk_…``, ``rk_…``) that may read and write customers and what hangs on them."""
    api_base: HttpUrl = HttpUrl("https://api.stripe.com")
    api_version: str | None = None
    """``Stripe-Version``; ``None``: the one that the installed SDK was made for."""
    erasure: Literal["delete_customer", "redaction_job"] = "delete_customer"
    """How to erase: delete the customer, or redact it and all that hangs on it (Stripe's public preview)."""
    retain_invoices: InvoiceRetention | None = InvoiceRetention()
    """``None``, with ``redaction_job`` only: nothing is kept."""
    validation_behavior: Literal["error", "fix"] = "error"
    """Redaction: stop at objects that cannot be redacted yet, or let Stripe bring them to an end where it can."""
    preview_version: str = PREVIEW_VERSION
    """``Stripe-Version`` of calls to the redaction preview."""
    poll_seconds: Annotated[int, Field(ge=1)] = 300
    """How often a running redaction is looked at."""
    collections: frozenset[Collection] = frozenset(get_args(Collection))
    """What access hands out besides the customers; all by default."""
    payment_method_types: tuple[str, ...] = ()
    """List payment methods type by type, e.g. ``[card, sepa_debit]``; empty: all types in one list."""
    pause_collection: Literal["keep_as_draft", "mark_uncollectible", "void"] | None = "keep_as_draft"
    """Restriction: what becomes of the invoices of subscriptions meanwhile; ``None``: leave subscriptions alone."""
    timeout_seconds: PositiveFloat = 30
    """For one answer of Stripe's."""
    requests_per_second: PositiveFloat = 20
    """At most so many calls a second from one process: a sandbox allows 25, a live account 100."""

    @model_validator(mode="after")
    def _deleting_keeps_invoices(self) -> StripeConfig:
        if self.retain_invoices is None and self.erasure == "delete_customer":
            raise ValueError(
                "`retain_invoices: null` needs `erasure: redaction_job`: "
                "Stripe keeps the invoices and charges of a customer that is only deleted"
            )
        return self
