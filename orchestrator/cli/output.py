"""How answers look: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDE = 200
"""Columns where there is no terminal to ask: a table in a file or a pipe is not cut off."""

_STYLES = {
    "attention": "bold red",
    "overdue": "bold red",
    "running": "cyan",
    "ready": "blue",
    "parked": "yellow",
    "waiting": "dim",
    "done": "green",
    "completed": "green",
    "completed_with_exceptions": "green",
    "denied": "magenta",
    "cancelled": "magenta",
    "expired": "magenta",
    "paused": "yellow",
    "verified": "green",
    "executed": "green",
}


def console() -> Console:
    """Standard output."""
    made = Console(highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made = Console(highlight=False, soft_wrap=False, width=WIDE)
    return made


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """A table; empty values are blank, words of state are coloured."""
    made = Table(title=title or None, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def cell(value: object) -> RenderableType:
    """One value of a table."""
    if value is None:
        return ""
    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return when(value)
    text = str(value)
    return Text(text, style=_STYLES.get(text, ""))


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values, without lines; empty values are left out."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value not in {None, ""}:
            made.add_row(name, cell(value))
    return made


def when(moment: datetime | None) -> str:
    """A time to read."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def counts(numbers: Mapping[str, int]) -> str:
    """``orders 3, posts 12``."""
    return ", ".join(f"{name} {n}" for name, n in sorted(numbers.items()))


def emit(value: object) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(plain(value), ensure_ascii=False, indent=2))


def tell(pairs: Mapping[str, object], as_json: bool) -> None:
    """Names and values, for people or as JSON."""
    if as_json:
        emit(pairs)
    else:
        console().print(facts(pairs.items()))


def emit_line(value: object) -> None:
    """JSON on one line, for streams."""
    click.echo(json.dumps(plain(value), ensure_ascii=False))


def plain(value: Any) -> Any:
    """A value as JSON takes it: dataclasses by field, times in RFC 3339."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case _:
            return value


def _key(key: Any) -> str:
    return "/".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
