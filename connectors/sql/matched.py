"""The rows of one collection that were found to belong to people of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from connectors.sql.datamap import Key
from connectors.sql.schema import Table


@dataclass(frozen=True, slots=True)
class Matched:
    """The rows of one collection that belong to people of the batch: ``s`` (which task), key, links, ``stay``."""

    key: Key
    table: sa.FromClause
    """A temporary table; of a leaf the query that finds the rows."""
    of: Mapping[str, str]
    """Column of the collection → column of the temporary table."""
    primary_key: tuple[str, ...]
    on: ColumnElement[bool] | None = None
    """Set where the rows themselves are in no temporary table: how those of the real table join ``table``."""

    @property
    def subject(self) -> ColumnElement[int]:
        """Position of the row's task in the batch."""
        return self.table.c["s"]

    @property
    def stay(self) -> ColumnElement[int]:
        """Why the row is not deleted; see ``erase.Stay``."""
        return self.table.c["stay"]

    @property
    def stored(self) -> sa.TableClause:
        """The temporary table, to change it; no leaf has one."""
        return cast("sa.TableClause", self.table)

    @property
    def name(self) -> str:
        """The temporary table's."""
        return self.stored.name

    def within(self, table: sa.FromClause) -> Matched:
        """The same columns, of some of the rows."""
        return replace(self, table=table)

    def __getitem__(self, column_name: str) -> ColumnElement[Any]:
        """The copy of a key or link column."""
        return self.table.c[self.of[column_name]]

    def joins(self, source: Table) -> ColumnElement[bool]:
        """These rows are those rows of the real table."""
        if self.on is not None:
            return self.on
        return sa.and_(*(source[c] == self[c] for c in self.primary_key))
