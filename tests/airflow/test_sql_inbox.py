"""`inbox_sql` on real connections: a Postgres with its provider, and a SQLite file behind a hook defined here."""

from __future__ import annotations

import json
import os
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from console import SELLER
from doc_blocks import blocks
from order_samples import good_line, good_order
from postgres import serving

from demo.postgres import NoServerError
from feedamp.errors import ConfigurationError, TransientError
from feedamp_airflow.connections import connection_by_id
from feedamp_airflow.sql_inbox import SqlInbox

INBOX_PAGE = Path(__file__).parents[2] / "docs" / "inbox.md"
QUERY = 'SELECT seller_id, body::text AS "order" FROM outbox ORDER BY id'
PRICE = "99999999999999.99"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A fresh Postgres database, as a URL."""
    try:
        with serving() as server:
            yield server.database()
    except NoServerError as error:
        if os.environ.get("CI"):
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        pytest.skip(str(error))


def order(number: str, **changes: Any) -> str:
    lines = [good_line(mp_line_number=f"{number}-1")]
    body = good_order(**{"mp_order_number": number, "order_lines": lines} | changes)
    return json.dumps(body, default=float).replace("25.5", PRICE)


@pytest.fixture
def market(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The marketplace's database with an outbox of one order, as connection `market`."""
    psycopg = pytest.importorskip("psycopg")
    url = urlsplit(database)
    fields = {"conn_type": "postgres", "host": url.hostname, "port": url.port, "login": url.username}
    fields |= {"password": url.password, "schema": url.path.lstrip("/")}
    monkeypatch.setenv("AIRFLOW_CONN_MARKET", json.dumps(fields))
    with psycopg.connect(database.replace("postgresql+psycopg", "postgresql"), autocommit=True) as opened:
        opened.execute("DROP TABLE IF EXISTS outbox")
        opened.execute("CREATE TABLE outbox (id serial PRIMARY KEY, seller_id text, body jsonb)")
        opened.execute("INSERT INTO outbox (seller_id, body) VALUES (%s, %s)", (SELLER, order("M-1")))
        yield opened


def inbox(sql: str = QUERY, conn_id: str = "market") -> SqlInbox:
    return SqlInbox(conn_id, sql, connection_by_id)


def test_orders_of_a_postgres_table_are_placed_with_exact_prices(feedamp_env, market):
    feedamp_env.env.set_options(inbox_sql=QUERY, inbox_sql_conn_id="market")
    feedamp_env.reopen()
    feedamp_env.intake()
    feedamp_env.place()
    held = json.dumps(feedamp_env.sandbox.orders(SELLER)["M-1"], default=str)
    assert PRICE in held
    shown = feedamp_env.run("orders", "show", SELLER, "M-1", "--json").json
    assert (shown["source"], shown["source_row"], shown["phase"]) == ("sql:market", 1, "settled")


def test_the_outbox_of_the_docs_works(market):
    [table], [options] = blocks(INBOX_PAGE, "sql outbox"), blocks(INBOX_PAGE, "ini")
    [query] = [
        line.partition("=")[2].strip() for line in options.splitlines() if line.startswith("inbox_sql =")
    ]
    market.execute("DROP TABLE IF EXISTS feedamp_outbox")
    market.execute(table)
    market.execute("INSERT INTO feedamp_outbox (seller_id, body) VALUES (%s, %s)", ("S1", order("M-1")))
    [(seller_id, body)] = inbox(query).rows()
    assert (seller_id, json.loads(body)) == ("S1", json.loads(order("M-1")))


def test_nothing_is_written_back(market):
    market.execute(
        "CREATE OR REPLACE FUNCTION take() RETURNS text LANGUAGE sql AS $$ DELETE FROM outbox; SELECT 'S1' $$"
    )
    assert list(inbox("SELECT take() AS seller_id, '' AS \"order\"").rows()) == [("S1", "")]
    assert market.execute("SELECT count(*) FROM outbox").fetchone() == (1,)


def test_rows_are_streamed_from_the_server(market):
    endless = "SELECT 'S1' AS seller_id, repeat('x', 1000) || generate_series(1, 100000000) AS \"order\""
    tracemalloc.start()
    rows = inbox(endless).rows()
    assert len(list(islice(rows, 5_000))) == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rows.close()
    assert peak < 20_000_000


