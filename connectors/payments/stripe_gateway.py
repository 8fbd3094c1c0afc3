"""Calls to Stripe: one paced client per connector, and every SDK error said in the contract's words.

The SDK's own retries are off: the engine retries, where waiting holds no worker. Stripe's error messages quote what was
sent (addresses, names), so none is ever passed on: only the kind, the code and the parameter's name.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import stripe
from requests.adapters import HTTPAdapter

from connectors.contract import ConnectorError, Fatal, RateLimited, Retryable, Task, Unauthorised
from connectors.payments.stripe_config import StripeConfig

__all__ = ["ENDED", "Gateway", "Record", "idempotency_key", "live", "missing_is_fine", "translated"]

CONNECT_TIMEOUT: Final = 5.0  # seconds
PAGE: Final = 100  # objects; Stripe's largest page
NOT_FOUND: Final = 404
CONFLICT: Final = 409
SERVER_ERROR: Final = 500
ENDED: Final = frozenset({"canceled", "incomplete_expired"})
"""Statuses of subscriptions that are over."""
NO_PREVIEW: Final = (
    "this Stripe account has no redaction preview: ask Stripe to enable it, or set `erasure: delete_customer`"
)
_WORD: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")

Record = Mapping[str, Any]
"""A Stripe object as the JSON it came in."""


class Pace:
    """Hands out moments to call at, evenly, to any number of threads."""

    def __init__(self, per_second: float) -> None:
        """``per_second``: calls allowed."""
        self._gap = 1 / per_second
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next call may be made."""
        with self._lock:
            now = time.monotonic()
            at = max(self._next, now)
            self._next = at + self._gap
        if at > now:
            time.sleep(at - now)


class PacedAdapter(HTTPAdapter):
    """A pool of connections on which every request waits its turn."""

    def __init__(self, pace: Pace, threads: int) -> None:
        """``threads``: how many may send at once."""
        super().__init__(pool_maxsize=threads, pool_block=True)
        self._pace = pace

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send one request."""
        self._pace.wait()
        return super().send(*args, **kwargs)


class Gateway:
    """One account's API."""

    def __init__(self, config: StripeConfig, threads: int) -> None:
        """Opens nothing yet. ``threads``: how many call at once, each on its own connection."""
        self._session = requests.Session()
        self._session.mount(str(config.api_base), PacedAdapter(Pace(config.requests_per_second), threads))
        # The session is shared by threads; without cookies it keeps no state that they could race for.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._client = stripe.StripeClient(
            config.api_key.get_secret_value(),
            stripe_version=config.api_version,
            base_addresses={"api": str(config.api_base).rstrip("/")},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=(CONNECT_TIMEOUT, config.timeout_seconds), session=self._session),
        )
        self._preview_version = config.preview_version
        self._types: tuple[str | None, ...] = config.payment_method_types or (None,)

    @property
    def v1(self) -> stripe.V1Services:
        """The SDK's services; call them inside ``translated`` only."""
        return self._client.v1

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._session.close()

    # Finding. ------------------------------------------------------------------------------------------------------

    def customers(self, task: Task) -> list[Record]:
        """Every customer that a task's person is, deleted ones (``deleted: true``) included, without repeats.

        By id, and by e-mail: Stripe compares addresses with their case, so the lower-case form is asked for too.
        """
        found: dict[str, Record] = {}
        for customer_id in task.values("stripe_customer_id"):
            customer = self.customer(customer_id)
            if customer is not None:
                found[customer["id"]] = customer
        emails = (spelling for email in task.values("email") for spelling in (email, email.lower()))
        for email in dict.fromkeys(e for e in emails if e):
            with translated("looking for customers by e-mail"):
                listed = self.v1.customers.list({"email": email, "limit": PAGE})
                for customer_object in listed.auto_paging_iter():
                    found.setdefault(customer_object.id, customer_object.to_dict())
        return list(found.values())

    def customer(self, customer_id: str) -> Record | None:
        """One customer by id; ``None`` if Stripe does not know it."""
        if not customer_id.strip("./ "):
            return None  # such a path would name another resource
        with translated("looking up a customer"), missing_is_fine():
            return self.v1.customers.retrieve(customer_id).to_dict()
        return None

    def update_customer(self, customer_id: str, changes: Mapping[str, Any], task: Task, what: str) -> None:
        """Write fields of a customer; ``what`` tells a task's several updates apart."""
        with translated("updating a customer"):
            self.v1.customers.update(
                customer_id,
                dict(changes),  # type: ignore[arg-type]  # the SDK's TypedDict, built from a table
                {"idempotency_key": idempotency_key(task, what, customer_id)},
            )

    # What hangs on a customer. --------------------------------------------------------------------------------------

    def payment_methods(self, customer_id: str) -> Iterator[Record]:
        """The payment methods attached to a customer."""
        for kind in self._types:
            params: dict[str, Any] = {"customer": customer_id, "limit": PAGE, **({"type": kind} if kind else {})}
            yield from self._all("payment_methods", params)

    def charges(self, customer_id: str) -> Iterator[Record]:
        """A customer's charges."""
        return self._all("charges", {"customer": customer_id, "limit": PAGE})

    def payment_intents(self, customer_id: str) -> Iterator[Record]:
        """A customer's payment intents."""
        return self._all("payment_intents", {"customer": customer_id, "limit": PAGE})

    def invoices(self, customer_id: str) -> Iterator[Record]:
        """A customer's invoices, drafts included."""
        return self._all("invoices", {"customer": customer_id, "limit": PAGE})

    def subscriptions(self, customer_id: str, status: str = "all") -> Iterator[Record]:
        """A customer's subscriptions, ended ones included unless ``status`` says otherwise."""
        return self._all("subscriptions", {"customer": customer_id, "limit": PAGE, "status": status})

    def refunds(self, charge_id: str) -> Iterator[Record]:
        """A charge's refunds."""
        return self._all("refunds", {"charge": charge_id, "limit": PAGE})

    def disputes(self, charge_id: str) -> Iterator[Record]:
        """A charge's disputes."""
        return self._all("disputes", {"charge": charge_id, "limit": PAGE})

    def credit_notes(self, invoice_id: str) -> Iterator[Record]:
        """An invoice's credit notes."""
        return self._all("credit_notes", {"invoice": invoice_id, "limit": PAGE})

    def tax_ids(self, customer_id: str) -> Iterator[Record]:
        """A customer's tax ids (Stripe allows five, so one page holds them)."""
        with translated("listing tax ids"), missing_is_fine():
            listed = self.v1.customers.tax_ids.list(customer_id)
            yield from (tax_id.to_dict() for tax_id in listed.auto_paging_iter())

    def _all(self, kind: str, params: Mapping[str, Any]) -> Iterator[Record]:
        """Page through a list. What hung on a customer that is no longer known is no longer there."""
        with translated(f"listing {kind.replace('_', ' ')}"), missing_is_fine():
            for item in getattr(self.v1, kind).list(params).auto_paging_iter():
                yield item.to_dict()

    # The redaction preview, which the SDK does not know. -------------------------------------------------------------

    def redaction(self, method: str, path: str = "", key: str | None = None, **params: Any) -> dict[str, Any]:
        """Call ``/v1/privacy/redaction_jobs``; ``key``: the idempotency key of a POST."""
        options: dict[str, Any] = {"stripe_version": self._preview_version}
        if key:
            options["idempotency_key"] = key
        with translated("calling the redaction preview"):
            try:
                response = self._client.raw_request(method, f"/v1/privacy/redaction_jobs{path}", **options, **params)
            except stripe.InvalidRequestError as error:
                if error.http_status == NOT_FOUND and error.code is None:  # “Unrecognized request URL”
                    raise Fatal(NO_PREVIEW) from None
                raise
            return dict(response.data)


