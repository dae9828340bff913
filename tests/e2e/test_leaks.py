"""No token, secret or customer field is left where none belongs; what `pii = mask` hides, and what it does not.

With `pii = keep`: tests/airflow/test_debug_run.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from leaks import PERSONAL, SHOWN_ADDRESS, WORDS, files, hits, sqlite_cells
from troubled_round import (
    EXTRACT,
    PLACE,
    PROCESS,
    PROXY_PASSWORD,
    RECONCILE,
    REFRESH,
    WRONG_SECRET,
    go_round,
)

from demo.airflow_server import DAGS

# The order bodies, which must be sent; rejected rows, which can be replayed; FeedAMP's own words on a refusal.
STATE_MAY_HOLD = {"orders.body", "rejected_orders.raw", "rejected_orders.reasons", "orders.reason"}

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def done(guarded):
    """One go of all DAGs."""
    add_wrong_connection(guarded)
    guarded.unpause(*DAGS)
    for dag_id in DAGS:
        guarded.ended(dag_id, "scheduled")
    return go_round(guarded)


def add_wrong_connection(guarded: Any) -> None:
    proxies = {"https": f"http://us:{PROXY_PASSWORD}@127.0.0.1:9"}
    guarded.add_connection("feedamp_wrong", secret=WRONG_SECRET, proxies=proxies)


def test_the_trouble_was_real(done):
    assert done.ends == {
        PLACE: "failed",
        EXTRACT: "failed",
        PROCESS: "success",
        RECONCILE: "failed",  # two of its sellers answer 429 and 500
        REFRESH: "success",
        "wrong": "failed",
    }
    logs = "".join(text for _, text in files(done.guarded.home / "logs", "*.log"))
    assert "FeedAMP answered 500" in logs
    assert "FeedAMP refuses the client id or secret" in logs
    assert "must authorize again" in logs
    assert "refused by FeedAMP (400)" in logs
    refused = hits(sqlite_cells(done.state), ["refused_by_feedamp"])
    assert ("rejected_orders.reasons", "refused_by_feedamp") in refused


def test_every_kind_of_place_is_searched(done):
    searched = {where for where, _ in done.everywhere()}
    assert {
        "URL",
        "access log",
        "xcom.value",
        "log.extra",
        "dag_run.conf",
        "task_instance.hostname",
    } <= searched
    assert {Path(where).name for where in searched} >= {
        "scheduler.log",
        "api-server.log",
        "dag-processor.log",
    }
    assert len([where for where in searched if "attempt=" in where]) > 20
    assert {where for where, _ in hits(sqlite_cells(done.state), WORDS)} >= {
        "orders.body",
        "rejected_orders.raw",
    }


def test_no_place_holds_a_secret(done):
    assert hits(done.everywhere(), done.secrets()) == []
    assert hits(sqlite_cells(done.state), done.secrets()) == []
    assert hits(done.lake(), done.secrets()) == []
    assert hits(done.warehouse(), done.secrets()) == []


def test_no_customer_stands_in_what_airflow_keeps_or_in_a_url(done):
    assert hits(done.everywhere(), WORDS) == []


def test_the_state_holds_customers_in_orders_and_rejects_alone(done):
    assert {where for where, _ in hits(sqlite_cells(done.state), WORDS)} <= STATE_MAY_HOLD


def test_lake_and_warehouse_hold_no_customer_whose_fields_are_masked(done):
    assert hits(done.lake(), WORDS) == []
    assert hits(done.warehouse(), WORDS) == []


def test_values_that_identify_no_one_are_kept(done):
    columns = ", ".join(f"shipping_address_{name}" for name in SHOWN_ADDRESS)
    found = done.query(f"SELECT DISTINCT {columns} FROM feedamp.orders WHERE mp_order_number LIKE 'L-%'")
    assert found == [tuple(SHOWN_ADDRESS.values())]


def test_equal_values_get_one_pseudonym_in_every_run_and_others_differ(done):
    sql = f"SELECT {', '.join(PERSONAL)}, extra FROM feedamp.orders WHERE mp_order_number LIKE 'L-%-0'"
    assert len(set(done.query(sql))) == 1
    assert None not in done.query(sql)[0][:-1]
    assert done.query(sql)[0][-1] is None
    lake = ds.dataset(done.folder / "lake" / "orders", format="parquet", partitioning=None)
    written = lake.to_table(columns=["mp_order_number", "customer_full_name", "extracted_at"]).to_pylist()
    of_first = [row for row in written if row["mp_order_number"] == "L-good-1"]
    assert {row["extracted_at"] is None for row in of_first} == {True, False}  # by place, and by extract
    assert len({row["customer_full_name"] for row in of_first}) == 1
    [other] = {row["customer_full_name"] for row in written if row["mp_order_number"] == "L-good-2"}
    assert other not in (None, "Wilhelmina Ashgrove", of_first[0]["customer_full_name"])
