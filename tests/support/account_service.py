"""The shop's account service as the tests play it: publishes people's requests, hears the answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from examples.shop.people import Request
from examples.shop.world import SIGNING_SECRET
from orchestrator.broker import topology
from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import EventKind
from orchestrator.publish import Answer, Options, Publisher
from tests.support.deployment import Deployment

SOURCE = "/shop/account-service"


class AccountService:
    """Asks, and remembers every answer."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.answers: dict[str, dict[str, Answer]] = {}
        """Message id → event id → answer."""

    def ask(self, request: Request) -> str:
        """Publish one request, of a person who is signed in."""
        options: Options = {
            "identities": [Identity(kind, value) for kind, value in request.identities],
            "message_id": request.id,
            "verification": {"method": "login", "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"},
        }
        if request.corrections:
            options["corrections"] = dict(request.corrections)
        if request.purposes:
            options["purposes"] = sorted(request.purposes)
        return self.publisher.request(request.right, **options)

    def listen(self, seconds: float) -> None:
        """Hear for a while."""
        for answer in self.publisher.answers(timeout=seconds):
            self.answers.setdefault(answer.message_id, {})[answer.event_id] = answer

    def await_all(self, requests: Iterable[Request], patience: float = 180.0) -> dict[str, Answer]:
        """The completion of every request: exactly one each."""
        wanted = {r.id for r in requests}
        until = time.monotonic() + patience
        while True:
            done = {m: self.completed(m) for m in wanted}
            missing = [m for m, answers in done.items() if not answers]
            if not missing:
                doubled = [m for m, answers in done.items() if len(answers) > 1]
                assert not doubled, f"completed more than once: {doubled[:5]}"
                return {m: answers[0] for m, answers in done.items()}
            if time.monotonic() > until:
                raise AssertionError(f"{len(missing)} of {len(wanted)} requests have no answer, e.g. {missing[:3]}")
            self.listen(0.5)

    def completed(self, message_id: str) -> list[Answer]:
        """The distinct completion events of one request."""
        return [a for a in self.answers.get(message_id, {}).values() if a.kind is EventKind.COMPLETED]


@contextmanager
def account_service(deployment: Deployment) -> Iterator[AccountService]:
    """The service, connected to a deployment's broker."""
    settings = deployment.settings
    options = topology.transport_options(settings) if topology.is_pgmq(settings) else None
    url = settings.broker_url.get_secret_value()
    replies = "shop_account_service"
    with Publisher(url, source=SOURCE, secret=SIGNING_SECRET, replies=replies, transport_options=options) as publisher:
        yield AccountService(publisher)
