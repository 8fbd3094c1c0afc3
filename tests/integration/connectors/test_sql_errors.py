from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from connectors.contract import Action, Done, Fatal, Outcome, Retryable, Unauthorised
from connectors.sql.errors import SchemaDrift
from tests.support import sql_shop as shop

SERVERS = pytest.mark.parametrize("sql_database", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture
def filled(sql_database: str) -> str:
    shop.create(sql_database)
    shop.seed(sql_database, [1, 2])
    return sql_database


def test_a_missing_column_and_a_missing_table_are_named_and_their_return_is_noticed(
    filled: str, tmp_path: Path
) -> None:
    connector = shop.system(filled, tmp_path)
    shop.execute(filled, "ALTER TABLE newsletter RENAME COLUMN topic TO subject")
    shop.execute(filled, "DROP TABLE consents")
    drift = shop.only(shop.perform(connector, shop.task(Action.ERASE, 1)))
    assert isinstance(drift, SchemaDrift)
    assert "table consents" in str(drift)
    assert "column newsletter.topic" in str(drift)
    shop.execute(filled, "ALTER TABLE newsletter RENAME COLUMN subject TO topic")
    shop.execute(filled, "CREATE TABLE consents (user_id BIGINT, purpose VARCHAR(20), granted BOOLEAN)")
    assert isinstance(shop.only(shop.perform(connector, shop.task(Action.ERASE, 1))), Done)


def test_a_column_that_goes_while_we_run_is_drift_and_the_catalogue_is_read_again(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    shop.perform(connector, shop.task(Action.DISCOVER, 1))
    shop.execute(filled, "ALTER TABLE newsletter RENAME COLUMN topic TO subject")
    first = shop.only(shop.perform(connector, shop.task(Action.ACCESS, 1)))
    assert isinstance(first, SchemaDrift)
    second = shop.only(shop.perform(connector, shop.task(Action.ACCESS, 1)))
    assert "column newsletter.topic" in str(second)


@SERVERS
def test_wrong_credentials_are_told_apart_from_a_server_that_is_away(filled: str, tmp_path: Path) -> None:
    url = make_url(filled)
    refused = shop.system(
        url.set(username="nobody_at_all", password="wrong").render_as_string(hide_password=False), tmp_path
    )
    away = shop.system(url.set(host="127.0.0.1", port=9, query={}).render_as_string(hide_password=False), tmp_path)
    denied = shop.only(shop.perform(refused, shop.task(Action.DISCOVER, 1)))
    assert isinstance(denied, Unauthorised | Retryable) if "host=" in filled else isinstance(denied, Unauthorised)
    assert isinstance(shop.only(shop.perform(away, shop.task(Action.DISCOVER, 1))), Retryable)


@SERVERS
def test_a_locked_row_is_retryable(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path, lock_timeout_seconds=1)
    with shop.connected(filled) as other:
        other.execute(sa.text("UPDATE profiles SET bio = 'held' WHERE user_id = 1"))
        result = shop.only(shop.perform(connector, shop.task(Action.ERASE, 1)))
    assert isinstance(result, Retryable)
    again = shop.only(shop.perform(connector, shop.task(Action.ERASE, 1)))
    assert isinstance(again, Done)


@SERVERS
def test_a_cut_connection_is_retryable_and_the_next_call_works(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    cut = threading.Event()

    def kill(connection: sa.Connection, *_: object) -> None:
        if cut.is_set():
            return
        cut.set()
        own = "pg_backend_pid()" if filled.startswith("postgresql") else "connection_id()"
        number = connection.exec_driver_sql(f"SELECT {own}").scalar_one()
        end = "SELECT pg_terminate_backend(:n)" if filled.startswith("postgresql") else f"KILL {number}"
        shop.execute(filled, end, **({"n": number} if ":n" in end else {}))

    shop.perform(connector, shop.task(Action.DISCOVER, 1))
    engine = connector._database.engine
    sa.event.listen(engine, "before_execute", kill)
    lost = shop.only(shop.perform(connector, shop.task(Action.ERASE, 1)))
    sa.event.remove(engine, "before_execute", kill)
    assert isinstance(lost, Retryable)
    assert shop.execute(filled, "SELECT count(*) FROM users") == [(2,)]
    assert isinstance(shop.only(shop.perform(connector, shop.task(Action.ERASE, 1))), Done)


@pytest.mark.parametrize("sql_database", ["duckdb"], indirect=True)
def test_a_file_in_use_by_another_process_is_retryable_soon(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    program = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, make_url(filled).database or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        busy = shop.only(shop.perform(connector, shop.task(Action.ERASE, 1)))
        other.communicate("")
    assert isinstance(busy, Retryable)
    assert busy.after is not None
    assert isinstance(shop.only(shop.perform(connector, shop.task(Action.ERASE, 1))), Done)


def test_no_error_tells_a_persons_data(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    clash = shop.task(Action.RECTIFY, 1, corrections={"user.contact.email": "Person2@Example.org"})
    error = shop.only(shop.perform(connector, clash))
    assert isinstance(error, Fatal)
    chain: BaseException | None = error
    while chain is not None:
        assert "Person2" not in str(chain)
        chain = chain.__cause__
    assert error.__suppress_context__


@SERVERS
def test_a_forked_process_makes_connections_of_its_own(filled: str, tmp_path: Path) -> None:
    connector = shop.system(filled, tmp_path)
    shop.perform(connector, shop.task(Action.DISCOVER, 1))
    child = os.fork()
    if child == 0:
        result = shop.only(shop.perform(connector, shop.task(Action.DISCOVER, 2)))
        os._exit(0 if isinstance(result, Done) and result.outcome is Outcome.EXECUTED else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert isinstance(shop.only(shop.perform(connector, shop.task(Action.DISCOVER, 1))), Done)


@SERVERS
def test_threads_share_a_connector(filled: str, tmp_path: Path) -> None:
    shop.seed(filled, range(3, 9))
    connector = shop.system(filled, tmp_path)
    results: dict[str, object] = {}

    def work(number: int) -> None:
        results.update(shop.perform(connector, shop.task(Action.ERASE, number)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A deadlock between them is honest: it is retryable, and the retry ends it.
    for number in range(1, 9):
        if isinstance(results[f"r{number}/1"], Retryable):
            results.update(shop.perform(connector, shop.task(Action.ERASE, number)))
    assert all(isinstance(r, Done) for r in results.values()), results
    assert shop.execute(filled, "SELECT count(*) FROM users") == [(0,)]
