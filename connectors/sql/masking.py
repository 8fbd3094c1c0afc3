"""How columns are masked, and how one sees that they are.

Every mask is recognisable: NULL, a fixed value, or a text that begins with ``sha256:`` or ``random:``. So masking
twice changes nothing, and a later look can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from connectors.contract import Fatal
from connectors.sql.config import Mask
from connectors.sql.datamap import Field, Key
from connectors.sql.dialect import AsIs
from connectors.sql.schema import Column
from connectors.sql.session import Session
from connectors.sql.values import Kind, typed

SHORTEST: Final = 24
"""Characters a column must hold for a hash or a random text to be unlikely to collide, its prefix included."""
BLANKS: Final[dict[Kind, object]] = {
    # What takes the place of a value where NULL is not allowed.
    Kind.INTEGER: 0,
    Kind.NUMBER: 0,
    Kind.BOOLEAN: False,
    Kind.DATE: date(1970, 1, 1),
    Kind.TIME: time(0),
    Kind.TIMESTAMP: datetime(1970, 1, 1),  # noqa: DTZ001 - the column has no zone
    Kind.TIMESTAMPTZ: datetime(1970, 1, 1, tzinfo=UTC),
    Kind.UUID: "00000000-0000-0000-0000-000000000000",
    Kind.INET: "0.0.0.0",  # noqa: S104 - a masked address, nothing listens
    Kind.JSON: "{}",
    Kind.BYTES: b"",
}


@dataclass(frozen=True, slots=True)
class Masked:
    """One column to mask."""

    column: str
    dirty: ColumnElement[bool]
    """The value is not masked yet."""
    value: ColumnElement[Any]
    """What to set: the mask where the value is dirty, else the value as it is."""


def masked_columns(session: Session, key: Key, covers: Callable[[str], bool], *, everything: bool) -> list[Masked]:
    """The columns of a collection that an erasure masks.

    Those with a category in scope (``covers``), but not keys: a row keeps what tells it apart and what the database
    insists on. ``everything``: the scope is all data, so columns with a mask of their own and no category are in it.
    """
    keyed = {c for f in session.catalogue.foreign_keys if f.parent == key for c in f.parent_columns}
    chosen: list[Masked] = []
    for field in session.graph.collections[key].fields.values():
        explicit = _explicit(session, key, field)
        in_scope = any(covers(c) for c in field.categories) or (everything and explicit is not None)
        if not in_scope or field.primary_key or field.read_only or field.name in keyed:
            continue
        column = session.catalogue.tables[key].columns[field.name]
        if explicit is None and not column.nullable and _in_foreign_key(session, key, field.name):
            continue
        chosen.append(mask(session, key, field.name))
    return chosen


def kept_mask(session: Session, key: Key, name: str) -> Masked:
    """How a column is masked in a row that the law keeps. Raises ``Fatal`` naming it when that cannot be done."""
    if any(f.parent == key and name in f.parent_columns for f in session.catalogue.foreign_keys):
        raise Fatal(
            f"{session.name(key)}.{name} cannot be masked in a row that is kept: a foreign key of other rows refers to "
            "it; leave it out of `mask` under `retain`"
        )
    return mask(session, key, name)


def mask(session: Session, key: Key, name: str) -> Masked:
    """How one column is masked. Raises ``Fatal`` naming the column when that cannot be done."""
    table = session.catalogue.tables[key]
    column = table.columns[name]
    where = f"{session.name(key)}.{name}"
    field = session.graph.collections[key].fields.get(name)
    chosen = _explicit(session, key, field) if field else None
    limit = min((n for n in (column.length, field.length if field else None) if n), default=None)
    if chosen is None:
        chosen = _default(column, unique=name in table.unique)
    stored = table[name]
    match chosen.strategy if chosen else "blank":
        case "null_rewrite":
            if not column.nullable:
                raise Fatal(
                    f"{where} cannot be masked with null_rewrite: the column is NOT NULL; choose another in `masking`"
                )
            return Masked(name, stored.is_not(None), sa.null())
        case "string_rewrite" if chosen:
            try:
                return _constant(
                    session, stored, column, typed(column.kind, None, chosen.value[:limit] if limit else chosen.value)
                )
            except ValueError as error:
                raise Fatal(f"{where}: the string_rewrite value {error}; set one that fits in `masking`") from None
        case "hash":
            return _prefixed(where, column, limit, stored, "sha256:", _salted(session, stored))
        case "random":
            return _prefixed(where, column, limit, stored, "random:", session.dialect.unique())
        case _:
            if column.kind not in BLANKS or name in table.unique:
                raise Fatal(
                    f"{where} ({column.data_type}) has no default mask; name one in `masking`, or delete the rows"
                )
            return _constant(session, stored, column, BLANKS[column.kind])


def any_dirty(columns: Iterable[Masked]) -> ColumnElement[bool]:
    """At least one of the columns is not masked yet."""
    return sa.or_(sa.false(), *(c.dirty for c in columns))


def _explicit(session: Session, key: Key, field: Field) -> Mask | None:
    for name in (f"{key}.{field.name}", f"{key.table}.{field.name}"):
        if name in session.config.masking:
            return session.config.masking[name]
    return field.mask


def _in_foreign_key(session: Session, key: Key, name: str) -> bool:
    return any(f.child == key and name in f.child_columns for f in session.catalogue.foreign_keys)


def _default(column: Column, *, unique: bool) -> Mask | None:
    if column.nullable:
        return Mask(strategy="null_rewrite")
    if column.kind in {Kind.TEXT, Kind.CITEXT}:
        return Mask(strategy="random" if unique else "string_rewrite")
    return None


def _constant(session: Session, stored: sa.ColumnClause[Any], column: Column, value: object) -> Masked:
    comparable = session.dialect.text(stored) if column.kind is Kind.JSON else stored
    dirty = comparable != sa.literal(value, AsIs())
    return Masked(stored.name, dirty, sa.case((dirty, sa.literal(value, AsIs())), else_=stored))


def _prefixed(
    where: str, column: Column, limit: int | None, stored: sa.ColumnClause[Any], prefix: str, text: ColumnElement[str]
) -> Masked:
    if column.kind not in {Kind.TEXT, Kind.CITEXT}:
        raise Fatal(
            f"{where} ({column.data_type}) is no text, so it cannot be masked with hash or random; choose another"
        )
    if limit is not None and limit < SHORTEST:
        raise Fatal(f"{where} holds {limit} characters, too few for hash or random ({SHORTEST}); choose another mask")
    dirty = (
        sa.cast(stored, sa.Text()).not_like(f"{prefix}%")
        if column.kind is Kind.CITEXT
        else stored.not_like(f"{prefix}%")
    )
    value: ColumnElement[Any] = sa.literal(prefix, sa.Text()) + text
    if limit is not None:
        value = sa.func.substr(value, 1, limit)
    return Masked(stored.name, dirty, sa.case((dirty, value), else_=stored))


def _salted(session: Session, stored: sa.ColumnClause[Any]) -> ColumnElement[str]:
    salt = session.config.hash_salt
    text = session.dialect.text(stored)
    return session.dialect.sha256(sa.literal(salt.get_secret_value() if salt else "", sa.Text()) + text)
