"""Arrays that are written a column at a time are what the database reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, DateTime, Integer, LargeBinary, SmallInteger, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, dialect

from orchestrator.broker.topology import libpq
from orchestrator.store import arrays

KINDS: dict[type[Any], st.SearchStrategy[Any]] = {
    Uuid: st.uuids(),
    LargeBinary: st.binary(max_size=40),
    Text: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20),
    DateTime: st.datetimes(timezones=st.just(UTC)),
    SmallInteger: st.integers(-(2**15), 2**15 - 1),
    Integer: st.integers(-(2**31), 2**31 - 1),
    BigInteger: st.integers(-(2**63), 2**63 - 1),
    Boolean: st.booleans(),
}


@pytest.fixture(scope="module")
def connection(postgres_server: str) -> Any:
    with psycopg.connect(libpq(postgres_server), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_column_comes_back_as_it_was_written(connection: Any, kind: type[Any], data: st.DataObject) -> None:
    values = data.draw(st.lists(KINDS[kind] | st.none(), max_size=30))
    column = DateTime(timezone=True) if kind is DateTime else kind()
    name = ARRAY(column).compile(dialect())
    back = connection.execute(f"SELECT CAST(%s AS {name})", [arrays.packed(kind, values)]).fetchone()[0]
    assert back == values


def test_a_moment_in_another_time_zone_is_the_same_moment(connection: Any) -> None:
    moment = datetime.fromisoformat("2026-03-29T02:30:00.000001+05:30")
    back = connection.execute("SELECT CAST(%s AS timestamptz[])", [arrays.packed(DateTime, [moment])]).fetchone()[0]
    assert back == [moment]


def test_what_is_not_known_is_left_to_the_driver() -> None:
    assert arrays.packed(float, [1.5]) == [1.5]
