"""The whole loop by the DAGs, every request and answer checked against the OpenAPI file, the warehouse against the truth."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from airflow_env import AirflowEnv, open_airflow_env
from contract_check import ContractCheck

from demo.orders import make_orders

ORDERS = 24
CYCLES = 2
STEPS = {"intake", "place", "extract", "validate", "close", "reconcile", "refresh"}


@dataclass
class Looped:
    """An env after the loop: what was placed, how the runs ended, and what they logged."""

    env: AirflowEnv
    rows: list[dict[str, Any]]
    ends: list[tuple[str, str]]
    run_ids: list[tuple[str, str]]  # with the DAG's id before each
    log: str
    check: ContractCheck

    @property
    def truth(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What FeedAMP holds, by seller and order number."""
        sellers = [seller["seller_id"] for seller in self.env.sandbox.sellers]
        return {(s, n): order for s in sellers for n, order in self.env.sandbox.orders(s).items()}

    def personal_and_secret(self) -> set[str]:
        """The values that must not appear in any log or XCom."""
        sandbox = self.env.sandbox
        orders = [row["order"] for row in self.rows]
        personal = {order["customer"][field] for order in orders for field in ("full_name", "email")}
        personal |= {
            order["shipping_address"][field] for order in orders for field in ("full_name", "address1")
        }
        tokens = {sandbox.refresh_token(seller["seller_id"]) for seller in sandbox.sellers}
        return (
            personal
            | tokens
            | {sandbox.client_secret, "Bearer ", *(s["refresh_token"] for s in sandbox.sellers)}
        )


@pytest.fixture(scope="module")
def looped(airflow_home, tmp_path_factory, request):
    check = ContractCheck()
    kept = io.StringIO()
    handler = logging.StreamHandler(kept)
    logging.getLogger().addHandler(handler)
    options = {"observer": check, "sellers": 4}
    with (
        pytest.MonkeyPatch.context() as patch,
        open_airflow_env(tmp_path_factory.mktemp("loop"), patch, **options) as env,
    ):
        env.set_options(sellers_per_task="2")
        env.connect()
        sellers = [seller["seller_id"] for seller in env.sandbox.sellers]
        rows = make_orders(sellers, ORDERS, now=datetime.now(UTC))
        env.drop("orders.jsonl", *rows)
        dags = ["place_orders"] + ["extract_fulfillments", "process_fulfillments"] * CYCLES
        runs = []
        for dag in [*dags, "refresh_tokens"]:
            if dag == "extract_fulfillments":
                env.sandbox.act(rounds=6)
            runs.append(env.run_dag(dag))
        runs.append(env.run_dag("reconcile_orders", at=midnight()))
        ends = [(run.dag_id, str(run.state)) for run in runs]
        run_ids = [(run.dag_id, run.run_id) for run in runs]
        logging.getLogger().removeHandler(handler)
        printed = request.config.pluginmanager.getplugin("capturemanager").read_global_capture()
        yield Looped(env, rows, ends, run_ids, kept.getvalue() + "".join(printed), check)


def midnight() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def test_every_run_is_green(looped):
    assert {state for _, state in looped.ends} == {"success"}


def test_no_rule_of_the_api_is_broken(looped):
    assert looped.env.sandbox.broken_rules == []


def test_every_request_and_answer_fits_the_openapi_file(looped):
    assert looped.check.problems == []
    assert sum(looped.check.seen.values()) == len(looped.env.sandbox.requests)
    assert {"PUT 200", "GET 200", "POST 200"} <= set(looped.check.seen)


def test_every_order_is_placed_and_none_is_left_open_that_could_be_closed(looped):
    placed = {(row["seller_id"], row["order"]["mp_order_number"]) for row in looped.rows}
    assert set(looped.truth) == placed
    statuses = {order["status"] for order in looped.truth.values()}
    assert "COMPLETE" in statuses
    assert not statuses & {"FULFILLED", "CANCELLED"}  # every unit accounted for, no error open


def test_sellers_received_error_reports_and_corrected_their_mistakes(looped):
    states = looped.env.query(
        "SELECT state, count(*) FROM feedamp.findings WHERE severity = 'error' GROUP BY 1"
    )
    assert dict(states).keys() == {"resolved"}


