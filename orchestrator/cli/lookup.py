"""``habeas list``, ``habeas show``: what is there, what was done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli import output
from orchestrator.cli.common import json_option, request_argument
from orchestrator.cli.connect import connected, find
from orchestrator.core.model import NEVER, Step
from orchestrator.core.report import result_facts
from orchestrator.core.vocabulary import Right, StepState
from orchestrator.messages.names import package_reference
from orchestrator.store import figures, queries, trail
from orchestrator.store.queries import Which

# list ---------------------------------------------------------------------------------------------------------------


@click.command(name="list")
@click.option("--open", "which", flag_value=Which.OPEN.value, help="Open ones, earliest deadline first.")
@click.option("--closed", "which", flag_value=Which.CLOSED.value, help="Closed ones, last closed first.")
@click.option("--attention", "which", flag_value=Which.ATTENTION.value, help="Those that want an operator.")
@click.option("--overdue", "which", flag_value=Which.OVERDUE.value, help="Open ones past their legal deadline.")
@click.option("--right", type=click.Choice([r.value for r in Right]), help="Only this right.")
@click.option("--source", help="Only requests of this source.")
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="How many at most.")
@click.option("--after", metavar="CURSOR", help="Go on where the last page ended.")
@json_option
def list_(
    which: str | None, right: str | None, source: str | None, limit: int, after: str | None, as_json: bool
) -> None:
    """List requests; newest first unless said otherwise."""
    with connected() as (_, database), database.transaction() as tx:
        kind = Which(which or Which.ALL.value)
        page = queries.requests(tx, kind, right=right, source=source, limit=limit, after=after)
        now = figures.clock(tx)
    if as_json:
        output.emit({"requests": page.requests, "after": page.after})
        return
    columns = ("request", "right", "state", "source", "received", "deadline", "waits for")
    rows = [(r.id, r.right, _state(r, now), r.source, r.received_at, r.deadline, _waits(r)) for r in page.requests]
    console = output.console()
    console.print(output.table(columns, rows) if rows else "no request is like that")
    if page.after:
        console.print(f"[dim]more: --after {page.after}[/dim]")


def _state(request: queries.Summary, now: datetime) -> str:
    if request.resolution:
        return request.resolution
    if request.steps.get(StepState.ATTENTION):
        return "attention"
    if request.paused:
        return "paused"
    if now > request.deadline:
        return "overdue"
    if request.stopping:
        return f"being {request.stopping}"
    return next(
        (s.value for s in (StepState.RUNNING, StepState.READY, StepState.PARKED) if request.steps.get(s)), "open"
    )


def _waits(request: queries.Summary) -> str:
    wanting = request.steps.get(StepState.ATTENTION, 0)
    words = [f"an operator ({wanting})"] if wanting else []
    return "; ".join([*words, *dict.fromkeys(request.waiting_on)])


# show ---------------------------------------------------------------------------------------------------------------


@click.command()
@request_argument
@click.option("--audit", is_flag=True, help="The audit trail as well.")
@json_option
def show(request: str, message: bool, audit: bool, as_json: bool) -> None:
    """Show one request: what each system did, what was kept and why, what is waited for.

    REQUEST is an id, or at least the first 8 hex digits of one.
    """
    with connected() as (_, database), database.transaction() as tx:
        id_ = find(tx, request, message=message)
        detail = queries.detail(tx, id_)
        entries = trail.entries(tx, id_) if audit else []
    if as_json:
        output.emit(_as_json(detail) | ({"audit": entries} if audit else {}))
        return
    parts = [request_view(detail)]
    if audit:
        rows = [(e.seq, e.at, e.what, e.ordinal, _words(e.facts)) for e in entries]
        parts += [Text(), output.table(("#", "at", "what", "step", "facts"), rows, "Audit trail")]
    output.console().print(Group(*parts))


def request_view(detail: queries.Detail) -> RenderableType:
    """One request as people see it."""
    return Group(_head(detail), Text(), _steps(detail.run.steps), *_kept(detail.run.steps))


def _head(detail: queries.Detail) -> RenderableType:
    row, run = detail.row, detail.run
    state = row.resolution or (f"being {row.stopping}" if row.stopping else "paused" if row.paused else "open")
    package = detail.package
    return output.facts(
        [
            ("request", row.id),
            ("right", f"{row.right} ({row.regulation})"),
            ("state", state + (f": {row.stop_reason}" if row.stop_reason else "")),
            ("source", f"{row.source}, message {row.message_id}"),
            ("workflow", f"{row.workflow} version {row.workflow_version}, {len(run.steps)} steps"),
            ("received", row.received_at),
            ("deadline", row.deadline),
            ("closed", row.closed_at),
            ("shredded at", row.shred_at),
            ("steps folded", detail.folded_at),
            ("paused by", f"{detail.paused_by}: {detail.paused_reason}" if detail.paused_by else ""),
            (
                "package",
                f"{package_reference(row.id)}, {package.bytes} bytes sealed; habeas package {row.id} --out FILE"
                if package
                else "",
            ),
        ]
    )


def _steps(steps: Iterable[Step]) -> RenderableType:
    columns = ("#", "step", "system", "state", "outcome", "records", "tries", "waits for, or last error")
    rows = [
        (
            s.ordinal,
            s.action if s.name == s.action.value else f"{s.name} ({s.action})",
            s.system,
            s.state,
            s.result.outcome if s.result else "",
            output.counts(s.result.counts) if s.result else "",
            s.attempt or "",
            _remark(s),
        )
        for s in steps
    ]
    return output.table(columns, rows)


def _remark(step: Step) -> str:
    if step.result is not None:
        return step.result.note
    until = f" until {output.when(step.due)}" if step.state is StepState.PARKED and step.due < NEVER else ""
    if step.state is StepState.WAITING:
        return "steps " + ", ".join(str(n) for n in sorted(step.needs))
    error = f"{step.failure}: {step.error}" if step.error else ""
    return "; ".join(part for part in (f"{step.waiting_on}{until}".strip(), error) if part)


def _kept(steps: Sequence[Step]) -> list[RenderableType]:
    kept = [
        (s.system, r.what, r.records, r.reason, r.legal_basis, r.until)
        for s in steps
        if s.result is not None
        for r in s.result.retained
    ]
    left = [(s.system, r.where, r.until) for s in steps if s.result is not None for r in s.result.residues]
    parts: list[RenderableType] = []
    if kept:
        columns = ("system", "what", "records", "reason", "legal basis", "until")
        parts += [Text(), output.table(columns, kept, "Kept, and why")]
    if left:
        parts += [Text(), output.table(("system", "where", "until"), left, "Still in backups")]
    return parts


def _words(facts: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in facts.items() if v not in ("", None, [], {}))


def _as_json(detail: queries.Detail) -> dict[str, Any]:
    hidden = {"audit_head", "audit_seq"}
    package = {**detail.package._asdict(), "dataref": package_reference(detail.row.id)} if detail.package else None
    steps = [
        {
            "ordinal": s.ordinal,
            "step": s.name,
            "action": s.action,
            "system": s.system,
            "state": s.state,
            "needs": None if detail.folded_at else sorted(s.needs),
            "due": s.due if s.due < NEVER else None,
            "changed_at": detail.times[s.ordinal].changed_at,
            "lease_until": detail.times[s.ordinal].lease_until,
            "attempt": s.attempt,
            "waiting_on": s.waiting_on,
            "failure": s.failure,
            "error": s.error,
            "result": result_facts(s.result) if s.result else None,
        }
        for s in detail.run.steps
    ]
    row = {k: v for k, v in detail.row._asdict().items() if k not in hidden}
    return {**row, "folded_at": detail.folded_at, "steps": steps, "package": package}
