"""What the check says, and how a set of tables should look after a set of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = [
    "ANYTHING",
    "DIFFERENT",
    "NOBODY",
    "Expectation",
    "Finding",
    "Row",
    "Table",
    "TableSpec",
    "compare",
    "read_table",
]

Row = tuple[object, ...]
Key = Row

NOBODY = ""
"""The owner of what belongs to no person."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    system: str
    person: str
    """User id; empty for what belongs to nobody."""
    what: str

    def __str__(self) -> str:
        return f"{self.system}: {self.what} ({self.person or 'nobody’s'})"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """How a table is read and whose its rows are."""

    name: str
    key: int = 1
    """How many of the first columns are the primary key; 0: all of them."""
    owner: str | None = "account_id"
    """The column that says whose a row is."""
    through: str | None = None
    """The table, earlier in the order, whose key ``owner`` refers to; ``None``: it names the person."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table's contents at one time."""

    name: str
    columns: tuple[str, ...]
    rows: Mapping[Key, Row]
    owners: Mapping[Key, str]
    """Key → user id; keys of nobody's rows are missing."""

    def of(self, person: str) -> Iterator[Key]:
        """The keys of one person's rows."""
        return (key for key, owner in self.owners.items() if owner == person)

    def value(self, key: Key, column: str) -> object:
        """One value."""
        return self.rows[key][self.columns.index(column)]


class _Sentinel:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ANYTHING = _Sentinel("anything")
"""Instead of a value: whatever it is, e.g. the time of a change."""
DIFFERENT = _Sentinel("different")
"""Instead of a value: no longer what it was, e.g. a masked name."""


@dataclass(slots=True)
class Expectation:
    """How one table should have changed: everything that is not named here is as it was."""

    gone: set[Key] = field(default_factory=set)
    changed: dict[Key, dict[str, object]] = field(default_factory=dict)
    """Key → column → new value, ``ANYTHING`` or ``DIFFERENT``."""

    def change(self, key: Key, **values: object) -> None:
        """Expect these columns of a row to have new values."""
        self.changed.setdefault(key, {}).update(values)


def read_table(
    spec: TableSpec,
    read: Callable[[str], tuple[tuple[str, ...], Iterable[Row]]],
    earlier: Mapping[str, Table],
    name_of: Callable[[object], str],
) -> Table:
    """Reads a table whole. ``read``: table → columns and rows; ``name_of``: value of the owner column → user id."""
    columns, rows = read(spec.name)
    at = columns.index(spec.owner) if spec.owner else -1
    kept: dict[Key, Row] = {}
    owners: dict[Key, str] = {}
    parents = earlier[spec.through].owners if spec.through else None
    for row in rows:
        key = row[: spec.key] if spec.key else row
        kept[key] = row
        if at < 0:
            continue
        owner = parents.get((row[at],), NOBODY) if parents is not None else name_of(row[at])
        if owner:
            owners[key] = owner
    return Table(spec.name, columns, kept, owners)


def compare(system: str, before: Table, after: Table, expected: Expectation) -> Iterator[Finding]:
    """Where a table is not as expected."""
    name = before.name
    for key, row in before.rows.items():
        now = after.rows.get(key)
        if now == row and key not in expected.gone and key not in expected.changed:
            continue
        owner = before.owners.get(key, NOBODY)
        if key in expected.gone:
            if now is not None:
                yield Finding(system, owner, f"a row of {name} is still there and should be gone")
        elif now is None:
            yield Finding(system, owner, f"a row of {name} is missing")
        else:
            yield from _columns(system, before, owner, (row, now), expected.changed.get(key, {}))
    for key in after.rows.keys() - before.rows.keys():
        yield Finding(system, after.owners.get(key, NOBODY), f"a row of {name} is new")


def _columns(
    system: str, table: Table, owner: str, rows: tuple[Row, Row], changed: Mapping[str, object]
) -> Iterator[Finding]:
    for column, was, now in zip(table.columns, *rows, strict=True):
        wanted = changed.get(column, was)
        if wanted is ANYTHING:
            continue
        if wanted is DIFFERENT:
            if now == was and was is not None:
                yield Finding(system, owner, f"{table.name}.{column} is as it was and should be masked")
        elif now != wanted:
            how = "was changed" if column not in changed else "is not what was asked for"
            yield Finding(system, owner, f"{table.name}.{column} {how}")
