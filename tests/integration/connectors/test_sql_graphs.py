"""Graphs of tables: composite keys, circles, rows that cannot let go; and the law of erasure on random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.contract import Action, Done, Fatal, Identity, Outcome, Task
from connectors.sql import Sql
from tests.support import sql_shop as shop


def collection(name: str, key: str | list[str], *, delete: bool = True, **fields: Any) -> dict[str, Any]:
    """A collection; a field is given by its category and ``>table.column`` (from) or ``<`` (to) references."""
    keys = [key] if isinstance(key, str) else key
    found = []
    for field, notes in {**dict.fromkeys(keys, ""), **fields}.items():
        meta: dict[str, Any] = {"primary_key": True} if field in keys else {}
        entry: dict[str, Any] = {"name": field}
        for note in notes.split():
            if note[0] in "<>":
                direction = "from" if note[0] == ">" else "to"
                meta.setdefault("references", []).append({"dataset": "d", "field": note[1:], "direction": direction})
            elif note[0] == "@":
                meta["identity"] = note[1:]
            else:
                entry["data_categories"] = [note]
        if meta:
            entry["fides_meta"] = meta
        found.append(entry)
    strategy = {"fides_meta": {"masking_strategy_override": {"strategy": "delete"}}} if delete else {}
    return {"name": name, "fields": found, **strategy}


def document(*collections: dict[str, Any]) -> dict[str, Any]:
    return {"dataset": [{"fides_key": "d", "name": "D", "collections": list(collections)}]}


def erase(connector: Sql, value: str, *, now: Any = shop.NOW) -> Done:
    task = Task("r/1", Action.ERASE, (Identity("email", value),))
    result = shop.only(shop.perform(connector, task, call=shop.MemoryCall(now)))
    assert isinstance(result, Done), result
    return result


def make(url: str, *statements: str) -> None:
    for statement in statements:
        shop.execute(url, statement)


def test_a_composite_key_matches_whole_or_not_at_all(sql_database: str, tmp_path: Path) -> None:
    make(
        sql_database,
        "CREATE TABLE people (tenant INTEGER, num INTEGER, email VARCHAR(50), PRIMARY KEY (tenant, num))",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, tenant INTEGER, owner INTEGER, body VARCHAR(50))",
        "INSERT INTO people VALUES (1, 1, 'a@x.example'), (1, 2, 'b@x.example'), (2, 1, 'c@x.example')",
        "INSERT INTO notes VALUES (1, 1, 1, 'a'), (2, 1, 2, 'b'), (3, 2, 1, 'c'), (4, NULL, 1, 'none')",
    )
    data = document(
        collection("people", ["tenant", "num"], email="user.contact.email @email"),
        collection("notes", "id", tenant=">people.tenant", owner=">people.num", body="user.content"),
    )
    assert erase(shop.system(sql_database, tmp_path, data), "a@x.example").counts == {"people": 1, "notes": 1}
    assert shop.execute(sql_database, "SELECT id FROM notes ORDER BY id") == [(2,), (3,), (4,)]


def test_references_to_one_column_are_alternatives(sql_database: str, tmp_path: Path) -> None:
    make(
        sql_database,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50))",
        "CREATE TABLE chats (id INTEGER PRIMARY KEY, sender INTEGER, recipient INTEGER)",
        "INSERT INTO people VALUES (1, 'a@x.example'), (2, 'b@x.example')",
        "INSERT INTO chats VALUES (1, 1, 2), (2, 2, 1), (3, 2, 2), (4, 1, 1)",
    )
    data = document(
        collection("people", "id", email="user.contact.email @email"),
        collection("chats", "id", sender=">people.id", recipient=">people.id"),
    )
    assert erase(shop.system(sql_database, tmp_path, data), "a@x.example").counts == {"people": 1, "chats": 3}
    assert shop.execute(sql_database, "SELECT id FROM chats") == [(3,)]


def test_a_circle_of_references_is_followed_to_its_end(sql_database: str, tmp_path: Path) -> None:
    make(
        sql_database,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50))",
        "CREATE TABLE folders (id INTEGER PRIMARY KEY, owner INTEGER, inside INTEGER)",
        "CREATE TABLE shares (id INTEGER PRIMARY KEY, of_folder INTEGER, makes_folder INTEGER)",
        "INSERT INTO people VALUES (1, 'a@x.example'), (2, 'b@x.example')",
        "INSERT INTO folders VALUES (1, 1, NULL), (2, NULL, 1), (3, NULL, 2), (4, NULL, 3), (5, 2, NULL), (6, NULL, 5)",
        "INSERT INTO folders VALUES (7, NULL, NULL), (8, NULL, 7)",
        "INSERT INTO shares VALUES (1, 4, 7), (2, 8, 1), (3, 6, 5)",
    )
    data = document(
        collection("people", "id", email="user.contact.email @email"),
        collection("folders", "id", owner=">people.id", inside=">folders.id"),
        collection("shares", "id", of_folder=">folders.id", makes_folder="<folders.id"),
    )
    counts = erase(shop.system(sql_database, tmp_path, data), "a@x.example").counts
    assert counts == {"people": 1, "folders": 6, "shares": 2}
    assert shop.execute(sql_database, "SELECT id FROM folders ORDER BY id") == [(5,), (6,)]


@pytest.mark.parametrize("sql_database", ["postgresql", "mariadb"], indirect=True)  # DuckDB locks such rows.
def test_a_row_that_somebody_elses_row_must_point_to_stays_masked(sql_database: str, tmp_path: Path) -> None:
    make(
        sql_database,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50))",
        "CREATE TABLE posts (id INTEGER PRIMARY KEY, author INTEGER, body VARCHAR(50), "
        "FOREIGN KEY (author) REFERENCES people (id))",
        "CREATE TABLE answers (id INTEGER PRIMARY KEY, post INTEGER NOT NULL, author INTEGER, body VARCHAR(50), "
        "FOREIGN KEY (post) REFERENCES posts (id))",
        "INSERT INTO people VALUES (1, 'a@x.example'), (2, 'b@x.example')",
        "INSERT INTO posts VALUES (1, 1, 'mine'), (2, 1, 'mine, answered by me'), (3, 1, 'mine, answered by b')",
        "INSERT INTO answers VALUES (1, 2, 1, 'me'), (2, 3, 2, 'b')",
    )
    data = document(
        collection("people", "id", email="user.contact.email @email"),
        collection("posts", "id", author=">people.id", body="user.content"),
        collection("answers", "id", post="system", author=">people.id", body="user.content"),
    )
    counts = erase(shop.system(sql_database, tmp_path, data), "a@x.example")
    assert counts.evidence["deleted"] == {"answers": 1, "people": 1, "posts": 2}
    assert shop.execute(sql_database, "SELECT * FROM posts") == [(3, None, None)]
    assert shop.execute(sql_database, "SELECT * FROM answers") == [(2, 3, 2, "b")]
    assert shop.execute(sql_database, "SELECT id FROM people") == [(2,)]


def test_foreign_keys_decide_the_order_even_against_the_references(sql_database: str, tmp_path: Path) -> None:
    make(
        sql_database,
        "CREATE TABLE addresses (id INTEGER PRIMARY KEY, street VARCHAR(50))",
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50), address INTEGER NOT NULL, "
        "FOREIGN KEY (address) REFERENCES addresses (id))",
        "INSERT INTO addresses VALUES (1, 'S 1'), (2, 'S 2')",
        "INSERT INTO people VALUES (1, 'a@x.example', 1), (2, 'b@x.example', 2)",
    )
    data = document(
        collection("addresses", "id", street="user.contact.address"),
        collection("people", "id", email="user.contact.email @email", address="<addresses.id"),
    )
    assert erase(shop.system(sql_database, tmp_path, data), "a@x.example").counts == {"addresses": 1, "people": 1}
    assert shop.execute(sql_database, "SELECT id FROM addresses") == [(2,)]


@pytest.mark.parametrize("sql_database", ["postgresql", "mariadb"], indirect=True)
def test_tables_that_point_at_each_other_are_erased(sql_database: str, tmp_path: Path) -> None:
    make(
        sql_database,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50), main INTEGER)",
        "CREATE TABLE cards (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, "
        "FOREIGN KEY (owner) REFERENCES people (id))",
        "INSERT INTO people VALUES (1, 'a@x.example', NULL), (2, 'b@x.example', NULL)",
        "INSERT INTO cards VALUES (1, 1), (2, 1), (3, 2)",
        "UPDATE people SET main = id",
        "ALTER TABLE people ADD CONSTRAINT main_card FOREIGN KEY (main) REFERENCES cards (id)",
    )
    data = document(
        collection("people", "id", email="user.contact.email @email", main="system"),
        collection("cards", "id", owner=">people.id"),
    )
    shop.execute(sql_database, "UPDATE people SET main = 3 WHERE id = 2")
    assert erase(shop.system(sql_database, tmp_path, data), "a@x.example").counts == {"people": 1, "cards": 2}
    assert shop.execute(sql_database, "SELECT * FROM people") == [(2, "b@x.example", 3)]


@pytest.mark.parametrize("sql_database", ["postgresql", "mariadb"], indirect=True)
def test_one_person_whose_rows_cannot_go_does_not_keep_the_others(sql_database: str, tmp_path: Path) -> None:
    shop.create(sql_database)
    shop.seed(sql_database, range(1, 9))
    make(
        sql_database,
        "CREATE TABLE unmapped (id INTEGER PRIMARY KEY, who BIGINT NOT NULL, FOREIGN KEY (who) REFERENCES users (id))",
        "INSERT INTO unmapped VALUES (1, 5)",
    )
    before = shop.contents(sql_database)
    connector = shop.system(sql_database, tmp_path)
    results = shop.perform(connector, *(shop.task(Action.ERASE, n) for n in range(1, 8)))
    poison = results.pop("r5/1")
    assert isinstance(poison, Fatal)
    assert "unmapped" in str(poison)
    assert {r.outcome for r in results.values() if isinstance(r, Done)} == {Outcome.EXECUTED}
    assert len(results) == 6
    after = shop.contents(sql_database)
    assert [r[0] for r in after["users"]] == [5, 8]
    for table in ("orders", "addresses", "comments"):
        assert [r for r in after[table] if str(r[0])[0] == "5"] == [r for r in before[table] if str(r[0])[0] == "5"]


# The law. --------------------------------------------------------------------------------------------------------

PEOPLE, ROWS, TABLES = 3, 5, 4
Row = tuple[int | None, int | None]
"""What a row's two pointers say."""


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[list[Row]]]:
    """For each of a few tables, which earlier (or the same) tables its two columns point to, and its rows."""
    shapes: list[tuple[int, int]] = []
    data: list[list[Row]] = []
    for table in range(TABLES):
        shapes.append((draw(st.integers(-1, table)), draw(st.integers(-1, table))))
        pointer = st.one_of(st.none(), st.integers(1, ROWS))
        data.append(draw(st.lists(st.tuples(pointer, pointer), min_size=ROWS, max_size=ROWS)))
    return shapes, data


