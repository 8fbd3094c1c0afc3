"""``habeas watch``: a live view of the deployment, or of one request."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from sqlalchemy import Connection

from orchestrator.cli import output
from orchestrator.cli.common import json_option
from orchestrator.cli.connect import find
from orchestrator.cli.engine import opened
from orchestrator.cli.lookup import request_view
from orchestrator.cli.why import configured, explain
from orchestrator.core.model import System
from orchestrator.core.words import duration_of
from orchestrator.store import figures, queries
from orchestrator.store.figures import Figures

RECENT = 10.0
"""Seconds over which the rate is measured."""
STATES = ("ready", "running", "parked", "attention")


@click.command()
@click.argument("request", metavar="[REQUEST]", required=False)
@click.option("--message", is_flag=True, help="REQUEST is the id of the message that asked.")
@click.option("--once", is_flag=True, help="Show it once and end; for scripts.")
@click.option(
    "--every", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, help="Seconds between looks."
)
@json_option
def watch(request: str | None, message: bool, once: bool, every: float, as_json: bool) -> None:
    """Watch requests and systems as they move, or one request until it closes. Ctrl-C ends it.

    With --json a line for each look.
    """
    with opened() as runtime:
        systems = configured(runtime) if request else {}
        with runtime.database.transaction() as tx:
            id_ = None
            if request is not None:
                id_ = find(tx, request, message=message)

        def look() -> tuple[RenderableType, bool]:
            with runtime.database.transaction() as tx:
                return _look(tx, id_, systems, as_json)

        try:
            _repeat(look, once, every, as_json)
        except KeyboardInterrupt:
            return


def _repeat(look: Callable[[], tuple[RenderableType, bool]], once: bool, every: float, as_json: bool) -> None:
    shown, last = look()
    if once or as_json:
        while True:
            if not as_json:
                output.console().print(shown)
            if once or last:
                return
            time.sleep(every)
            shown, last = look()
    with Live(shown, console=output.console(), auto_refresh=False, vertical_overflow="visible") as live:
        while not last:
            time.sleep(every)
            shown, last = look()
            live.update(shown, refresh=True)


def _look(
    tx: Connection, request: UUID | None, systems: dict[str, System], as_json: bool
) -> tuple[RenderableType, bool]:
    """What is to be seen now, and whether it is the last that there will be."""
    if request is not None:
        detail = queries.detail(tx, request)
        answer = explain(tx, request, systems)
        if as_json:
            states = {s.ordinal: s.state for s in detail.run.steps}
            output.emit_line({"request": request, "resolution": detail.row.resolution, "steps": states, "why": answer})
        return Group(request_view(detail), Text(), Text(answer.summary, style="bold")), not detail.run.open
    numbers, now = figures.read(tx), figures.clock(tx)
    rate = figures.recent(tx, RECENT) / RECENT
    if as_json:
        output.emit_line({"at": now, **output.plain(numbers), "open": numbers.open, "per_second": rate})
    return _overview(numbers, rate, now), False


def _overview(numbers: Figures, rate: float, now: datetime) -> RenderableType:
    rights = []
    for right in sorted(numbers.admitted):
        closed = {how: n for (r, how), n in sorted(numbers.closed.items()) if r == right}
        rights.append((right, numbers.open.get(right, 0), numbers.attention.get(right, ""), output.counts(closed)))
    systems = [
        (
            name,
            *(s.steps.get(state, "") for state in STATES),
            duration_of(s.oldest_ready) if s.oldest_ready else "",
            "paused" if s.paused else "breaker open" if s.breaker_open else "",
        )
        for name, s in sorted(numbers.systems.items())
    ]
    remarks = [
        f"{rate:.0f} entries/s in the audit trail",
        f"{numbers.overdue} overdue" if numbers.overdue else "",
        f"{numbers.outbox_unpublished} events unpublished, the oldest for {duration_of(numbers.outbox_lag)}"
        if numbers.outbox_unpublished
        else "",
        f"{sum(numbers.quarantined.values())} messages in quarantine" if numbers.quarantined else "",
    ]
    return Group(
        output.table(("right", "open", "attention", "closed"), rights, "Requests"),
        Text(),
        output.table(("system", *STATES, "oldest ready", ""), systems, "Systems"),
        Text(),
        Text(f"{output.when(now)} UTC   " + "   ".join(r for r in remarks if r), style="dim"),
    )
