"""The demo: a shop with four real systems, hundreds of people who exercise all six rights, and the check afterwards."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from examples.shop import tables
from examples.shop.check import Finding, check, snapshot
from examples.shop.people import Request
from examples.shop.world import SIGNING_SECRET, SOURCES, SYSTEMS, Shop, create_database
from orchestrator.broker import topology
from orchestrator.cli.supervisor import Home, Supervisor, deployment
from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import EventKind
from orchestrator.embedded import EmbeddedPostgres
from orchestrator.publish import Answer, Options, Publisher
from orchestrator.runtime import Runtime

SOURCE = "/shop/account-service"
PATIENCE = 300.0
"""Seconds until the demo gives up on answers."""


@dataclass
class Progress:
    """What the account service has heard so far."""

    requests: Mapping[str, Request]
    """Message id → what was asked."""
    accepted: dict[str, Answer] = field(default_factory=dict)
    finished: dict[str, Answer] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def hear(self, answer: Answer) -> None:
        """Take in one answer; a second delivery changes nothing."""
        if answer.message_id not in self.requests:
            return
        if answer.kind is EventKind.ACCEPTED:
            self.accepted[answer.message_id] = answer
        if answer.final:
            self.finished[answer.message_id] = answer

    @property
    def complete(self) -> bool:
        """Whether every request has its final answer."""
        return len(self.finished) == len(self.requests)


def run(home: Home, *, people: int, requests: int | None, keep: bool) -> int:
    """Run it. Returns 0 only if every request closed and the check in the systems themselves found nothing."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    place = home.path / "shop"
    shutil.rmtree(place, ignore_errors=True)
    with EmbeddedPostgres(home.path / "postgres") as postgres:
        shop_url = postgres.url_of("shop")
        create_database(shop_url)
        shop = Shop.create(place, shop_url, people, requests=requests or max(12, people // 10))
        try:
            with console.status("opening the shop: four systems and their data …"):
                shop.start()
                shop.seed()
                before = snapshot(shop)
            console.print(tables.inventory(shop))
            values = {"systems": str(SYSTEMS), "sources": str(SOURCES), "environment": dict(shop.environment())}
            # A new database each time, so that the demo can be run again and again in the same home.
            fresh = postgres.create_database(f"habeas_{datetime.now(UTC):%Y%m%d_%H%M%S}")
            with deployment(home, {**values, "database_url": fresh}) as (runtime, supervisor):
                progress = _ask(console, runtime, supervisor, shop)
                with console.status("looking into the four systems themselves …"):
                    findings = check(before, shop, shop.cast.requests)
                passed = _tell(console, home, shop, progress, findings)
                if keep:
                    _stay(console, supervisor)
        finally:
            shop.stop()
    return 0 if passed else 1


def _ask(console: Console, runtime: Runtime, supervisor: Supervisor, shop: Shop) -> Progress:
    """Publish the requests, as the shop's account service would, and listen until all are answered."""
    progress = Progress({r.id: r for r in shop.cast.requests})
    options = topology.transport_options(runtime.settings)
    with Publisher("pgmq://localhost", source=SOURCE, secret=SIGNING_SECRET, transport_options=options) as habeas:
        with console.status(f"publishing {len(progress.requests)} requests …"):
            for request in shop.cast.requests:
                _publish(habeas, request)
        with Live(tables.progress(progress), console=console, refresh_per_second=4) as live:
            until = time.monotonic() + PATIENCE
            while not progress.complete and time.monotonic() < until:
                supervisor.tend()
                for answer in habeas.answers(timeout=0.5):
                    progress.hear(answer)
                live.update(tables.progress(progress))
    return progress


def _publish(habeas: Publisher, request: Request) -> None:
    options: Options = {
        "identities": [Identity(kind, value) for kind, value in request.identities],
        "message_id": request.id,
        "verification": {"method": "login", "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"},
    }
    if request.corrections:
        options["corrections"] = dict(request.corrections)
    if request.purposes:
        options["purposes"] = sorted(request.purposes)
    habeas.request(request.right, **options)


def _tell(console: Console, home: Home, shop: Shop, progress: Progress, findings: list[Finding]) -> bool:
    """The table per request, and the verdict."""
    report = home.path / "demo-report.json"
    facts = {m: dict(a.data) | {"dataref": a.dataref} for m, a in progress.finished.items()}
    report.write_text(json.dumps(facts, indent=2))
    console.print(tables.outcomes(progress))
    console.print(tables.kept(progress))
    console.print(tables.summary(progress))
    console.print(f"every answer in full: {report}")
    missing = len(progress.requests) - len(progress.finished)
    refused = sum(a.kind is EventKind.REFUSED for a in progress.finished.values())
    for finding in findings[:20]:
        console.print(f"[red]✗[/red] {finding}")
    if missing or refused or findings:
        console.print(f"[bold red]not as it should be[/]: {missing} open, {refused} refused, {len(findings)} findings")
        return False
    console.print(tables.verdict(shop))
    return True


def _stay(console: Console, supervisor: Supervisor) -> None:
    console.print(
        "\nstill running, in this folder's home. In another terminal: [bold]habeas list[/], [bold]habeas show[/] "
        "ID, [bold]habeas package[/] ID --out me.zip, [bold]habeas submit access --email …[/]. Ctrl-C ends it."
    )
    stop = threading.Event()
    with _signals(stop):
        while not stop.wait(1):
            supervisor.tend()


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    old = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
