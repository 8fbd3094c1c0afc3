"""Start localstripe, the stateful fake of Stripe's API, as a process of its own.

The demo shop's payment server is one, and knows how to make it quick. Where localstripe differs from Stripe:

* a deleted customer is unknown (404), where Stripe answers ``deleted: true``, and its invoices cannot be listed;
* payment methods can only be listed with ``type=card`` (the connector's ``payment_method_types: [card]``);
* payment intents cannot be listed by customer, and there are no credit notes (``collections``);
* invoices come from subscriptions only;
* there is no pausing of subscriptions (``pause_collection: null``), no redaction job, no idempotency, no rate limit;
* it never says 401 for a key that starts with ``sk_``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from examples.shop.payments import PaymentsServer, api

API_KEY: Final = "sk_test_habeas"


@contextmanager
def running_localstripe() -> Iterator[str]:
    """Run an empty localstripe on a free port; yields its base URL, e.g. ``http://127.0.0.1:40123``."""
    server = PaymentsServer()
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def wipe(base_url: str) -> None:
    """Empty a running localstripe, so that tests can share one process."""
    with api(base_url) as payments:
        payments.wipe()
