"""`feedamp lake compact`, the runbook's DAG that does the same, and `feedamp lake verify` with everything that uses it."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowFailException
from console import as_kept, kept
from doc_blocks import blocks

ROOT = Path(__file__).parents[2]


def parquet_files(env) -> list[Path]:
    return sorted((env.folder / "lake").rglob("*.parquet"))


def live_in(console):
    """A lake of three loads, and a file left behind by a writer that was killed long ago."""
    console.import_rows()
    for name in ("M-1", "M-2", "M-3"):
        console.deliver(f"{name}.jsonl", name)
        console.place()
        console.read()
    [*_, some] = parquet_files(console.env)
    left = some.with_name("extract-killed-0-0.parquet")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))


@pytest.fixture(scope="module")
def once_lived_in(airflow_home, tmp_path_factory):
    """Such a lake, made once."""
    with kept(tmp_path_factory.mktemp("lake"), live_in) as console:
        yield console


@pytest.fixture
def lived_in(once_lived_in, monkeypatch):
    """Such a lake for each test."""
    with as_kept(once_lived_in, monkeypatch) as console:
        yield console


def test_the_command_puts_files_together_and_says_what_it_did(lived_in, monkeypatch, caplog):
    caplog.set_level(
        logging.WARNING
    )  # as in a process of its own; runs of DAGs have set up the log of tasks here
    monkeypatch.setattr("feedamp.progress.EVERY_S", 0.0)  # as if it took long
    before = len(parquet_files(lived_in.env))
    done = lived_in.run("lake", "compact", "--before", "2999-01-01")
    assert done.code == 0
    assert "manifests were combined into 1;" in done.out
    assert re.search(r"^compact: (\d+) of \1 manifests, ", done.err, re.MULTILINE)
    assert ", 1 file left by killed writers" in done.out
    assert len(parquet_files(lived_in.env)) > before - 1  # the old ones wait for a day
    again = lived_in.run("lake", "compact", "--before", "2999-01-01")
    assert again.out.startswith("0 manifests were combined into 0; removed: 0 manifests replaced earlier")
    assert lived_in.run("warehouse", "rebuild").out.strip() == "rebuilt from 1 manifest"


def test_a_date_that_is_none_is_refused(lived_in):
    done = lived_in.run("lake", "compact", "--before", "yesterday")
    assert (done.code, "--before must be a date" in done.err) == (2, True)


def test_the_dag_of_the_runbook_is_parsed_and_its_task_does_the_work(lived_in, tmp_path):
    [program] = [text for text in blocks(ROOT / "docs" / "runbook.md", "python") if "@dag" in text]
    file = tmp_path / "lake_maintenance.py"
    file.write_text(program)
    bag = DagBag(str(file))
    assert bag.import_errors == {}
    [task] = bag.dags["lake_maintenance"].tasks
    assert task.python_callable()["leftovers"] == 1
    assert not [path for path in parquet_files(lived_in.env) if "killed" in path.name]


# verify


def lose(console, statement):
    with closing(duckdb.connect(str(console.folder / "warehouse.duckdb"))) as warehouse:
        warehouse.execute(statement)


def test_a_lake_that_lost_nothing_is_verified(lived_in):
    done = lived_in.run("lake", "verify")
    assert (done.code, done.err) == (0, "")
    assert done.out == "3 orders were compared: nothing is missing in lake and warehouse\n"


def test_what_is_missing_is_named_and_the_repair_brings_it(lived_in):
    lose(lived_in, "DELETE FROM feedamp.placements")
    lose(lived_in, "DELETE FROM feedamp.orders WHERE mp_order_number = 'M-2'")
    found = lived_in.run("lake", "verify")
    assert found.code == 1
    assert "placements  seller-001  3" in found.out
    assert "orders      seller-001  1" in found.out
    assert "placements  seller-001 M-1  the warehouse has no row of it as AWAITING_SHIPMENT" in found.out
    assert "`feedamp lake verify --repair`" in found.out
    repaired = lived_in.run("lake", "verify", "--repair")
    assert (repaired.code, repaired.err) == (0, "")
    assert repaired.out.startswith(
        "4 differences were found; 3 orders were read from FeedAMP again; 0 differences are left\n"
    )
    assert lived_in.run("lake", "verify").code == 0
    assert lived_in.env.query("SELECT count(*) FROM feedamp.placements") == [(3,)]


def test_the_verification_as_json_says_what_and_where(lived_in):
    lose(lived_in, "DELETE FROM feedamp.placements WHERE mp_order_number = 'M-2'")
    done = lived_in.run("lake", "verify", "--json")
    assert (done.code, done.json["ok"], done.json["differences"]) == (1, False, 1)
    assert done.json["by_table"] == [{"table": "placements", "seller_id": "seller-001", "differences": 1}]
    [first] = done.json["first"]
    assert (first["table"], first["key"]) == ("placements", ["seller-001", "M-2"])
    repaired = lived_in.run("lake", "verify", "--repair", "--json").json
    assert (repaired["ok"], repaired["differences_before"], repaired["differences"]) == (True, 1, 0)


def test_what_cannot_be_repaired_now_is_said_and_ends_with_one(console):
    live_in(console)
    with closing(sqlite3.connect(console.folder / "state.db")) as state, state:
        state.execute("DELETE FROM snapshots")
    console.sandbox.revoke("seller-001")
    console.sandbox.expire_access_tokens()
    done = console.run("lake", "verify", "--repair")
    assert done.code == 1
    assert "feedamp: seller-001: " in done.err
    assert "snapshots  seller-001" in done.out


def test_a_command_that_waits_for_the_warehouse_says_so_immediately(lived_in, start_holder):
    lived_in.env.set_options(duckdb_lock_wait_s="1")
    holder = start_holder(lived_in.folder / "warehouse.duckdb")
    done = lived_in.run("lake", "verify")
    said, gave_up = done.err.splitlines()
    assert f"(process {holder.pid})" in said
    assert said.endswith("Waiting for up to 1 seconds.")
    assert (done.code, f"(process {holder.pid})" in gave_up) == (1, True)


# retry


def test_rows_that_the_warehouse_refuses_are_listed_and_retried(lived_in):
    lose(lived_in, "ALTER TABLE feedamp.placements ADD COLUMN mine VARCHAR DEFAULT 'x'")
    lose(lived_in, "ALTER TABLE feedamp.placements ALTER mine DROP DEFAULT")
    lose(lived_in, "ALTER TABLE feedamp.placements ALTER mine SET NOT NULL")
    lived_in.deliver("M-4.jsonl", "M-4")
    lived_in.place()
    lived_in.read()
    refused = lived_in.run("lake", "retry")
    assert (refused.code, refused.out.partition(";")[0]) == (
        1,
        "0 rows set aside before are loaded now, 1 is still refused",
    )
    assert lived_in.run("status", "--json").json["needs_person"]["refused_by_warehouse"]["count"] == 1
    checks = {check["name"]: check for check in lived_in.run("doctor", "--json").json["checks"]}
    assert (checks["completeness"]["state"], checks["rows set aside"]["state"]) == ("ok", "problem")
    assert lived_in.run("rejected", "replay").code == 0
    lose(lived_in, "ALTER TABLE feedamp.placements ALTER mine DROP NOT NULL")
    assert lived_in.run("lake", "retry").code == 0
    assert lived_in.run("rejected", "list", "--json").json == []


# doctor and the daily run


def test_the_doctor_names_orders_that_are_missing_and_the_way_out(lived_in):
    lose(lived_in, "DELETE FROM feedamp.placements WHERE mp_order_number = 'M-2'")
    checks = {check["name"]: check for check in lived_in.run("doctor", "--json").json["checks"]}
    assert checks["completeness"]["state"] == "problem"
    assert "seller-001 M-2: the warehouse has no row of it" in checks["completeness"]["says"]
    assert "`feedamp lake verify --repair`" in checks["completeness"]["says"]


@pytest.mark.parametrize(
    ("dag_id", "run_type", "is_red"),
    [
        pytest.param("feedamp_reconcile_orders", "SCHEDULED", True, id="the daily run"),
        pytest.param("feedamp_reconcile_orders", "MANUAL", False, id="a reconciliation by hand"),
        pytest.param("feedamp_extract_fulfillments", "SCHEDULED", False, id="another DAG"),
    ],
)
def test_the_gate_of_the_daily_run_alone_proves_that_nothing_is_missing(lived_in, dag_id, run_type, is_red):
    gate_of(dag_id, run_type)
    lose(lived_in, "DELETE FROM feedamp.placements WHERE mp_order_number = 'M-2'")
    if is_red:
        with pytest.raises(AirflowFailException, match="seller-001 M-2: the warehouse has no row of it"):
            gate_of(dag_id, run_type)
    else:
        gate_of(dag_id, run_type)


def test_a_busy_warehouse_does_not_turn_the_daily_run_red(lived_in, start_holder, caplog):
    lived_in.env.set_options(duckdb_lock_wait_s="0")
    lose(lived_in, "DELETE FROM feedamp.placements")
    start_holder(lived_in.folder / "warehouse.duckdb")
    gate_of("feedamp_reconcile_orders", "SCHEDULED")
    assert "The warehouse could not be checked for missing rows" in caplog.text


def gate_of(dag_id, run_type):
    """What `gate` does in such a run when all tasks before it have succeeded."""
    from airflow.sdk.api.datamodels._generated import DagRunType
    from airflow.sdk.execution_time.context import set_current_context

    from feedamp_airflow import tasks

    ti = SimpleNamespace(
        dag_id=dag_id,
        run_id="a run",
        try_number=1,
        get_task_states=lambda **_: {"a run": {"load": "success"}},
        xcom_pull=lambda **_: {},
    )
    run = SimpleNamespace(run_type=DagRunType[run_type])
    with set_current_context({"ti": ti, "dag_run": run, "params": {}}):
        tasks.gate()
