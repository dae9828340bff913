"""Lineage of a real run, read from the file that OpenLineage's own transport writes."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from dataclasses import replace

import pytest
from airflow.listeners import listener
from airflow.providers.openlineage.plugins.listener import get_openlineage_listener
from airflow.sdk import listener as sdk_listener
from airflow_env import task_states
from console import SELLER
from leaks import WORDS, hits, secrets_of, telling_order

from feedamp.steps.loaded import Loaded
from feedamp.storage import open_storage
from feedamp.tables import TABLES
from feedamp.warehouse.postgres import PostgresWarehouse
from feedamp.warehouse.postgres_address import PostgresAddress
from feedamp_airflow import lineage

BAD_ROW = {"seller_id": SELLER, "order": {"mp_order_number": "M-bad", "customer": {"full_name": "Zorvath"}}}


@pytest.fixture
def sent_to(monkeypatch):
    """Makes OpenLineage send by this transport, as if each test were a process of its own."""

    def choose(**transport):
        for listening in (listener, sdk_listener):
            listening.get_listener_manager()  # before OpenLineage is on: else it would listen to all later tests
        monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
        get_openlineage_listener.cache_clear()

    yield choose
    get_openlineage_listener.cache_clear()


@pytest.fixture
def env(airflow_env):
    airflow_env.connect()
    order = telling_order("M-1")
    del order["location"]  # the API does not document it
    airflow_env.drop("a.jsonl", {"seller_id": SELLER, "order": order}, BAD_ROW)
    return airflow_env


def test_a_load_names_tables_columns_and_rows_and_no_secret(env, sent_to, tmp_path):
    file = tmp_path / "lineage.jsonl"
    sent_to(type="file", log_file_path=str(file), append=True)
    states = task_states(env.run_dag("place_orders"))
    assert states["load"] == ["success"]
    [event] = [json.loads(line) for line in file.read_text().splitlines()]
    assert event["job"]["name"] == "feedamp_place_orders.load"

    read = {dataset["name"]: dataset for dataset in event["inputs"]}
    written = {dataset["name"]: dataset for dataset in event["outputs"]}
    assert {dataset["namespace"] for dataset in event["inputs"]} == {"file"}
    assert {dataset["namespace"] for dataset in event["outputs"]} == {
        f"duckdb://{env.folder}/warehouse.duckdb"
    }
    assert written.keys() >= {
        f"warehouse.feedamp.{t}" for t in ("placements", "rejected_orders", "order_events", "runs")
    }
    for name, dataset in written.items():
        table = TABLES[name.removeprefix("warehouse.feedamp.")]
        [[rows]] = env.query(f"SELECT count(*) FROM feedamp.{table.name}")  # the warehouse was empty
        assert dataset["outputFacets"]["outputStatistics"]["rowCount"] == rows > 0, name
        fields = dataset["facets"]["schema"]["fields"]
        assert [(field["name"], field["description"]) for field in fields] == [
            (column.name, column.meaning) for column in table.columns
        ]
        of_lake = read[f"{env.folder}/lake/{table.name}"]
        assert of_lake["inputFacets"]["inputStatistics"]["rowCount"] == rows
        names = [field["name"] for field in of_lake["facets"]["schema"]["fields"]]
        assert names == [column.name for column in table.lake_columns]

    found = hits([("lineage", file.read_text())], [*WORDS, *secrets_of(env.sandbox)])
    assert found == []


def test_a_transport_that_never_answers_holds_up_no_run(env, sent_to, monkeypatch):
    monkeypatch.setattr(lineage, "HELD_UP_S", 0.3)
    took = []

    def timed(*given, send=lineage.send_lineage):
        begin = time.monotonic()
        send(*given)
        took.append(time.monotonic() - begin)

    monkeypatch.setattr(lineage, "send_lineage", timed)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sent_to(type="http", url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=30)
        states = task_states(env.run_dag("place_orders"))
        silent.settimeout(5)
        silent.accept()[0].close()  # it was asked
    assert states["load"] == states["gate"] == ["success"]
    assert len(took) == 1
    assert took[0] < 20


def test_broken_settings_leave_a_warning_and_raise_nothing(monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", '{"type": "http"')
    lineage.send_lineage(None, Loaded(by_table=Counter(orders=1)), None)
    assert "Lineage was not sent" in caplog.text


def test_a_load_of_nothing_but_runs_has_no_lineage(monkeypatch):
    asked = []
    monkeypatch.setattr(lineage, "is_on", lambda: asked.append(1))
    lineage.send_lineage(None, Loaded(), None)
    lineage.send_lineage(None, Loaded(by_table=Counter(runs=3)), None)
    assert asked == []
    lineage.send_lineage(None, Loaded(by_table=Counter(runs=3, orders=1)), None)
    assert asked == [1]


def test_places_are_named_as_openlineage_does_and_without_secrets(tmp_path):
    in_s3 = open_storage("lake_url", "s3://shop/feedamp/lake?versionId=secret", key="AKIA", secret="secret")
    assert lineage.lake_place(replace(in_s3, url="s3://my_aws@shop/feedamp/lake")) == (
        "s3://shop",
        "feedamp/lake/",
    )
    assert lineage.lake_place(in_s3) == ("s3://shop", "feedamp/lake/")
    assert lineage.lake_place(replace(in_s3, root="shop")) == ("s3://shop", "")
    assert lineage.lake_place(open_storage("lake_url", str(tmp_path))) == ("file", f"{tmp_path}/")
    away = replace(
        in_s3,
        url="sftp://me:secret@files.example:2222/lake?key=secret",
        root="/lake",
        fs=open_storage("lake_url", "memory://lake").fs,
    )
    assert lineage.lake_place(away) == ("sftp://files.example:2222", "/lake/")

    address = PostgresAddress("db.example", 5433, "shop", "etl", "secret", {"sslkey": "secret"})
    assert lineage.warehouse_place(PostgresWarehouse(address)) == (
        "postgres://db.example:5433",
        "shop.feedamp.",
    )
