"""The page of a package that a person opens: tables, readable without a network, scripts or anything installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any
from urllib.parse import quote

__all__ = ["MAX_ROWS", "Section", "page_end", "page_start", "table"]

MAX_ROWS = 1000
"""Records of a collection shown on the page; all of them are in its file."""
_LOOK_AHEAD = 50  # records that decide on the columns
_MAX_COLUMNS = 40
_MAX_CELL = 500  # characters shown of one value

_encode = json.JSONEncoder(ensure_ascii=False).encode

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-size:.875rem}"
    "th,td{border:1px solid #8886;padding:.3rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere;"
    "min-width:5rem;max-width:30rem}th{background:#8882}h2{margin-top:2.5rem}.note{color:#666}"
)


def page_start(title: str) -> str:
    """Everything before the first section. The policy forbids the page to load or run anything."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
    )


def page_end() -> str:
    """Everything after the last section."""
    return "</body></html>\n"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], links: bool = False) -> str:  # noqa: FBT001, FBT002 - read as a word
    """A small table; with ``links`` the first cell of each row is a path in the package."""
    lines = []
    for row in rows:
        cells = _joined([_text(value) for value in row], "</td><td>")
        if links:
            first, *rest = cells.split("</td>", 1)
            cells = "</td>".join([f'<a href="{escape(quote(str(row[0])))}">{first}</a>', *rest])
        lines.append(f"<tr><td>{cells}</td></tr>")
    return (
        f'<h2>{escape(caption)}</h2>\n<div class="wide"><table><thead><tr>{_heads(columns)}</tr></thead>\n'
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


class Section:
    """The table of one collection, written while its records stream by."""

    def __init__(self, title: str, path: str, write: Callable[[str], object]) -> None:
        """``path``: its file in the package."""
        self._title = title
        self._path = path
        self._write = write
        self._first: list[Mapping[str, Any]] = []
        self._columns: list[str] = []
        self._rows = 0
        self._started = False

    @property
    def full(self) -> bool:
        """Whether the page shows no more records of this collection."""
        return self._rows >= MAX_ROWS

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """The next records, as far as the page shows them."""
        for record in islice(records, MAX_ROWS - self._rows):
            self._rows += 1
            if self._started:
                self._row(record)
                continue
            self._first.append(record)
            if len(self._first) == _LOOK_AHEAD:
                self._start()

    def finish(self, total: int) -> None:
        """Close the table and say what it leaves out of ``total`` records."""
        if not self._started:
            self._start()
        self._write("</tbody></table></div>\n")
        if total > self._rows:
            self._write(f'<p class="note">The first {self._rows} of {total} records; the file has all of them.</p>\n')

    def _start(self) -> None:
        self._started = True
        self._columns = list(dict.fromkeys(key for record in self._first for key in record))[:_MAX_COLUMNS]
        self._write(
            f'<h2>{escape(self._title)}</h2>\n<p><a href="{escape(quote(self._path))}">{escape(self._path)}</a></p>\n'
            f'<div class="wide"><table><thead><tr>{_heads([*self._columns, "…"])}</tr></thead>\n<tbody>'
        )
        for record in self._first:
            self._row(record)
        self._first.clear()

    def _row(self, record: Mapping[str, Any]) -> None:
        rest = {key: value for key, value in record.items() if key not in self._columns}
        cells = [_text(record.get(column)) for column in self._columns]
        cells.append(_text(rest) if rest else "")
        self._write(f"<tr><td>{_joined(cells, '</td><td>')}</td></tr>\n")


def _heads(columns: Sequence[str]) -> str:
    return f'<th scope="col">{_joined(columns, """</th><th scope="col">""")}</th>'


def _joined(texts: Sequence[str], between: str) -> str:
    """Texts escaped, with markup in between: one escape for all, for escaping a text costs more than making it."""
    row = escape("\0".join(texts))
    if row.count("\0") == len(texts) - 1:
        return row.replace("\0", between)
    return between.join(map(escape, texts))


def _text(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value) if type(value) is int else _encode(value)
    return text if len(text) <= _MAX_CELL else text[:_MAX_CELL] + " …"
