"""The DAGs as the scheduler runs them: what starts processing, an API server that is away, what is left at the end."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from order_samples import good_line, good_order

DAYS = {"2026-02-28": 1, "2026-03-01": 2, "2026-03-02": 3}  # orders purchased on each
AWAY_S = 8.0
CLOCKS = ("00:00:00", "23:59:59", "12:00:00")
PLACE, EXTRACT, PROCESS = (
    "feedamp_place_orders",
    "feedamp_extract_fulfillments",
    "feedamp_process_fulfillments",
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def order_rows(seller_ids: list[str]) -> list[dict[str, Any]]:
    """Six orders, which the sellers get in turn; two of them will be cancelled."""
    rows: list[dict[str, Any]] = []
    for day, count in DAYS.items():
        for n, clock in enumerate(CLOCKS[:count]):
            number = f"M-{day}-{n}"
            body = an_order(number, f"{day}T{clock}Z")
            rows.append({"seller_id": seller_ids[len(rows) % len(seller_ids)], "order": body})
    return rows


def an_order(number: str, purchase_date: str) -> dict[str, Any]:
    lines = [good_line(mp_line_number=f"{number}-1", unit_price=25.5)]
    return good_order(mp_order_number=number, purchase_date=purchase_date, order_lines=lines)


@pytest.fixture(scope="module")
def looped(installation):
    """The loop has gone round once: placed, shipped or cancelled by the sellers, extracted, processed."""
    rows = order_rows([seller["seller_id"] for seller in installation.sandbox.sellers])
    installation.drop("orders.jsonl", rows)
    installation.unpause(PLACE)
    placed = installation.ended(PLACE, "scheduled")
    installation.sandbox.act(rounds=3)
    installation.unpause(EXTRACT)
    extracted = installation.ended(EXTRACT, "scheduled")
    installation.unpause(PROCESS)  # Airflow has queued nothing for a paused DAG
    processed = installation.ended(PROCESS, "scheduled")
    assert [run["state"] for run in placed + extracted + processed] == ["success"] * 3
    return installation, rows


def test_processing_that_was_paused_closes_every_order_by_time(looped):
    installation, rows = looped
    sandbox = installation.sandbox
    held = [order for s in sandbox.sellers for order in sandbox.orders(s["seller_id"]).values()]
    assert len(held) == len(rows)
    assert {order["status"] for order in held} == {"COMPLETE"}
    in_warehouse = installation.query("SELECT mp_order_number, marketplace_state FROM feedamp.orders")
    assert dict(in_warehouse) == {order["mp_order_number"]: order["marketplace_state"] for order in held}
    assert sandbox.broken_rules == []


def test_a_backfill_of_placing_is_refused(looped):
    installation, _ = looped
    days = {"from_date": "2026-03-01T00:00:00Z", "to_date": "2026-03-03T00:00:00Z"}
    with pytest.raises(requests.HTTPError) as refusal:
        installation.api(
            "POST", "backfills", {"dag_id": PLACE, **days, "run_backwards": False, "dag_run_conf": {}}
        )
    assert 400 <= refusal.value.response.status_code < 500
    assert "backfill" in refusal.value.response.text.lower()
    assert installation.runs(PLACE, "backfill") == []


def test_the_test_button_knows_that_the_credentials_are_proven(looped):
    installation, _ = looped
    sandbox = installation.sandbox
    fields = {"conn_type": "feedamp", "host": sandbox.api, "login": sandbox.client_id, "extra": "{}"}
    body = {"connection_id": "feedamp_default", **fields, "password": sandbox.client_secret}
    said = installation.api("POST", "connections/test", body)
    assert said["status"]
    assert "credentials are proven by a refresh" in said["message"]


def test_tasks_outlive_an_api_server_that_is_killed(looped):
    """`place` is in the middle of its work, `extract` looks its connection up, `plan` of a third run cannot even start."""
    installation, _ = looped
    sandbox = installation.sandbox
    numbers = [f"A-{n:02}" for n in range(12)]  # four at once, so that `place` outlasts the absence
    orders = [an_order(number, "2026-03-05T12:00:00Z") for number in numbers]
    seller_id = sandbox.sellers[0]["seller_id"]
    installation.drop("away.jsonl", [{"seller_id": seller_id, "order": order} for order in orders])
    sandbox.fault("slow_drip", method="PUT", times=len(orders), seconds=AWAY_S + 3)
    before, rules = len(sandbox.requests), sandbox.broken_rules
    placing = installation.trigger(PLACE)
    installation.wait("orders are sent", lambda: put_paths(sandbox, before) != [])
    extracting = installation.trigger(EXTRACT)
    installation.wait_for_task(*extracting, "extract", {"running"})
    with installation.state_locked():  # `extract` waits before it looks its connection up
        installation.wait_for_work(*extracting, "extract")
        asked = len(sandbox.requests)
        processing = installation.trigger(PROCESS)
        installation.kill("api-server")
    time.sleep(AWAY_S)
    assert not any(request.method == "GET" for request in sandbox.requests[asked:])
    installation.start("api-server")

    assert [installation.end_of(*run) for run in (placing, extracting)] == ["success", "success"]
    assert put_paths(sandbox, before) == [f"/api/v1/orders/{number}" for number in numbers]
    assert any(request.method == "GET" for request in sandbox.requests[asked:])
    loaded = installation.query("SELECT mp_order_number FROM feedamp.placements ORDER BY 1")
    assert [row[0] for row in loaded if row[0].startswith("A-")] == numbers
    # Airflow starts it again after `retry_delay`, a minute.
    installation.wait_for_task(*processing, "plan", {"up_for_retry", "running", "success"})
    assert sandbox.broken_rules == rules


def put_paths(sandbox: Any, since: int) -> list[str]:
    return sorted(request.path for request in sandbox.requests[since:] if request.method == "PUT")


def test_no_process_is_left_behind(looped):
    installation, _ = looped
    assert len(installation.processes()) >= 3  # api-server, scheduler, dag-processor
    installation.programs.stop()
    assert installation.processes() == []
