"""The DAGs as the scheduler runs them: what starts processing, what an API server that is away costs, what is left at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from order_samples import good_line, good_order

from feedamp_sandbox import SandboxOptions, running
from feedamp_sandbox.options import Behaviors

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
def looped(guarded):
    """The loop has gone round once in a folder of its own, in tasks that import what they need: placed, shipped or cancelled
    by the sellers, extracted while processing was paused, processed.
    """
    behaviors: Behaviors = (("ship_whole", 8), ("cancel_all", 2))
    options = SandboxOptions(sellers=4, requests_per_second=200.0, burst=200, behaviors=behaviors)
    with running(options) as sandbox:
        installation = replace(guarded, sandbox=sandbox, folder=guarded.home / "looped")
        everyone = [seller["seller_id"] for seller in sandbox.sellers]
        installation.add_connection("feedamp_looped", requests_per_second=100)
        installation.connect(everyone, conn_id="feedamp_looped")
        installation.pause(PROCESS)
        installation.move()
        rows = order_rows(everyone)
        installation.drop("orders.jsonl", rows)
        installation.unpause(PLACE, EXTRACT)
        ends = [installation.run(PLACE)]
        sandbox.act(rounds=3)
        ends.append(installation.run(EXTRACT))
        installation.unpause(PROCESS)  # Airflow has queued nothing for a paused DAG
        ends.append(installation.run(PROCESS))
        assert ends == ["success"] * 3
        yield installation, rows


def test_processing_that_was_paused_closes_every_order(looped):
    installation, rows = looped
    sandbox = installation.sandbox
    held = [order for s in sandbox.sellers for order in sandbox.orders(s["seller_id"]).values()]
    assert len(held) == len(rows)
    assert {order["status"] for order in held} == {"COMPLETE"}
    in_warehouse = installation.query("SELECT mp_order_number, marketplace_state FROM feedamp.orders")
    assert dict(in_warehouse) == {order["mp_order_number"]: order["marketplace_state"] for order in held}
    assert sandbox.broken_rules == []


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
    assert installation.addresses() == {"0100007F"}  # 127.0.0.1
    installation.programs.stop()
    assert installation.processes() == []
