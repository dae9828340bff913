"""Closable orders are closed once, on a fresh snapshot, as the right state: promise 6 against a strict server."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from env import BAD_NUMBER, SELLER, Env, shipment

from feedamp.rules.cancelling import STILL_FRESH_S


def puts(env: Env, number: str = "M-1") -> int:
    return len(env.asked("PUT", f"/orders/{number}"))


DONE: list[Any] = [
    pytest.param((shipment(2),), 0, "SHIPPED", id="everything shipped"),
    pytest.param((shipment(1), shipment(1)), 0, "SHIPPED", id="shipped in parts"),
    pytest.param((shipment(1),), 1, "SHIPPED", id="part shipped, the rest cancelled"),
    pytest.param((), 2, "CANCELLED", id="everything cancelled"),
]


@pytest.mark.parametrize(("shipments", "cancelled", "state"), DONE)
def test_an_order_is_closed_as_what_happened_to_it(
    env: Env, shipments: tuple[dict[str, Any], ...], cancelled: int, state: str
) -> None:
    env.placed("M-1")
    env.fulfill("M-1", *shipments, cancelled=cancelled)
    env.see("M-1")
    env.process()
    assert env.shown("M-1")["marketplace_state"] == state
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", state)
    assert env.held("M-1") is None
    assert env.sandbox.broken_rules == []


OPEN: list[Any] = [
    pytest.param((shipment(1),), 0, id="one unit still open"),
    pytest.param((shipment(3),), 0, id="more shipped than ordered"),
    pytest.param((shipment(2, BAD_NUMBER),), 0, id="an error is reported"),
    pytest.param((), 1, id="one unit cancelled, one open"),
]


@pytest.mark.parametrize(("shipments", "cancelled"), OPEN)
def test_an_order_stays_open_while_anything_is_left(
    env: Env, shipments: tuple[dict[str, Any], ...], cancelled: int
) -> None:
    env.placed("M-1")
    env.fulfill("M-1", *shipments, cancelled=cancelled)
    env.see("M-1")
    env.process()
    env.process()
    assert env.order("M-1").phase == "settled"
    assert puts(env) == 1
    assert env.sandbox.broken_rules == []


def test_an_error_that_is_held_back_blocks_closing_too(env: Env) -> None:
    env.set_rules(error_codes={"invalid_tracking": None})
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    env.process()
    assert env.order("M-1").phase == "settled"


def test_a_warning_does_not_block_closing(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", {**shipment(2), "shipped_date": "2026-01-01"})
    env.see("M-1")
    env.process()
    assert env.order("M-1").phase == "closed"


def test_a_waived_finding_lets_the_order_close(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    env.process()
    env.waive("M-1")
    env.process()
    assert env.order("M-1").phase == "closed"


def test_a_corrected_order_closes(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    env.process()
    env.fulfill("M-1", shipment(2))
    env.see("M-1")
    env.process()
    assert env.order("M-1").phase == "closed"
    assert env.finding_states("M-1") == [("invalid_tracking", "resolved")]


def test_an_error_that_feedamp_still_lists_keeps_a_corrected_order_open(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    env.process()
    errors = env.shown("M-1")["errors"]
    env.fulfill("M-1", shipment(2))
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").errors = errors
    env.see("M-1")
    env.process()
    assert env.order("M-1").phase == "settled"
    env.sandbox.clear_errors(SELLER, "M-1")
    env.see("M-1")
    env.process()
    assert env.order("M-1").phase == "closed"


def test_an_order_that_the_marketplace_ships_is_never_closed(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    env.see("M-1")
    env.process()
    assert puts(env) == 1


def test_a_pending_order_is_never_closed(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.fulfill("M-1", shipment(2))
    env.see("M-1")
    env.process()
    assert puts(env) == 1


CHANGES: list[Any] = [
    pytest.param((shipment(1),), id="a unit was taken back"),
    pytest.param((shipment(2, BAD_NUMBER),), id="the number was mistyped again"),
]


@pytest.mark.parametrize("shipments", CHANGES)
def test_an_order_that_changed_since_validation_is_evaluated_again(
    shipped: Env, shipments: tuple[dict[str, Any], ...]
) -> None:
    shipped.fulfill("M-1", *shipments)
    shipped.close()
    assert shipped.order("M-1").phase == "settled"
    assert puts(shipped) == 1


def test_what_the_marketplace_took_over_since_validation_is_not_closed(shipped: Env) -> None:
    shipped.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    shipped.close()
    assert puts(shipped) == 1


def test_an_order_is_closed_once(shipped: Env) -> None:
    shipped.close()
    shipped.process()
    assert puts(shipped) == 2


def test_the_closing_is_asked_for_with_the_body_first_accepted(shipped: Env) -> None:
    shipped.deliver("M-1", currency="EUR")
    shipped.close()
    assert shipped.shown("M-1")["currency"] == "USD"


def test_the_closing_reaches_the_warehouse(shipped: Env) -> None:
    shipped.close()
    shipped.load()
    closed_at = shipped.order("M-1").closed_at
    assert closed_at is not None
    assert shipped.rows(
        "SELECT marketplace_state, units_shipped, units_cancelled, closed_at FROM closures"
    ) == [("SHIPPED", 2, 0, closed_at)]
    assert shipped.rows("SELECT status, marketplace_state, closed_at FROM orders") == [
        ("COMPLETE", "SHIPPED", closed_at)
    ]


def test_a_dry_run_sends_and_writes_nothing(shipped: Env) -> None:
    before = len(shipped.sandbox.requests)
    assert shipped.close(dry_run=True).orders == 1
    assert len(shipped.sandbox.requests) == before
    assert shipped.order("M-1").phase == "settled"


def test_closable_orders_are_read_again_fifty_at_a_time(env: Env) -> None:
    numbers = [f"M-{n}" for n in range(51)]
    env.placed(*numbers)
    for number in numbers:
        env.fulfill(number, shipment(2))
    env.see(*numbers)
    env.validate()
    before, all_before = len(env.asked("GET")), len(env.sandbox.requests)
    assert env.close().orders == 51
    # Each portion is closed before the next is read: memory does not grow with the orders (promise 11).
    assert [request.method for request in env.sandbox.requests[all_before:][:2]] == ["GET", "PUT"]
    # Once to decide, once to show lake and warehouse what became of it.
    assert len(env.asked("GET")) - before == 2 * 2
    assert env.sandbox.broken_rules == []


def test_at_a_low_rate_no_order_is_closed_by_a_read_of_long_ago(env: Env) -> None:
    numbers = [f"M-{number}" for number in range(75)]
    env.placed(*numbers)
    for number in numbers:
        env.fulfill(number, shipment(2))
    env.see(*numbers)
    env.validate()
    slow = replace(env.resources.connection("feedamp"), requests_per_second=2.0)
    env.resources = replace(env.resources, connection=lambda conn_id: slow)
    before = len(env.sandbox.requests)
    assert env.close().orders == 75
    read_at: dict[str, datetime] = {}
    ages, lists = [], []
    for request in env.sandbox.requests[before:]:
        if request.method == "PUT":
            ages.append((request.at - read_at[request.path.rpartition("/")[2]]).total_seconds())
        elif "mp_order_numbers" in request.query:
            lists.append(request.query["mp_order_numbers"].split(","))
            read_at |= dict.fromkeys(lists[-1], request.at)
    assert (len(ages), max(ages) <= STILL_FRESH_S) == (75, True)
    assert list(map(len, lists)) == [18, 18, 18, 50, 18, 3, 25]  # portions are read back together
    assert len(env.sandbox.requests) - before == 75 + len(lists)  # none was read alone
