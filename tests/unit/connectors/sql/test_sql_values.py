from __future__ import annotations

import ipaddress
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sql.config import Retain
from connectors.sql.values import Kind, identity_value, jsonable, kind_of, typed


@given(st.text(), st.sampled_from(list(Kind)), st.none() | st.integers(1, 50))
def test_an_identity_is_converted_or_matches_nothing_and_never_fails(
    value: str, kind: Kind, length: int | None
) -> None:
    found = identity_value(kind, length, value)
    if found is not None and kind is Kind.INTEGER:
        assert str(found) == value
    if isinstance(found, str):
        found.encode()
        assert "\0" not in found


@given(st.text(max_size=30), st.sampled_from(list(Kind)))
def test_a_correction_is_converted_or_refused_without_being_quoted(value: str, kind: Kind) -> None:
    said = ""
    try:
        typed(kind, 20, "§" + value)
    except ValueError as error:
        said = str(error)
    assert "§" not in said


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_number_that_fits_finds_its_row(number: int) -> None:
    assert identity_value(Kind.INTEGER, None, str(number)) == number


def test_values_of_every_type_become_json() -> None:
    values = {
        "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "time": time(3, 4),
        "money": Decimal("1.10"),
        "raw": b"\x00\xff",
        "view": memoryview(b"a"),
        "id": uuid.UUID(int=1),
        "ip": ipaddress.ip_address("192.0.2.1"),
        "nan": float("nan"),
        "tiny": Decimal("1E-7"),
        "half": datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=UTC).replace(tzinfo=None),
        "nested": {"list": [Decimal(1), None, True], "set": {1}},
        "span": timedelta(hours=1),
    }
    assert json.loads(json.dumps(jsonable(values))) == {
        "when": "2026-01-02T03:04:05+00:00",
        "day": "2026-01-02",
        "time": "03:04:00",
        "money": "1.10",
        "raw": "AP8=",
        "view": "YQ==",
        "id": "00000000-0000-0000-0000-000000000001",
        "ip": "192.0.2.1",
        "nan": "NaN",
        "tiny": "0.0000001",
        "half": "2026-01-02T03:04:05.5",
        "nested": {"list": ["1", None, True], "set": [1]},
        "span": 3600.0,
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [("DECIMAL(10,2)", Kind.NUMBER), ("character varying", Kind.TEXT), ("int", Kind.INTEGER), ("geometry", Kind.OTHER)],
)
def test_type_names_of_all_servers_are_known(name: str, kind: Kind) -> None:
    assert kind_of(name) is kind


def test_a_period_of_years_ends_on_a_day_that_exists() -> None:
    leap = Retain.model_validate({"reason": "r", "legal_basis": "l", "years": 1, "from": "day"})
    assert leap.until(date(2024, 2, 29)) == date(2025, 2, 28)
    assert leap.cutoff(date(2028, 2, 29)) == date(2027, 2, 28)


@given(st.dates(date(1990, 1, 1), date(2050, 1, 1)), st.dates(date(1990, 1, 1), date(2050, 1, 1)), st.integers(1, 30))
def test_a_row_is_over_exactly_when_its_last_day_has_passed(start: date, today: date, years: int) -> None:
    period = Retain.model_validate({"reason": "r", "legal_basis": "l", "years": years, "from": "day"})
    if start.day <= 28 and today.day <= 28:
        assert (start <= period.cutoff(today)) == (period.until(start) <= today)