def test_a_result_without_rows_is_no_fault(market):
    assert list(inbox(f"SELECT * FROM ({QUERY}) q WHERE false").rows()) == []


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        pytest.param("SELECT seller_id, body FROM outbox", "seller_id, body", id="another column"),
        pytest.param(
            'SELECT seller_id, body AS "order", id FROM outbox', "exactly the columns", id="one more"
        ),
        pytest.param("SELECT seller_id, body FROM outbox WHERE false", "seller_id, body", id="and no rows"),
        pytest.param("SELECT seller_id FROM no_such_table", "no_such_table", id="a table that is not there"),
        pytest.param("SELEKT 'secret'", "cannot be run", id="no SQL"),
    ],
)
def test_a_query_that_cannot_work_is_a_configuration_error(market, sql, says):
    with pytest.raises(ConfigurationError, match="inbox_sql") as caught:
        list(inbox(sql).rows())
    assert says in str(caught.value)


def test_a_database_that_is_down_is_tried_again_and_no_secret_is_told(monkeypatch):
    fields = {
        "conn_type": "postgres",
        "host": "127.0.0.1",
        "port": 1,
        "login": "robin",
        "password": "hunter2",
    }
    monkeypatch.setenv("AIRFLOW_CONN_DOWN", json.dumps(fields))
    with pytest.raises(TransientError, match="inbox_sql_conn_id") as caught:
        list(inbox(conn_id="down").rows())
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("conn", "says"),
    [
        pytest.param(None, "no connection market", id="no such connection"),
        pytest.param(
            {"conn_type": "http", "host": "market.example"}, "not an SQL connection", id="of another kind"
        ),
        pytest.param({"conn_type": "abacus"}, "provider", id="of a type without provider"),
    ],
)
def test_a_connection_that_cannot_work_is_a_configuration_error(monkeypatch, airflow_home, conn, says):
    if conn is not None:
        monkeypatch.setenv("AIRFLOW_CONN_MARKET", json.dumps(conn))
    with pytest.raises(ConfigurationError, match="inbox_sql_conn_id") as caught:
        list(inbox().rows())
    assert says in str(caught.value)


@pytest.mark.parametrize("given", ["inbox_sql", "inbox_sql_conn_id"])
def test_one_option_without_the_other_is_refused(console, given):
    console.env.set_options(**{given: "market"})
    with pytest.raises(ConfigurationError, match="go together"):
        console.reopen()


class FileHook(DbApiHook):
    """A minimal SQLite provider."""

    conn_name_attr = "file_conn_id"

    def get_conn(self) -> sqlite3.Connection:
        found = self.get_connection(self.get_conn_id())
        return sqlite3.connect(found.host, timeout=0)


@pytest.fixture
def sqlite_file(tmp_path, monkeypatch, airflow_home):
    monkeypatch.setenv(
        "AIRFLOW_CONN_FILE", json.dumps({"conn_type": "file", "host": f"{tmp_path}/market.db"})
    )
    path = tmp_path / "market.db"
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("CREATE TABLE outbox (id INTEGER PRIMARY KEY, SELLER_ID INTEGER, body TEXT)")
        opened.executemany(
            "INSERT INTO outbox VALUES (?, 17, ?)", [(n, order(f"M-{n}")) for n in range(1_001)]
        )
        opened.commit()
    return path


def read_sqlite(sql: str = 'SELECT seller_id, body AS "order" FROM outbox') -> list[tuple[object, object]]:
    found = SqlInbox("file", sql, connection_by_id, lambda connection: FileHook(connection.conn_id))
    return list(found.rows())


def test_rows_of_a_sqlite_file_are_read_in_any_order_of_columns(sqlite_file):
    rows = read_sqlite('SELECT body AS "order", SELLER_ID FROM outbox ORDER BY id')
    assert rows == [(17, order(f"M-{n}")) for n in range(1_001)]


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        pytest.param("SELECT * FROM nowhere", ConfigurationError, id="a table that is not there"),
        pytest.param("DELETE FROM outbox", ConfigurationError, id="a statement that returns nothing"),
    ],
)
def test_a_wrong_query_of_a_sqlite_file_is_a_configuration_error(sqlite_file, sql, error):
    with pytest.raises(error, match="inbox_sql"):
        read_sqlite(sql)
    assert len(read_sqlite('SELECT seller_id, body AS "order" FROM outbox')) == 1_001


def test_a_locked_sqlite_file_is_tried_again(sqlite_file):
    with closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError):
            read_sqlite()