def reached(shapes: list[tuple[int, int]], data: list[list[Row]], person: int) -> set[tuple[int, int]]:
    """The rows of a person, found the slow way: (table, id); table -1 holds the people."""
    seen = {(-1, person)}
    while True:
        more = {
            (table, number)
            for table, rows in enumerate(data)
            for number, row in enumerate(rows, 1)
            if any((target, value) in seen for target, value in zip(shapes[table], row, strict=True))
        }
        if more <= seen:
            return seen
        seen |= more


@pytest.fixture
def world_url(postgres_database: str) -> str:
    """A database with tables enough for every world; their rows and the map change, the columns do not."""
    make(postgres_database, "CREATE TABLE people (id INTEGER PRIMARY KEY, email VARCHAR(50))")
    for table in range(TABLES):
        make(postgres_database, f"CREATE TABLE t{table} (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER)")
    return postgres_database


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(worlds())
def test_whatever_the_graph_all_that_is_reached_goes_and_all_else_stays(
    world_url: str, tmp_path: Path, world: tuple[list[tuple[int, int]], list[list[Row]]]
) -> None:
    shapes, data = world
    names = {-1: "people", **{n: f"t{n}" for n in range(TABLES)}}
    with shop.connected(world_url) as connection:
        connection.execute(sa.text("TRUNCATE people, t0, t1, t2, t3"))
        people = [{"id": n, "e": f"p{n}@x.example"} for n in range(1, PEOPLE + 1)]
        connection.execute(sa.text("INSERT INTO people VALUES (:id, :e)"), people)
        for table, rows in enumerate(data):
            values = [{"id": n, "a": a, "b": b} for n, (a, b) in enumerate(rows, 1)]
            connection.execute(sa.text(f"INSERT INTO t{table} VALUES (:id, :a, :b)"), values)
    maps = [collection("people", "id", email="user.contact.email @email")]
    reachable = {-1}
    for _ in range(TABLES):
        reachable |= {t for t, shape in enumerate(shapes) if set(shape) & reachable}
    for table, (a, b) in enumerate(shapes):
        made = collection(names[table], "id", a=f">{names[a]}.id", b=f">{names[b]}.id")
        made["fides_meta"]["skip_processing"] = table not in reachable
        maps.append(made)
    (tmp_path / "dataset.yml").write_text(yaml.safe_dump(document(*maps)))
    config = Sql.Config.model_validate({"url": world_url, "datasets": [tmp_path / "dataset.yml"]})
    connector = Sql("world", config)
    try:
        assert erase(connector, "p1@x.example").outcome is Outcome.EXECUTED
    finally:
        connector.close()
    gone = reached(shapes, data, 1)
    with shop.connected(world_url) as connection:
        for table, name in names.items():
            left = {tuple(r) for r in connection.execute(sa.text(f"SELECT * FROM {name}"))}
            held: list[Any] = [*data[table]] if table >= 0 else [(f"p{n}@x.example",) for n in range(1, PEOPLE + 1)]
            assert left == {(n, *row) for n, row in enumerate(held, 1) if (table, n) not in gone}
