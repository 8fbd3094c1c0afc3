"""The payment processor: Stripe's API, served by ``localstripe`` in a process of its own and filled over HTTP."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any
from urllib.parse import urlencode

from examples.shop.persons import Person, chance

__all__ = ["KEY", "Answer", "PaymentsApi", "PaymentsServer", "api", "seed"]

KEY = "sk_test_demo_shop"
"""The server takes any key of this form."""

PLAN = "membership"
"""The subscription that some customers pay for; its invoices are what tax law wants kept."""

Answer = dict[str, Any]
"""One of Stripe's objects, as JSON."""

_STOP_SECONDS = 10

# localstripe is under the GPL: it is run, never imported. As shipped it writes all its objects to one fixed file in
# /tmp at every change, which is slow, and which two shops on one machine would share; so that is switched off. And for
# each list it looks through all objects of all kinds; so they are kept by kind as well. No access log: it would name
# customers' addresses. Without "stay" it ends with whoever holds the other end of its standard input.
_SERVE = """
import collections, os, socket, sys, threading
from aiohttp import web
from localstripe import errors, resources, server

kinds = collections.defaultdict(dict)

class Store(resources.Store):
    def __setitem__(self, key, value):
        dict.__setitem__(self, key, value)
        kinds[key.partition(":")[0]][key] = value

    def __delitem__(self, key):
        dict.__delitem__(self, key)
        del kinds[key.partition(":")[0]][key]

    def clear(self):
        dict.clear(self)
        kinds.clear()

    def dump_to_disk(self):
        pass

def list_all(cls, url, limit=None, starting_after=None, **unknown):
    if unknown:
        raise errors.UserError(400, "Unexpected " + ", ".join(unknown))
    found = resources.List(url, limit=limit, starting_after=starting_after)
    found._list = list(kinds[cls.object].values())
    return found

resources.store = server.store = Store()
resources.StripeObject._api_list_all = classmethod(list_all)

def end_with_the_parent():
    while os.read(0, 1):
        pass
    os._exit(0)

listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
if sys.argv[1] != "stay":
    threading.Thread(target=end_with_the_parent, daemon=True).start()
web.run_app(server.app, sock=listener, access_log=None, print=None)
"""


class PaymentsServer:
    """The process that serves Stripe's API."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        """e.g. ``http://127.0.0.1:40001``; empty until started."""

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process else None

    def start(self, *, stay: bool = False) -> None:
        """Starts it and waits until it listens. With ``stay`` it outlives this process.

        Raises:
            RuntimeError: it did not start.
        """
        if self._process:
            return
        command = [sys.executable, "-c", _SERVE, "stay" if stay else "leave"]
        # A session of its own: Ctrl-C at the terminal ends the demo first, and the demo ends this.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        stdout = self._process.stdout
        port = stdout.readline().strip().decode() if stdout else ""
        if not port.isdigit():
            self.stop()
            message = "the payment server did not start: see its message above (is localstripe installed?)"
            raise RuntimeError(message)
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        """Stops it, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


class PaymentsApi:
    """The few calls of Stripe's API that filling and checking need, over one kept-open connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def get(self, path: str) -> Answer | None:
        """One object; ``None`` where there is none."""
        return self._send("GET", path)

    def post(self, path: str, **fields: object) -> Answer:
        """Creates or changes an object. Nested fields are dictionaries.

        Raises:
            RuntimeError: the server refused.
        """
        answer = self._send("POST", path, urlencode(list(_flatten(fields))))
        if answer is None:
            message = f"the payment server does not know {path}"
            raise RuntimeError(message)
        return answer

    def delete(self, path: str) -> None:
        """Deletes an object, if it is there."""
        self._send("DELETE", path)

    def wipe(self) -> None:
        """Makes the server forget everything, as if newly started."""
        self._send("DELETE", "/_config/data")

    def all(self, kind: str, **filters: str) -> Iterator[Answer]:
        """Every object of one kind, e.g. ``customers``, page by page; none where what it is filtered by is gone."""
        after: dict[str, str] = {}
        while page := self.get(f"/v1/{kind}?{urlencode({'limit': '100', **filters, **after})}"):
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"starting_after": page["data"][-1]["id"]}

    def _send(self, method: str, path: str, body: str | None = None) -> Answer | None:
        headers = {"Authorization": f"Bearer {KEY}"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status == http.client.NOT_FOUND:
            return None
        if response.status != http.client.OK:
            message = f"the payment server answered {method} {path.partition('?')[0]} with {response.status}"
            raise RuntimeError(message)
        answer: Answer = json.loads(content) if content else {}
        return answer


def _flatten(fields: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        key = f"{prefix}[{name}]" if prefix else name
        if isinstance(value, dict):
            yield from _flatten(value, key)
        else:
            yield key, value


@contextmanager
def api(url: str) -> Iterator[PaymentsApi]:
    """A connection for the length of a block."""
    connection = PaymentsApi(url)
    try:
        yield connection
    finally:
        connection.close()


def _customer(stripe: PaymentsApi, person: Person, random: Random) -> str:
    home = person.address
    postal = {"line1": home.street, "postal_code": home.postal_code, "city": home.city, "country": home.country}
    # Not one of the numbers that Stripe declines on purpose.
    number = f"424242{random.randrange(10**9):09d}{random.randrange(10)}"
    card = stripe.post(
        "/v1/payment_methods",
        type="card",
        card={"number": number, "exp_month": random.randint(1, 12), "exp_year": 2030, "cvc": "123"},
        billing_details={"name": person.name, "email": person.email},
    )["id"]
    customer: str = stripe.post(
        "/v1/customers",
        name=person.name,
        email=person.email,
        phone=person.phone,
        address=postal,
        payment_method=card,
        invoice_settings={"default_payment_method": card},
        metadata={"user_id": person.user_id},
    )["id"]
    if chance(random, 0.5):
        stripe.post(
            "/v1/payment_intents",
            amount=random.randrange(500, 40_000),
            currency="eur",
            customer=customer,
            payment_method=card,
            confirm="true",
        )
    if chance(random, 0.4):
        stripe.post("/v1/subscriptions", customer=customer, items={"0": {"plan": PLAN}})
    return customer


def seed(url: str, persons: Sequence[Person], seed: int) -> dict[str, str]:
    """Makes a customer with a card, payments and invoices for each of these people: user id → customer id.

    The ids are the server's own, so they differ from run to run; all else follows from the seed.
    """

    def some(part: Iterable[Person]) -> dict[str, str]:
        with api(url) as stripe:
            return {p.user_id: _customer(stripe, p, Random(f"payments:{seed}:{p.number}")) for p in part}

    with api(url) as stripe:
        stripe.post("/v1/plans", id=PLAN, amount=4900, currency="eur", interval="year", product={"name": "Membership"})
    # The server is one thread: a second connection fills the pauses of the first, more would only wait.
    with ThreadPoolExecutor(2) as pool:
        return {
            user: customer for part in pool.map(some, (persons[::2], persons[1::2])) for user, customer in part.items()
        }