def live(customers: Sequence[Record]) -> list[Record]:
    """The customers that are not deleted."""
    return [customer for customer in customers if not customer.get("deleted")]


def idempotency_key(task: Task, what: str, object_id: str) -> str:
    """An idempotency key for a call that is harmless to repeat.

    It holds within one attempt only: Stripe replays the first answer for a day, an error with status 500 included.
    """
    return f"{task.key}:{task.attempt}:{what}:{object_id}"


def is_missing(error: stripe.StripeError) -> bool:
    """Whether Stripe says that an object does not exist."""
    return error.code == "resource_missing" or error.http_status == NOT_FOUND


@contextmanager
def missing_is_fine() -> Iterator[None]:
    """Go on when Stripe says that an object does not exist."""
    try:
        yield
    except stripe.InvalidRequestError as error:
        if not is_missing(error):
            raise


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Say the SDK's errors in the contract's words; ``doing`` completes “while …”."""
    try:
        yield
    except stripe.StripeError as error:
        # From None: Stripe's own text quotes personal data, and must not reach a log through the chain.
        raise _said(error, doing) from None


def _said(error: stripe.StripeError, doing: str) -> ConnectorError:
    after = _retry_after(error)
    status = error.http_status or 0
    if isinstance(error, stripe.AuthenticationError):
        return Unauthorised(f"Stripe refused the key while {doing}: put a valid one into `api_key`")
    if isinstance(error, stripe.PermissionError):
        return Unauthorised(f"Stripe's key lacks a permission for {doing}: grant it to the key in `api_key`")
    if isinstance(error, stripe.RateLimitError):
        return RateLimited(f"Stripe asked for fewer calls while {doing}: lower `requests_per_second`", after=after)
    if isinstance(error, stripe.APIConnectionError):
        return Retryable(f"Stripe at `api_base` could not be reached in time while {doing}")
    if status >= SERVER_ERROR or status == CONFLICT:
        return Retryable(f"Stripe answered with status {status} while {doing}", after=after)
    if isinstance(error, stripe.InvalidRequestError):
        code, param = _word(error.code), _word(error.param)
        return Fatal(f"Stripe refused the request while {doing}: code {code}, parameter {param}, status {status}")
    return Fatal(f"Stripe's answer made no sense while {doing}: {type(error).__name__}, status {status}")


def _word(text: object) -> str:
    """A code or parameter name, if that is what it looks like; never a sentence."""
    return text if isinstance(text, str) and _WORD.fullmatch(text) else "none"


def _retry_after(error: stripe.StripeError) -> timedelta | None:
    value = {k.lower(): v for k, v in (error.headers or {}).items()}.get("retry-after", "")
    return timedelta(seconds=int(value)) if value.isdigit() else None
