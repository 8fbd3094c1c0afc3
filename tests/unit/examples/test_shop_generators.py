"""The demo shop's generators: repeatable, connected, and with everything in them that the policy speaks of."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from fideslang.default_taxonomy import DEFAULT_TAXONOMY
from fideslang.models import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.shop import analytics, logfiles, users
from examples.shop.people import RIGHTS, cast
from examples.shop.persons import TODAY, make_persons

SHOP = Path(users.__file__).parent
PERSONS = make_persons(7, 60)


def columns(schema: str) -> dict[str, list[str]]:
    """Table → columns, from the schema file."""
    tables = re.findall(r"create table (\w+) \((.*?)\n\);", (SHOP / schema).read_text(), re.DOTALL)
    return {
        name: [word for word in re.findall(r"^    (\w+) ", body, re.MULTILINE) if word not in {"primary", "unique"}]
        for name, body in tables
    }


def datasets(file: str) -> list[Dataset]:
    return [Dataset.model_validate(raw) for raw in yaml.safe_load((SHOP / "datamap" / file).read_text())["dataset"]]


def test_the_same_seed_gives_the_same_people_rows_and_requests() -> None:
    again = make_persons(7, 60)
    assert again == PERSONS
    assert users.make_rows(again, 7, {}) == users.make_rows(PERSONS, 7, {})
    assert analytics.make_rows(again, 7) == analytics.make_rows(PERSONS, 7)
    assert cast(again, 7, 30) == cast(PERSONS, 7, 30)


def test_the_same_seed_gives_the_same_log_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        logfiles.create(tmp_path / name, PERSONS, 7, lines=2000)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 2 * logfiles.DAYS
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_another_seed_gives_other_people() -> None:
    assert not {person.user_id for person in PERSONS} & {person.user_id for person in make_persons(8, 60)}


@given(seed=st.integers(0, 10**6), count=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_no_two_people_share_an_identifier(seed: int, count: int) -> None:
    persons = make_persons(seed, count)
    shared = Counter(
        value
        for person in persons
        for value in (
            person.user_id,
            person.email,
            person.username,
            person.phone,
            person.ip,
            person.cookie_id,
            *person.device_ids,
        )
    )
    assert set(shared.values()) == {1}


@given(seed=st.integers(0, 10**6), requests=st.integers(6, 60))
@settings(max_examples=50, deadline=None)
def test_requests_are_of_every_right_and_of_distinct_people_and_everyone_else_is_a_bystander(
    seed: int, requests: int
) -> None:
    chosen = cast(PERSONS, seed, requests)
    asking = {request.person.user_id for request in chosen.requests}
    assert len(asking) == len(chosen.requests) == requests
    assert {request.right for request in chosen.requests} == set(RIGHTS)
    assert asking.isdisjoint(person.user_id for person in chosen.bystanders)
    assert len(chosen.bystanders) == len(PERSONS) - requests
    assert asking <= {person.user_id for person in chosen.customers}


def test_three_hundred_requests_are_half_erasure_and_a_fifth_access() -> None:
    rights = Counter(request.right for request in cast(make_persons(7, 700), 7, 300).requests)
    assert (rights["erasure"], rights["access"]) == (150, 60)


def test_corrections_say_something_new_and_objections_name_purposes() -> None:
    for request in cast(PERSONS, 7, 60).requests:
        assert bool(request.corrections) == (request.right == "rectification")
        assert bool(request.purposes) == (request.right == "objection")
        if request.corrected:
            assert request.corrected != request.person
            assert request.corrected.user_id == request.person.user_id


def test_more_requests_than_people_are_refused() -> None:
    with pytest.raises(ValueError, match="61 requests need as many people"):
        cast(PERSONS, 7, 61)


def test_every_row_fits_its_table_and_nothing_happens_after_today() -> None:
    for schema, rows in (
        ("users.sql", users.make_rows(PERSONS, 7, {})),
        ("analytics.sql", analytics.make_rows(PERSONS, 7)),
    ):
        for table, names in columns(schema).items():
            assert rows[table], f"{table} is empty"
            assert {len(row) for row in rows[table]} == {len(names)}, table
            moments = (value for row in rows[table] for value in row if isinstance(value, datetime))
            assert all(moment <= TODAY for moment in moments)


def test_every_log_line_is_in_its_format_and_in_order_of_time(tmp_path: Path) -> None:
    logfiles.create(tmp_path, PERSONS, 7, lines=6000)
    combined = re.compile(rb'\S+ - \S+ \[([^]]+)\] "GET \S+ HTTP/1\.1" \d{3} \d+ "[^"]*" "[^"]*"\n')
    for path in tmp_path.iterdir():
        lines = list(logfiles.open_log(path))
        if path.name.startswith("app"):
            times = [json.loads(line)["time"].encode() for line in lines]
        else:
            times = [match[1] for line in lines if (match := combined.fullmatch(line))]
        assert len(times) == len(lines) > 0
        assert times == sorted(times)


def test_packed_logs_read_like_plain_ones_wherever_chunks_end() -> None:
    content = b"".join(b"%d\n" % number for number in range(1000)) + b"\n\nlast without an end"
    for size in (1, 3, 7, 4096):
        chunks = [content[at : at + size] for at in range(0, len(content), size)]
        chunks.append(b"")
        left = iter(chunks)
        assert list(logfiles._lines(lambda _, left=left: next(left))) == content.splitlines(keepends=True)  # type: ignore[misc]


def test_the_data_map_names_every_column_and_no_other() -> None:
    for file, schema, nobodys in (
        ("users.yml", "users.sql", {"products"}),
        ("analytics.yml", "analytics.sql", {"daily_sales"}),
    ):
        mapped = {c.name: {f.name for f in c.fields} for d in datasets(file) for c in d.collections}
        tables = {name: set(names) for name, names in columns(schema).items() if name not in nobodys}
        assert mapped == tables


def test_the_data_map_uses_only_categories_of_the_default_taxonomy() -> None:
    known = {category.fides_key for category in DEFAULT_TAXONOMY.data_category}
    for file in ("users.yml", "analytics.yml"):
        for collection in (c for d in datasets(file) for c in d.collections):
            for field in collection.fields:
                assert set(field.data_categories or ()) <= known, f"{collection.name}.{field.name}"
