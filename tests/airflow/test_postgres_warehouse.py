"""`warehouse_conn_id`: an Airflow Postgres connection, from the option to the commands."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from airflow.sdk.log import redact
from postgres_warehouses import address_of, looking, rows_of_tables

from feedamp.errors import ConfigurationError
from feedamp_airflow.account import read_postgres


class Given:
    """A connection with these fields."""

    def __init__(self, **fields):
        whole = {
            "host": "db",
            "port": None,
            "schema": "shop",
            "login": "etl",
            "password": "s3cret-pw",
            "conn_type": "postgres",
        }
        self.conn_id, self.extra_dejson = "pg", {}
        for name, value in {**whole, **fields}.items():
            setattr(self, name, value)


def test_fields_and_libpq_options_of_the_connection_are_used():
    address = read_postgres(
        Given(extra_dejson={"sslmode": "verify-full", "connect_timeout": 5, "cursor": "dict"})
    )
    assert "s3cret-pw" not in repr(address)
    assert address.conninfo.endswith("host='db' port='5432' dbname='shop' user='etl' password='s3cret-pw'")
    assert dict(address.options) == {"sslmode": "verify-full", "connect_timeout": "5"}


@pytest.mark.parametrize(
    ("field", "named"),
    [("host", "Host is missing"), ("login", "Login is missing"), ("schema", "Database is missing")],
)
def test_a_field_that_is_missing_is_named(field, named):
    with pytest.raises(ConfigurationError, match=f"Connection pg: {named}"):
        read_postgres(Given(**{field: None}))


@pytest.fixture
def on_postgres(feedamp_env, server, monkeypatch):
    """The console's env with its warehouse on Postgres; gives console and address."""
    address = address_of(server.database())
    login = f"{address.user}:{quote(address.password)}"
    monkeypatch.setenv(
        "AIRFLOW_CONN_PG", f"postgres://{login}@{address.host}:{address.port}/{address.database}"
    )
    (feedamp_env.folder / "warehouse.duckdb").unlink()  # it is made beforehand for all other tests
    feedamp_env.env.set_options(warehouse_conn_id="pg", duckdb_lock_wait_s="0")
    feedamp_env.reopen()
    return feedamp_env, address


def test_orders_reach_the_warehouse_and_commands_work_on_it(on_postgres):
    console, address = on_postgres
    console.deliver("a.jsonl", "M-1")
    console.place()
    console.fulfill("M-1")
    console.read()
    console.process()
    console.load()
    with looking(address) as reader:
        assert reader.execute("SELECT mp_order_number, units_shipped FROM orders").fetchall() == [("M-1", 2)]
    assert not (console.folder / "warehouse.duckdb").exists()
    before = rows_of_tables(address)
    count = len(list(console.resources.lake.manifests()))
    done = console.run("warehouse", "rebuild")
    assert (done.code, done.out) == (0, f"rebuilt from {count} manifests\n")
    assert rows_of_tables(address) == before
    assert console.run("status").code == 0
    checks = {check["name"]: check for check in json.loads(console.run("doctor", "--json").out)["checks"]}
    assert checks["warehouse"]["says"] == f"{address.shown} can be opened"
    assert address.password not in str(redact(f"{address.password} in a log"))


def test_the_doctor_says_that_the_server_is_away_and_shows_no_password(on_postgres, monkeypatch):
    console, address = on_postgres
    monkeypatch.setenv("AIRFLOW_CONN_PG", f"postgres://etl:{quote(address.password)}@127.0.0.1:1/shop")
    done = console.run("doctor", "--json")
    check = next(check for check in json.loads(done.out)["checks"] if check["name"] == "warehouse")
    assert (check["state"], "127.0.0.1:1/shop cannot be reached" in check["says"]) == ("problem", True)
    assert address.password not in done.out + done.err