def test_the_warehouse_holds_every_order_as_feedamp_does(looped):
    rows = looped.env.query(
        "SELECT seller_id, mp_order_number, status, marketplace_state, acknowledged, currency, "
        "units_ordered, units_shipped, units_cancelled FROM feedamp.orders"
    )
    assert sorted(rows) == sorted(
        (
            *key,
            order["status"],
            order["marketplace_state"],
            order["acknowledged"],
            order["currency"],
            sum(line["quantity"] for line in order["order_lines"]),
            sum(quantities(order, "shipments")),
            sum(quantities(order, "cancellations")),
        )
        for key, order in looped.truth.items()
    )


def quantities(order, part):
    return [item["quantity"] for line in order["fulfillments"] for item in line[part]]


def test_the_warehouse_holds_every_line_with_its_price(looped):
    rows = looped.env.query(
        "SELECT seller_id, mp_order_number, mp_line_number, sku, quantity, unit_price FROM feedamp.order_lines"
    )
    assert sorted(rows) == sorted(
        (*key, line["mp_line_number"], line["sku"], line["quantity"], line["unit_price"])
        for key, order in looped.truth.items()
        for line in order["order_lines"]
    )


def test_the_warehouse_holds_every_shipment_as_feedamp_does(looped):
    rows = looped.env.query(
        "SELECT seller_id, mp_order_number, mp_line_number, shipment_index, quantity, carrier, tracking_number, "
        "shipped_date, tracking_url FROM feedamp.shipments"
    )
    expected = [
        (
            *key,
            line["mp_line_number"],
            index,
            parcel["quantity"],
            parcel["carrier"],
            parcel["tracking_number"],
            date.fromisoformat(parcel["shipped_date"]),
            parcel["tracking_url"],
        )
        for key, order in looped.truth.items()
        for line in order["fulfillments"]
        for index, parcel in enumerate(line["shipments"])
    ]
    assert len(expected) > ORDERS / 2
    assert sorted(rows) == sorted(expected)


def test_the_warehouse_holds_every_cancellation_as_feedamp_does(looped):
    rows = looped.env.query(
        "SELECT seller_id, mp_order_number, mp_line_number, cancellation_index, quantity, reason "
        "FROM feedamp.cancellations"
    )
    assert sorted(rows) == sorted(
        (*key, line["mp_line_number"], index, item["quantity"], item["reason"])
        for key, order in looped.truth.items()
        for line in order["fulfillments"]
        for index, item in enumerate(line["cancellations"])
    )


def test_every_closed_order_has_a_row_in_closures(looped):
    rows = looped.env.query("SELECT seller_id, mp_order_number, marketplace_state FROM feedamp.closures")
    closed = {key: order for key, order in looped.truth.items() if order["status"] == "COMPLETE"}
    assert sorted(rows) == sorted((*key, order["marketplace_state"]) for key, order in closed.items())


def test_reconciling_yesterday_compares_its_orders_and_finds_no_difference(looped):
    yesterday = (midnight() - timedelta(days=1)).date().isoformat()
    purchased = sum(row["order"]["purchase_date"].startswith(yesterday) for row in looped.rows)
    [(compared,)] = looped.env.query("SELECT sum(orders)::int FROM feedamp.runs WHERE step = 'reconcile'")
    assert compared == purchased > 0
    assert looped.env.query("SELECT * FROM feedamp.reconciliations") == []


def test_no_log_holds_a_token_a_secret_or_a_customer(looped):
    assert "step place" in looped.log
    assert "Returned value was" in looped.log  # what Airflow itself says of a task
    assert not [word for word in looped.personal_and_secret() if word in looped.log]


def test_xcoms_hold_ids_and_counts_and_no_more(looped, airflow_home):
    with closing(sqlite3.connect(airflow_home / "airflow.db")) as airflow:
        select = "SELECT key, CAST(value AS TEXT) FROM xcom WHERE dag_id = ? AND run_id = ?"
        rows = [row for run in looped.run_ids for row in airflow.execute(select, run)]
    keys, kept = {key for key, _ in rows}, [text for _, text in rows]
    assert keys <= {"return_value", "expected"}  # no count by itself
    values = [json.loads(text) for text in kept]
    assert {"place", "extract", "close"} <= set(texts(values))
    assert not [word for word in looped.personal_and_secret() if word in "".join(kept)]
    sellers = {seller["seller_id"] for seller in looped.env.sandbox.sellers}
    assert set(texts(values)) <= sellers | STEPS


def texts(value):
    """Every text in a JSON value, keys left out."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for inner in value for text in texts(inner)]
    return [value] if isinstance(value, str) else []
