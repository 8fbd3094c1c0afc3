"""What is written is what is read, whatever stands in it, for one row and for many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from orchestrator.core.model import NEVER, Residue, Result, Retention, Run, Step
from orchestrator.core.vocabulary import Action, Failure, Outcome, ParkedFor, Right, StepState
from orchestrator.privacy.audit import GENESIS
from orchestrator.store import runs
from orchestrator.store.database import Database

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ODD = ["", '"', "\\", '\\"', '""', "a,b", "(x)", " ", "\n", "\r\n", "NULL", "\\\\", "{}", "\x1e", "\u2028", "é"]
words = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12) | st.sampled_from(ODD)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, json_values, max_size=3)
moments = st.datetimes(datetime(1999, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)) | st.just(NEVER)  # noqa: DTZ001
until = st.none() | st.just(date(2030, 1, 1))
results = st.builds(
    Result,
    st.sampled_from(list(Outcome)),
    st.dictionaries(words, st.integers(0, 2**40), max_size=3),
    st.lists(st.builds(Retention, words, words, words, st.integers(0, 9), until), max_size=2).map(tuple),
    st.lists(st.builds(Residue, words, st.just(date(2030, 1, 1))), max_size=2).map(tuple),
    objects,
    words,
)
steps = st.builds(
    Step,
    ordinal=st.just(0),
    name=words,
    system=words,
    action=st.sampled_from(list(Action)),
    state=st.sampled_from(list(StepState)),
    due=moments,
    needs=st.frozensets(st.integers(0, 300), max_size=3),
    options=objects,
    failures=st.integers(0, 9),
    crashes=st.integers(0, 9),
    token=st.none() | st.uuids(),
    handle=st.none() | objects,
    signal=st.none() | objects,
    parked_for=st.none() | st.sampled_from(list(ParkedFor)),
    waiting_on=words,
    failure=st.none() | st.sampled_from(list(Failure)),
    error=words,
    result=st.none() | results,
)


@pytest.fixture
def tx(migrated_database: str) -> Iterator[Connection]:
    database = Database(migrated_database)
    with database.engine.connect() as connection:
        yield connection
    database.close()


def header(id_: UUID) -> runs.Header:
    return runs.Header(
        id_, "erasure", "gdpr", "urn:test", str(id_), "erasure", 1, 30, None, None, None, NOW, 0, GENESIS
    )


def a_run(*its: Step) -> Run:
    numbered = tuple(replace(s, ordinal=n) for n, s in enumerate(its))
    return Run(uuid4(), Right.ERASURE, numbered, NOW)


def read(tx: Connection, of: list[Run]) -> list[Run]:
    back = runs.lock(tx, [r.request for r in of]).stored
    return [back[r.request].run for r in of]


def write(tx: Connection, new: list[Run]) -> None:
    changes = [runs.Change(header(r.request), None, r) for r in new]
    runs.save(tx, changes, runs.chain(changes, NOW))


anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@anything
@given(st.lists(steps, min_size=1, max_size=4))
def test_a_step_is_read_as_it_was_written_whatever_stands_in_it(tx: Connection, its: list[Step]) -> None:
    new = [a_run(*its)]
    write(tx, new)
    assert read(tx, new) == new
    tx.rollback()


def kept(step: Step) -> dict[str, object]:
    """What never changes in a step's life."""
    return {name: getattr(step, name) for name in ("ordinal", "name", "system", "action", "needs", "options")}


@anything
@given(st.lists(steps, min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=40, max_size=40))
def test_many_steps_that_say_the_same_in_places_are_each_written_as_they_are(
    tx: Connection, kinds: list[Step], which: list[int]
) -> None:
    chosen = [kinds[n % len(kinds)] for n in which]
    new = [a_run(one) for one in chosen[:20]]
    write(tx, new)
    assert read(tx, new) == new
    after = [replace(r, steps=(replace(o, **kept(r.steps[0])),)) for r, o in zip(new, chosen[20:], strict=True)]
    changes = [runs.Change(header(a.request), b, a) for b, a in zip(new, after, strict=True)]
    runs.save(tx, changes, runs.chain(changes, NOW))
    assert read(tx, new) == after
    tx.rollback()


def test_it_does_not_depend_on_how_the_server_writes_dates(migrated_database: str) -> None:
    database = Database(migrated_database)
    with database.transaction() as tx:
        for setting, value in (("datestyle", "German"), ("timezone", "Asia/Kolkata")):
            change = f"format('ALTER DATABASE %I SET {setting} = %L', current_database(), '{value}')"
            tx.execute(text(f"DO $$ BEGIN EXECUTE {change}; END $$"))
    database.close()
    new = [a_run(Step(0, "a", "crm", Action.ERASE, StepState.PARKED, due=NOW))]
    with database.transaction() as tx:
        write(tx, new)
        assert read(tx, new) == new
    database.close()
