"""``habeas why``: what a request waits for, and what would help."""

from __future__ import annotations

from uuid import UUID

import click
from rich.text import Text
from sqlalchemy import Connection

from orchestrator.cli import output
from orchestrator.cli.common import json_option, request_argument
from orchestrator.cli.connect import find
from orchestrator.cli.doorbell import answers
from orchestrator.cli.engine import opened
from orchestrator.core import why as reasons
from orchestrator.core.model import System
from orchestrator.errors import ConfigurationError
from orchestrator.runtime import Runtime
from orchestrator.store import figures, queries


@click.command()
@request_argument
@json_option
def why(request: str, message: bool, as_json: bool) -> None:
    """Say why a request is where it is, and what would help."""
    with opened() as runtime:
        systems = configured(runtime)
        with runtime.database.transaction() as tx:
            id_ = find(tx, request, message=message)
            answer = explain(tx, id_, systems)
            if answer.stuck and not answers(runtime.settings):
                answer = explain(tx, id_, systems, broker_away=True)
    if as_json:
        output.emit({"request": id_, **output.plain(answer)})
        return
    console = output.console()
    whole = not console.is_terminal  # in a file or a pipe a line stays a line
    console.print(Text.assemble((str(id_), "bold"), f": {answer.summary}"), soft_wrap=whole)
    for reason in answer.reasons:
        text = Text.assemble(("• ", "bold"), f"step {reason.ordinal} ({reason.step}) {reason.text}")
        console.print(text, soft_wrap=whole)
        if reason.help:
            console.print(Text(f"  → {reason.help}", style="green"), soft_wrap=True)
    for line in _waiting(answer):
        console.print(Text(f"  {line}", style="dim"), soft_wrap=whole)


def _waiting(answer: reasons.Why) -> list[str]:
    """A line for each set of steps that wait for the same."""
    groups: dict[tuple[int, ...], list[reasons.Waiting]] = {}
    for waiting in answer.waiting:
        groups.setdefault(waiting.roots, []).append(waiting)
    names = {r.ordinal: r.step for r in answer.reasons}
    lines = []
    for roots, group in groups.items():
        if len(group) == 1:
            lines.append(f"step {group[0].ordinal}: {group[0].text}")
            continue
        steps = ", ".join(f"{w.ordinal} ({w.step})" for w in group)
        lines.append(f"steps {steps} wait for " + " and ".join(f"step {n} ({names[n]})" for n in roots))
    return lines


def explain(tx: Connection, request: UUID, systems: dict[str, System], *, broker_away: bool = False) -> reasons.Why:
    """Why one request is where it is. Raises ``NotFound``."""
    detail = queries.detail(tx, request)
    known = reasons.Known(
        detail.run,
        detail.times,
        queries.system_states(tx, {s.system for s in detail.run.steps}),
        systems,
        detail.paused_by,
        detail.paused_reason,
        broker_away,
        detail.unpublished,
    )
    return reasons.why(known, figures.clock(tx))


def configured(runtime: Runtime) -> dict[str, System]:
    """The systems as defined; none where the definitions' secrets are not at hand: the answer then says less."""
    try:
        return dict(runtime.definitions.systems)
    except ConfigurationError:
        return {}
