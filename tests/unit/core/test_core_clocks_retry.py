"""Deadlines and delays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.clocks import add_months, deadline
from orchestrator.core.model import Clock, RetryPolicy
from orchestrator.core.retry import delay

moments = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds only


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2026-01-31", 1, "2026-02-28"),
        ("2028-01-31", 1, "2028-02-29"),
        ("2100-01-31", 1, "2100-02-28"),
        ("2028-02-29", 12, "2029-02-28"),
        ("2026-12-15", 1, "2027-01-15"),
        ("2026-11-30", 3, "2027-02-28"),
        ("2026-05-31", 0, "2026-05-31"),
    ],
)
def test_a_month_later_is_the_same_day_or_the_months_last(start: str, months: int, end: str) -> None:
    assert add_months(datetime.fromisoformat(start), months) == datetime.fromisoformat(end)


@given(moments, st.integers(0, 60))
def test_months_never_skip_a_month_and_never_pass_the_day(moment: datetime, months: int) -> None:
    later = add_months(moment, months)
    assert (later.year * 12 + later.month) - (moment.year * 12 + moment.month) == months
    assert later.day <= moment.day
    assert later.time() == moment.time()


@given(moments, moments, st.integers(0, 24))
def test_who_asks_earlier_is_never_due_later(one: datetime, other: datetime, months: int) -> None:
    first, second = sorted([one, other])
    assert add_months(first, months).date() <= add_months(second, months).date()


def test_an_extension_comes_on_top() -> None:
    gdpr = Clock("gdpr", months=1, extension_months=2)
    ccpa = Clock("ccpa", days=45, extension_days=45)
    received = datetime(2026, 1, 31, tzinfo=UTC)
    assert deadline(gdpr, received).date().isoformat() == "2026-02-28"
    assert deadline(gdpr, received, extended=True).date().isoformat() == "2026-04-28"
    assert deadline(ccpa, received, extended=True) - received == timedelta(days=90)


seconds = st.floats(0, 10**7).map(lambda s: timedelta(seconds=s))
policies = st.builds(RetryPolicy, base=seconds, cap=seconds)


@given(policies, st.integers(1, 10_000), st.floats(0, 1), st.none() | seconds)
def test_a_delay_is_never_beyond_the_cap_nor_before_the_system_wants_us(
    policy: RetryPolicy, failures: int, jitter: float, after: timedelta | None
) -> None:
    wait = delay(policy, failures, jitter, after)
    assert wait >= (after or timedelta())
    assert wait <= max(policy.cap, after or timedelta())


@given(policies, st.integers(1, 100))
def test_the_full_delay_doubles_until_the_cap(policy: RetryPolicy, failures: int) -> None:
    now, then = delay(policy, failures, 1.0), delay(policy, failures + 1, 1.0)
    assert now == min(policy.base, policy.cap) if failures == 1 else now <= policy.cap
    assert then == min(now * 2, policy.cap) or now == policy.cap


def test_the_delays_of_the_default_policy() -> None:
    waits = [int(delay(RetryPolicy(), n, 1.0).total_seconds()) for n in range(1, 12)]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    assert delay(RetryPolicy(), 5, 0.0) == timedelta()
