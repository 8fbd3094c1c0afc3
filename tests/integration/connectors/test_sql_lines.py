"""What PostgreSQL's COPY sends becomes the same JSON as the rows themselves, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Json, Jsonb
from sqlalchemy.engine import make_url

from connectors.contract import Action, Done, Identity, Task
from connectors.sql import Sql
from connectors.sql.values import jsonable
from tests.support import sql_shop as shop

COLUMNS = {
    "t": "text", "v": "varchar(200)", "c": "char(7)", "i": "integer", "b": "boolean", "n": "numeric",
    "f": "double precision", "r": "real", "u": "uuid", "a": "inet", "d": "date", "h": "time",
    "m": "timestamp", "z": "timestamptz", "j": "json",
    "k": "jsonb", "x": "bytea", "e": "mood", '"share %"': "text",
}  # fmt: skip
NAMES = [n.strip('"') for n in COLUMNS]
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text(
    '\\"\x01\x02\x03\v\tNn:,}\n', max_size=12
)
OBJECTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MOMENTS = st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment.year >= 1900)
VALUES: list[st.SearchStrategy[Any]] = [
    TEXT,
    TEXT.map(lambda t: t[:200]),
    st.text('ab\\" ', max_size=7),
    st.integers(-(2**31), 2**31 - 1),
    st.booleans(),
    st.decimals(allow_nan=False, allow_infinity=False, places=6) | st.sampled_from([Decimal("1E-9"), Decimal("NaN")]),
    st.floats(),
    st.floats(width=32),
    st.uuids(),
    # Not ::ffff:1.2.3.4, which Python before 3.13 spells another way.
    (st.ip_addresses(v=4) | st.ip_addresses(network="2001:db8::/32")).map(str),
    st.dates(date(1900, 1, 1), date(9999, 12, 31)),
    st.times(),
    MOMENTS.map(lambda moment: moment.replace(tzinfo=None)),
    MOMENTS,
    OBJECTS.map(Json),
    OBJECTS.filter(lambda o: "\\u0000" not in json.dumps(o)).map(Jsonb),
    st.binary(max_size=100),
    st.sampled_from(["glad", 'so "so"\\']),
    TEXT,
]
ROWS = st.lists(st.tuples(*(st.none() | v for v in VALUES)), min_size=1, max_size=5)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 120000, UTC)
PLAIN: tuple[Any, ...] = (
    "t", "v", "c", 1, True, Decimal("1.50"), 0.5, 0.25, UUID(int=7), "192.0.2.1", date(2026, 1, 2), time(1, 2, 3),
    MOMENT.replace(tzinfo=None), MOMENT, Json({"a": "\\"}), Jsonb([None]), b"\x00\xff", "glad", "%",
)  # fmt: skip


@pytest.fixture
def things(postgres_database: str, tmp_path: Path) -> Iterator[tuple[psycopg.Connection[Any], Sql]]:
    """A connection to a table with a column of each kind, and a connector for it."""
    fields: list[dict[str, Any]] = [{"name": n, "data_categories": ["user"]} for n in ("id", "email", *NAMES)]
    fields[0]["fides_meta"] = {"primary_key": True}
    fields[1]["fides_meta"] = {"identity": "email"}
    document = {"dataset": [{"fides_key": "d", "name": "D", "collections": [{"name": "things", "fields": fields}]}]}
    connector = shop.system(postgres_database, tmp_path, document)
    with psycopg.connect(
        make_url(postgres_database).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        connection.autocommit = True
        connection.execute("CREATE TYPE mood AS ENUM ('glad', 'so \"so\"\\')")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        connection.execute(f"CREATE TABLE things (id integer PRIMARY KEY, email text, {columns})")
        yield connection, connector
    connector.close()


def fill(connection: psycopg.Connection[Any], rows: Sequence[Sequence[Any]], people: int) -> None:
    """The rows, shared out among people."""
    connection.execute("TRUNCATE things")
    places = ", ".join(["%s"] * (len(NAMES) + 2))
    for number, row in enumerate(rows):
        connection.execute(f"INSERT INTO things VALUES ({places})", (number, f"p{number % people}@x.example", *row))


def gathered(connector: Sql, people: int, **options: Any) -> list[list[dict[str, Any]]]:
    """For each person the records that access gives, in order of id."""
    call = shop.MemoryCall()
    tasks = [Task(f"r/{n}", Action.ACCESS, (Identity("email", f"p{n}@x.example"),), **options) for n in range(people)]
    shop.perform(connector, *tasks, call=call)
    return [sorted(call.sinks[t.key].of("things"), key=lambda record: record["id"]) for t in tasks]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, people=st.integers(1, 2))
@example(rows=[PLAIN] * 4, people=1)
@example(rows=[PLAIN, [None] * len(PLAIN), PLAIN], people=2)
@example(
    rows=[('say "hi"', "C:\\Next", "\\N", *PLAIN[3:14], Json({"a": '\\"'}), Jsonb({"\\": ':\\N,"'}), *PLAIN[16:])],
    people=1,
)
# A time that is NULL has two quotes less than others, and the text has as many more.
@example(rows=[('say "hi"', *PLAIN[1:13], None, Json(1), *PLAIN[15:])], people=1)
def test_lines_say_what_the_rows_say(
    things: tuple[psycopg.Connection[Any], Sql], rows: list[tuple[Any, ...]], people: int
) -> None:
    connection, connector = things
    fill(connection, rows, people)
    names = ("id", "email", *NAMES)
    read = connection.execute("SELECT * FROM things ORDER BY id").fetchall()
    expected = [{n: jsonable(v) for n, v in zip(names, row, strict=True)} for row in read]
    told = gathered(connector, people)
    for number in range(people):
        assert told[number] == expected[number::people]


def test_a_type_that_only_python_reads_is_read_by_python(postgres_database: str, tmp_path: Path) -> None:
    shop.execute(
        postgres_database,
        "CREATE TABLE things (id integer PRIMARY KEY, email text, l interval, g text[], o int4range)",
    )
    shop.execute(
        postgres_database,
        "INSERT INTO things VALUES (1, 'p0@x.example', interval '1 minute', '{a,b}', '[1,3)')",
    )
    fields: list[dict[str, Any]] = [{"name": n, "data_categories": ["user"]} for n in ("id", "email", *"lgo")]
    fields[0]["fides_meta"] = {"primary_key": True}
    fields[1]["fides_meta"] = {"identity": "email"}
    document = {"dataset": [{"fides_key": "d", "name": "D", "collections": [{"name": "things", "fields": fields}]}]}
    ((record,),) = gathered(shop.system(postgres_database, tmp_path, document), 1)
    assert record == {"id": 1, "email": "p0@x.example", "l": 60.0, "g": ["a", "b"], "o": "[1, 3)"}


def test_a_time_that_python_does_not_know_is_told_as_the_database_writes_it(
    things: tuple[psycopg.Connection[Any], Sql],
) -> None:
    connection, connector = things
    connection.execute("INSERT INTO things (id, email, d, z) VALUES (1, 'p0@x.example', '0044-03-15 BC', 'infinity')")
    ((record,),) = gathered(connector, 1)
    assert (record["d"], record["z"]) == ("0044-03-15 BC", "infinity")


def test_rows_come_once_though_several_identities_lead_to_them(postgres_database: str, tmp_path: Path) -> None:
    """Orders are found by the user id that was given, and by that of the user with that address: the same one."""
    shop.create(postgres_database)
    shop.seed(postgres_database, [1, 2, 3])
    connector = shop.system(postgres_database, tmp_path)
    call = shop.MemoryCall()
    both = shop.task(Action.ACCESS, 1, Identity("user_id", "1"))
    three = shop.task(Action.ACCESS, 2, Identity("user_id", "3"))
    results = shop.perform(connector, both, three, call=call)
    for task, users in ((both, {1}), (three, {2, 3})):
        assert isinstance(results[task.key], Done)
        for table in shop.TABLES:
            # A newsletter is found by the address alone.
            owners = users - {3} if table == "newsletter" else users
            found = len(call.sinks[task.key].of(table))
            assert found == sum(len(shop.person(n)[table]) for n in owners), table


class Full(RuntimeError):
    """There is no more room."""


class FullSink(shop.MemorySink):
    """Takes one block, and no more."""

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        if self.records:
            raise Full
        super().lines(collection, lines, count)


def test_a_sink_that_has_no_room_ends_the_call_alone(
    things: tuple[psycopg.Connection[Any], Sql],
) -> None:
    """What the server still sends is not taken for the answer to what is asked next."""
    connection, connector = things
    connection.execute(
        "INSERT INTO things (id, email, t) SELECT n, 'p0@x.example', repeat('x', 300) FROM generate_series(1, 20000) n"
    )
    call = shop.MemoryCall()
    call.sinks["r/0"] = FullSink()
    with pytest.raises(Full):
        shop.perform(connector, Task("r/0", Action.ACCESS, (Identity("email", "p0@x.example"),)), call=call)
    assert len(gathered(connector, 1)[0]) == 20000
