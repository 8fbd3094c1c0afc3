"""The settings of an SQL system, as they are written in the systems file."""

from __future__ import annotations

import calendar
from datetime import date, timedelta
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.contract import ConnectorConfig, RelativePath

Strategy = Literal["null_rewrite", "string_rewrite", "hash", "random"]
Scalar = str | int | float | bool | None

NOW: Final = "$now"
"""In a ``set``: the time of the call."""


class Mask(ConnectorConfig):
    """How one column is masked. The plain name of a strategy stands for one without settings."""

    strategy: Strategy
    value: str = "masked"
    """``string_rewrite``: the text that takes the place of every value."""


class Retain(ConnectorConfig):
    """Which rows of a table the law keeps, and for how long."""

    reason: str = ""
    legal_basis: str = ""
    years: int = Field(default=0, ge=0)
    days: int = Field(default=0, ge=0)
    since: str | None = Field(default=None, alias="from")
    """The date or time column at which the period begins."""
    along: str | None = Field(default=None, alias="with")
    """Instead of a period: the table whose kept rows these rows belong to, e.g. the orders of order items."""
    mask: tuple[str, ...] = ()
    """Columns that are masked although the row stays."""

    @model_validator(mode="after")
    def _is_complete(self) -> Retain:
        if self.along and (self.years or self.days or self.since):
            raise ValueError("`with` takes the other table's period, so years, days and `from` do not go with it")
        if not self.along and not (self.reason and self.legal_basis):
            raise ValueError("reason and legal_basis say why rows are kept, and must be given")
        if (self.years or self.days) and not self.since:
            raise ValueError("years and days need `from`, the column at which the period begins")
        if self.since and not (self.years or self.days):
            raise ValueError("`from` needs years or days, the length of the period")
        return self

    def until(self, start: date) -> date:
        """The last day of the period that begins on ``start``; 29 February + 1 year is 28 February."""
        year = start.year + self.years
        last = calendar.monthrange(year, start.month)[1]
        return start.replace(year=year, day=min(start.day, last)) + timedelta(days=self.days)

    def cutoff(self, today: date) -> date:
        """Rows whose period began on or before this day are over."""
        before = today - timedelta(days=self.days)
        year = before.year - self.years
        last = calendar.monthrange(year, before.month)[1]
        return before.replace(year=year, day=min(before.day, last))


class Change(ConnectorConfig):
    """Columns to set in the person's rows of one table: ``{table: consents, where: {…}, set: {granted: false}}``."""

    table: str
    values: dict[str, Scalar] = Field(alias="set", min_length=1)
    where: dict[str, Scalar] = Field(default_factory=dict)
    """Only rows with exactly these values."""


class SqlConfig(ConnectorConfig):
    """Settings of an ``sql`` system."""

    url: SecretStr
    """SQLAlchemy URL: ``postgresql+psycopg://…``, ``mysql+pymysql://…`` (MariaDB too) or ``duckdb:////path``."""
    datasets: tuple[RelativePath, ...] = Field(min_length=1)
    """Fides dataset files (YAML), as written for Fides."""
    schema_name: str | None = Field(default=None, alias="schema")
    """Schema of the tables, unless a dataset's ``namespace`` names one; default: the connection's."""
    other_datasets: dict[str, str] = Field(default_factory=dict)
    """Dataset keys that these files refer to and that live in other systems → the name of that system."""
    identify_by: frozenset[str] | None = None
    """Identity types by which rows are found; default: all in the map but ``ip``, which many people share."""
    case_sensitive: frozenset[str] = frozenset()
    """``table.column`` of e-mail columns that are stored in lower case, so that a plain index serves."""
    masking: dict[str, Mask] = Field(default_factory=dict)
    """``table.column`` → how it is masked; overrides the dataset file."""
    hash_salt: SecretStr | None = None
    """Mixed into ``hash`` masks, so that nobody can find a value by hashing guesses."""
    retain: dict[str, Retain] = Field(default_factory=dict)
    """Table → what the law keeps of it."""
    restrict: tuple[Change, ...] = ()
    suppress: dict[str, tuple[Change, ...]] = Field(default_factory=dict)
    """Purpose → what to set."""
    statement_timeout_seconds: int = Field(default=300, ge=1)
    lock_timeout_seconds: int = Field(default=10, ge=1)
    fetch_rows: int = Field(default=1000, ge=1)
    """Rows held in memory at a time while reading row by row; PostgreSQL sends blocks instead."""
    pool_size: int = Field(default=4, ge=1)

    @field_validator("masking", mode="before")
    @classmethod
    def _a_name_is_a_strategy(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: {"strategy": mask} if isinstance(mask, str) else mask for key, mask in value.items()}
