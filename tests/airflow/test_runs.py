"""Runs that fail in part, or have nothing to do: their color, and the work that is done nonetheless."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import ParamValidationError
from airflow_env import CONN_ID, open_airflow_env, task_states
from env import GOOD_NUMBER
from order_samples import good_line, good_order

from feedamp.run import shard_name
from feedamp.state import grants, sellers

FIRST, SECOND, THIRD = "seller-001", "seller-002", "seller-003"
DAGS = ["place_orders", "extract_fulfillments", "process_fulfillments", "reconcile_orders", "refresh_tokens"]


def row(seller_id, number, **changes):
    lines = [good_line(mp_line_number=f"{number}-1")]
    order = good_order(mp_order_number=number, order_lines=lines, **changes)
    return {"seller_id": seller_id, "order": order}


@pytest.fixture
def env(airflow_env):
    airflow_env.connect()
    return airflow_env


@pytest.fixture
def placed(env):
    """One order each of three sellers, placed."""
    env.drop("first.jsonl", *(row(seller, f"M-{seller}") for seller in (FIRST, SECOND, THIRD)))
    env.place()
    return env


def ship(env, seller_id, number, quantity=4):
    parcel = {
        "quantity": quantity,
        "carrier": "UPS",
        "tracking_number": GOOD_NUMBER,
        "shipped_date": "2026-03-04",
    }
    line = {"mp_line_number": f"{number}-1", "shipments": [parcel], "cancellations": []}
    env.sandbox.set_fulfillments(seller_id, number, [line])


# Dry runs


@pytest.fixture(scope="module")
def half_way(airflow_home, tmp_path_factory):
    """An env where every DAG has work: a new file, an order to place, fulfillments to read and validate, a day to compare."""
    with (
        pytest.MonkeyPatch.context() as patch,
        open_airflow_env(tmp_path_factory.mktemp("dry"), patch) as env,
    ):
        env.connect()
        env.drop("first.jsonl", row(FIRST, "M-1"), row(SECOND, "M-2"))
        env.place()
        ship(env, FIRST, "M-1")
        env.extract()
        ship(env, SECOND, "M-2")
        env.drop("second.jsonl", row(THIRD, "M-3"))
        env.take_in()
        env.drop("third.jsonl", row(THIRD, "M-4"))
        yield env


def everything_stored(env):
    """Every row of the state, every table of the warehouse, every file of the lake."""
    with closing(sqlite3.connect(env.folder / "state.db")) as state:
        names = [name for (name,) in state.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: sorted(map(repr, state.execute(f"SELECT * FROM {name}"))) for name in names}
    tables = env.query("SELECT table_name, estimated_size FROM duckdb_tables() WHERE schema_name = 'feedamp'")
    return rows, sorted(tables), sorted(str(path) for path in (env.folder / "lake").rglob("*"))


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_dry_run_sends_and_writes_nothing(dag_id, half_way):
    stored, asked = everything_stored(half_way), len(half_way.sandbox.requests)
    run = half_way.run_dag(dag_id, at=datetime(2026, 3, 3, tzinfo=UTC), dry_run=True)
    assert run.state == "success"
    assert task_states(run)["load"] == ["skipped"]
    if dag_id == "reconcile_orders":
        [plan] = [ti for ti in run.get_task_instances() if ti.task_id == "plan"]
        assert plan.xcom_pull(task_ids="plan", key="expected")["orders"] == 2
    assert half_way.sandbox.requests[asked:] == []
    assert everything_stored(half_way) == stored


# What a mapped task is called

HOSTILE = ["{{ 1 / 0 }} {% for", 'a "quote" and a \\', "two\nlines", "x" * 128, "é" * 128]
SHOWN = ["{{ 1 / 0 }} {% for", 'a "quote" and a \\', "two?lines", "x" * 99 + "…", "é" * 99 + "…"]


@pytest.mark.parametrize(
    ("sellers_per_task", "names"),
    [
        pytest.param("1", [f"{shown} (1 seller)" for shown in SHOWN], id="one seller each"),
        pytest.param("50", [f"{SHOWN[1]} .. {SHOWN[4]} (5 sellers)"], id="all in one"),
    ],
)
def test_a_mapped_task_is_named_after_its_sellers(sellers_per_task, names, airflow_env):
    airflow_env.set_options(sellers_per_task=sellers_per_task)
    resources = airflow_env.resources()
    with resources.state.begin() as connection:
        now = resources.state.now()
        for seller_id in HOSTILE:
            sellers.add(connection, seller_id, conn_id=CONN_ID, now=now)
            grants.put_grant(connection, resources.cipher, seller_id, CONN_ID, "a-token", now=now)
    resources.state.close()
    run = airflow_env.run_dag("extract_fulfillments", dry_run=True)
    assert run.state == "success"
    tasks = [ti for ti in run.get_task_instances() if ti.task_id == "extract"]
    assert sorted(ti.rendered_map_index for ti in tasks) == sorted(names)


@pytest.mark.parametrize(
    "passed", [{}, {"shard": None}, {"shard": {"sellers": 7}}, {"shard": {"sellers": []}}]
)
def test_a_mapped_task_has_a_name_whatever_its_plan_says(passed):
    assert shard_name(passed) == "no sellers"


# Some sellers fail


def test_a_failed_shard_makes_the_run_red_while_the_others_data_is_loaded(placed):
    for seller in (FIRST, SECOND, THIRD):
        ship(placed, seller, f"M-{seller}")
    placed.sandbox.fault("throttle", path="/orders", seller_id=SECOND, times=None, seconds=300)
    run = placed.run_dag("extract_fulfillments")
    states = task_states(run)
    assert run.state == "failed"
    assert sorted(states["extract"]) == ["failed", "success", "success"]
    assert (states["load"], states["gate"]) == (["success"], ["failed"])
    shipped = placed.query(
        "SELECT seller_id, units_shipped FROM feedamp.orders WHERE extracted_at IS NOT NULL"
    )
    assert sorted(shipped) == [(FIRST, 4), (THIRD, 4)]
    complete = placed.query("SELECT complete, count(*) FROM feedamp.runs WHERE step = 'extract' GROUP BY 1")
    assert dict(complete) == {True: 2, False: 1}


def test_a_seller_who_must_authorize_again_leaves_the_run_green(placed, caplog):
    placed.sandbox.revoke(SECOND)
    run = placed.run_dag("extract_fulfillments")
    assert run.state == "success"
    assert f"Seller {SECOND} must authorize again" in caplog.text
    caplog.clear()
    assert placed.run_dag("extract_fulfillments").state == "success"
    assert "must authorize again: FeedAMP refuses" not in caplog.text  # reported once


def test_a_refused_client_turns_the_run_red_and_marks_no_seller(placed):
    placed.sandbox.expire_access_tokens()
    placed.set_connection(password="no-longer-right")
    run = placed.run_dag("extract_fulfillments")
    assert run.state == "failed"
    with closing(sqlite3.connect(placed.folder / "state.db")) as state:
        assert state.execute("SELECT DISTINCT status FROM grants").fetchall() == [("active",)]


def test_an_unreadable_order_is_noted_and_the_run_ends_green(placed, caplog):
    ship(placed, FIRST, f"M-{FIRST}")
    ship(placed, SECOND, f"M-{SECOND}")
    placed.sandbox.fault("misshapen_order", path="/orders", seller_id=SECOND, times=None)
    run = placed.run_dag("extract_fulfillments")
    assert run.state == "success"
    assert f"order M-{SECOND} cannot be read" in caplog.text
    unread = placed.query("SELECT orders_unread, complete FROM feedamp.runs WHERE step = 'extract'")
    assert sorted(unread) == [(0, True), (0, True), (1, False)]
    assert placed.query("SELECT seller_id FROM feedamp.orders WHERE units_shipped > 0") == [(FIRST,)]


def test_a_run_without_work_is_green_and_loads_all_the_same(env):
    run = env.run_dag("place_orders")
    assert run.state == "success"
    assert task_states(run) == {
        "intake": ["success"],
        "plan": ["success"],
        "place": ["skipped"],
        "load": ["success"],
        "gate": ["success"],
    }


# Rejected rows


def rejected(number):
    return row(FIRST, number, currency="Dollars")


@pytest.mark.parametrize(
    ("good", "bad", "limit", "state"),
    [
        pytest.param(18, 2, "", "failed", id="a tenth of twenty"),
        pytest.param(18, 2, "0.2", "success", id="below a higher limit"),
    ],
)
def test_too_many_rejected_rows_turn_the_run_red_after_placing_the_good_ones(good, bad, limit, state, env):
    env.set_options(max_rejected_ratio=limit)
    rows = [row(FIRST, f"M-{n}") for n in range(good)] + [rejected(f"BAD-{n}") for n in range(bad)]
    env.drop("orders.jsonl", *rows)
    run = env.run_dag("place_orders")
    assert run.state == state
    assert task_states(run)["gate"] == [state]
    assert len(env.sandbox.orders(FIRST)) == good
    [(in_warehouse,)] = env.query("SELECT count(*) FROM feedamp.orders")
    [(turned_away,)] = env.query("SELECT count(*) FROM feedamp.rejected_orders")
    assert (in_warehouse, turned_away) == (good, bad)


def test_one_bad_file_among_good_ones_makes_the_run_red_and_is_named(env, capfd):
    env.drop("good.jsonl", *(row(FIRST, f"M-{n}") for n in range(60)))
    bad = [rejected(f"BAD-{n}") for n in range(20)]
    env.drop("bad.jsonl", *bad, *(row(FIRST, f"G-{n}") for n in range(10)))
    env.set_options(max_rejected_ratio="0.5")
    assert env.run_dag("place_orders").state == "failed"
    assert "bad.jsonl: 20 of 30 rows were rejected" in capfd.readouterr().out
    assert len(env.sandbox.orders(FIRST)) == 70


def test_a_file_that_cannot_be_read_to_its_end_makes_its_run_red_and_no_other(env, capfd):
    env.set_options(max_rejected_ratio="1")
    env.drop("good.jsonl", *(row(FIRST, f"M-{n}") for n in range(30)))
    (env.inbox / "cut.parquet").write_bytes(b"PAR1 and half of a file")
    os.utime(env.inbox / "cut.parquet", (0, 0))
    run = env.run_dag("place_orders")
    assert (run.state, task_states(run)["gate"]) == ("failed", ["failed"])
    assert "cut.parquet could not be read to its end" in capfd.readouterr().out
    assert len(env.sandbox.orders(FIRST)) == 30
    assert env.run_dag("place_orders").state == "success"


# Params


def test_a_run_for_some_sellers_leaves_the_others_alone(env):
    env.drop("orders.jsonl", row(FIRST, "M-1"), row(SECOND, "M-2"))
    assert env.run_dag("place_orders", sellers=[SECOND]).state == "success"
    assert (list(env.sandbox.orders(FIRST)), list(env.sandbox.orders(SECOND))) == ([], ["M-2"])


def test_blanks_and_empty_lines_around_a_seller_do_no_harm(env):
    env.drop("orders.jsonl", row(FIRST, "M-1"), row(SECOND, "M-2"))
    assert env.run_dag("place_orders", sellers=["", f" {SECOND} ", ""]).state == "success"
    assert (list(env.sandbox.orders(FIRST)), list(env.sandbox.orders(SECOND))) == ([], ["M-2"])


def test_empty_lines_alone_are_not_taken_for_all_sellers(env, capfd):
    assert env.run_dag("place_orders", sellers=["", " "]).state == "failed"
    assert "every line is empty" in capfd.readouterr().out


def test_an_unknown_seller_makes_the_run_red_and_is_named(env, capfd):
    assert env.run_dag("place_orders", sellers=["no one"]).state == "failed"
    assert "not registered: no one" in capfd.readouterr().out


@pytest.mark.parametrize("repair", [None, True])
def test_a_reconciliation_repairs_when_it_is_told_to(placed, repair, caplog):
    with placed.sandbox.world.lock:
        orders = placed.sandbox.world.orders
        orders._sorted[FIRST].remove(orders._by_number[FIRST].pop(f"M-{FIRST}"))
    caplog.set_level(logging.INFO)
    days = {"day": "2026-03-02"} if repair else {"from": "2026-03-01", "to": "2026-03-02"}
    run = placed.run_dag("reconcile_orders", **days, repair=repair, fail_above=0)
    assert run.state == ("success" if repair else "failed")
    says = (
        f"3 orders compared, 1 difference (order 1), {1 if repair else 0} repaired, {0 if repair else 1} left"
    )
    assert f"The whole run: {says}" in caplog.text
    found = placed.query("SELECT field, feedamp_value, repaired_at IS NOT NULL FROM feedamp.reconciliations")
    assert found == [("order", "missing", bool(repair))]
    assert list(placed.sandbox.orders(FIRST)) == ([f"M-{FIRST}"] if repair else [])


def test_a_repair_that_is_neither_true_nor_false_starts_no_run(env):
    with pytest.raises(ParamValidationError, match="repair"):
        env.run_dag("reconcile_orders", repair="maybe")


def test_a_since_without_a_zone_starts_no_run(env):
    with pytest.raises(ParamValidationError, match="since"):
        env.run_dag("extract_fulfillments", since="2026-03-01T00:00:00")


def test_since_reads_everything_from_that_moment(placed):
    ship(placed, FIRST, f"M-{FIRST}")
    placed.extract()
    asked = len(placed.sandbox.requests)
    placed.run_dag("extract_fulfillments", since="2026-03-01T02:00:00+02:00", sellers=[FIRST])
    [request] = [r for r in placed.sandbox.requests[asked:] if r.path == "/api/v1/orders"]
    assert request.query["seller_updated_after"] == "2026-03-01T00:00:00Z"


# Assets


def rung(home):
    """Source DAG and counts of every event so far, oldest first, without orders of other tests."""
    with closing(sqlite3.connect(home / "airflow.db")) as airflow:
        found = airflow.execute("SELECT source_dag_id, extra FROM asset_event ORDER BY id").fetchall()
    return [(dag_id.removeprefix("feedamp_"), json.loads(extra)) for dag_id, extra in found]


def test_an_asset_rings_if_something_changed_or_is_to_be_processed(placed, airflow_home):
    placed.set_options(sellers_per_task="3")
    placed.extract()
    before = len(rung(airflow_home))
    placed.run_dag("extract_fulfillments")  # nothing changed since, but no one has looked at the orders
    placed.run_dag("process_fulfillments")
    placed.run_dag("extract_fulfillments")
    placed.run_dag("process_fulfillments")
    ship(placed, FIRST, f"M-{FIRST}")
    placed.run_dag("extract_fulfillments")
    again, processed, shipped = rung(airflow_home)[before:]
    assert (again[0], processed[0], shipped[0]) == (
        "extract_fulfillments",
        "process_fulfillments",
        "extract_fulfillments",
    )
    assert again[1] == {"orders": 0, "rows": 0, "sellers_to_process": 3}
    assert (shipped[1]["orders"], shipped[1]["sellers_to_process"]) == (1, 1)
    assert shipped[1]["rows"] > 0
