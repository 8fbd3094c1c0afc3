"""What the demo shows."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from examples.shop.people import RIGHTS

if TYPE_CHECKING:
    from examples.shop.demo import Progress
    from examples.shop.world import Shop

SYSTEMS = ("users", "logs", "payments", "analytics")
KEEPS = {"users": "rows", "logs": "lines", "payments": "customers", "analytics": "rows"}
_COLOURS = {
    "verified": "green",
    "executed": "green",
    "no_match": "dim",
    "retained": "yellow",
    "unsupported": "yellow",
    "skipped": "red",
}


def inventory(shop: Shop) -> Table:
    """What there is before anybody asks."""
    table = Table("system", "holds", title="the shop")
    for system in SYSTEMS:
        table.add_row(system, f"{shop.counts[system]:,} {KEEPS[system]}")
    return table


def progress(state: Progress) -> Table:
    """Live: how many requests of each right are answered."""
    asked = Counter(r.right for r in state.requests.values())
    done = Counter(state.requests[m].right for m in state.finished)
    table = Table("right", "", "done", "asked", title=f"{time.monotonic() - state.started:.0f} s")
    for right in RIGHTS:
        bar = ProgressBar(total=asked[right] or 1, completed=done[right], width=40)
        table.add_row(right, bar, str(done[right]), str(asked[right]))
    return table


def outcomes(state: Progress) -> Table:
    """A row for each request: what each system did, with how many records."""
    table = Table("request", "right", *SYSTEMS, "closed as", "package", title="what became of each request")
    for message, answer in sorted(state.finished.items()):
        systems = {s["system"]: s["steps"] for s in answer.data.get("systems", [])}
        package = answer.dataref.removeprefix("urn:habeas:package:")[:13]
        cells = [_cell(systems.get(name, [])) for name in SYSTEMS]
        closed = str(answer.data.get("resolution", answer.data.get("reason", ""))).replace("_", " ")
        table.add_row(message[:16], state.requests[message].right, *cells, closed, package)
    return table


def _cell(steps: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for step in steps:
        if step["action"] in {"discover", "verify"}:
            continue
        records = sum(step["counts"].values())
        colour = _COLOURS.get(step["outcome"], "white")
        checked = any(s["action"] == "verify" and s["outcome"] == "verified" for s in steps)
        lines.append(f"[{colour}]{step['outcome']}[/] {records or ''}{' ✓' if checked else ''}")
    return "\n".join(lines)


def kept(state: Progress) -> Table:
    """What was kept, and why; and what could not be done."""
    reasons: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for answer in state.finished.values():
        for system in answer.data.get("systems", []):
            for step in system["steps"]:
                if step["action"] == "verify":
                    continue  # says again what the step that it checks said
                for item in step["retained"]:
                    why = f"{item['reason']} ({item['legal_basis']})"
                    reasons[system["system"], item["what"], why].append(item["records"])
                if step["outcome"] == "unsupported" and step["action"] != "verify":
                    reasons[system["system"], f"cannot {step['action']}", step["note"]].append(0)
    table = Table("system", "what", "requests", "records", "why", title="kept or left, and why")
    for (system, what, why), records in sorted(reasons.items()):
        table.add_row(system, what, str(len(records)), str(sum(records) or ""), why)
    return table


def summary(state: Progress) -> Table:
    """How the requests closed, by right."""
    closed = Counter((state.requests[m].right, str(a.data.get("resolution"))) for m, a in state.finished.items())
    table = Table("right", "closed as", "requests", title="in all")
    for (right, resolution), n in sorted(closed.items()):
        table.add_row(right, resolution.replace("_", " "), str(n))
    return table


def verdict(shop: Shop) -> Panel:
    """What the check found, when it found nothing wrong."""
    asked = Counter(r.right for r in shop.cast.requests)
    corrected, frozen, objecting = asked["rectification"], asked["restriction"], asked["objection"]
    return Panel(
        f"{asked['erasure']} erased people are gone from all four systems, but for what the law keeps\n"
        f"{corrected} corrected, {frozen} restricted and {objecting} objecting people are as they asked\n"
        f"{len(shop.cast.bystanders):,} others are untouched, byte for byte",
        title="[bold green]checked in the systems themselves",
        expand=False,
    )
