"""Inbox -> ledger -> PUT: promises 1, 2, 8 and 13, and RULES, Intake, against a strict server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from house import SELLER, House, shipment

from feedamp.state import ledger, sellers
from feedamp.steps.runner import finish

STRANGER = "seller-404"


@pytest.fixture(autouse=True)
def _no_rule_is_broken(house: House) -> Iterator[None]:
    yield
    assert house.sandbox.broken_rules == []


def test_a_good_order_is_placed_and_settled(house: House) -> None:
    house.placed("M-1")
    order = house.order("M-1")
    assert (order.phase, order.accepted_state) == ("settled", "AWAITING_SHIPMENT")
    assert house.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_the_same_order_in_another_file_sends_nothing(house: House) -> None:
    house.placed("M-1")
    before = house.order("M-1")
    house.placed("M-1")
    assert len(house.asked("PUT")) == 1
    assert house.order("M-1") == before


def test_the_same_file_is_read_once(house: House) -> None:
    house.placed("M-1")
    assert house.intake().orders == 0


def test_an_empty_inbox_is_no_work(house: House) -> None:
    assert finish(house.intake())["orders"] == 0
    assert house.place().orders == 0


def test_a_changed_file_is_read_whole_and_sends_only_what_is_new(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1"))
    house.loop()
    house.drop("orders.jsonl", house.body("M-1"), house.body("M-2"))
    house.intake()
    house.place()
    assert [r.path.rpartition("/")[2] for r in house.asked("PUT")] == ["M-1", "M-2"]


def test_a_release_sends_the_first_body_with_the_new_state(house: House) -> None:
    house.placed("M-1", marketplace_state="PENDING")
    house.placed("M-1", currency="EUR")
    shown = house.shown("M-1")
    assert (shown["marketplace_state"], shown["currency"]) == ("AWAITING_SHIPMENT", "USD")


def test_another_body_is_recorded_while_the_state_is_applied(house: House) -> None:
    house.placed("M-1", marketplace_state="PENDING")
    house.placed("M-1", currency="EUR")
    assert house.reject_codes() == [("inbox", "body_changed")]
    assert house.order("M-1").phase == "settled"


def test_an_order_cancelled_before_its_first_put_is_never_placed(house: House) -> None:
    house.deliver("M-1")
    house.deliver("M-1", marketplace_state="CANCELLED")
    house.place()
    assert house.asked("PUT") == []
    assert house.order("M-1").phase == "never_placed"


def test_a_cancelled_order_is_closed_at_feedamp(house: House) -> None:
    house.placed("M-1")
    house.placed("M-1", marketplace_state="CANCELLED")
    assert house.shown("M-1")["marketplace_state"] == "CANCELLED"
    assert house.order("M-1").phase == "closed"


def test_a_cancellation_after_units_were_shipped_is_held(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment(1))
    house.see("M-1")
    house.placed("M-1", marketplace_state="CANCELLED")
    assert house.order("M-1").phase == "held"
    assert house.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_shipped_from_the_inbox_is_sent_for_what_the_marketplace_ships(house: House) -> None:
    house.placed("M-1")
    house.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    house.see("M-1")
    house.placed("M-1", marketplace_state="SHIPPED")
    assert house.shown("M-1")["marketplace_state"] == "SHIPPED"


def test_shipped_from_the_inbox_is_rejected_for_what_the_seller_ships(house: House) -> None:
    house.placed("M-1")
    house.placed("M-1", marketplace_state="SHIPPED")
    assert house.reject_codes() == [("inbox", "illegal_transition")]
    assert house.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_a_bad_row_stands_in_rejects_and_the_others_go_on(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1", currency="ducats", nonsense=1), house.body("M-2"))
    result = house.intake()
    house.place()
    assert (result.orders, result.rejected) == (2, 1)
    assert {code for _, code in house.reject_codes()} >= {"unknown_field"}
    assert house.order("M-2").phase == "settled"


def test_a_mended_row_supersedes_its_reject(house: House) -> None:
    house.deliver("M-1", currency="ducats")
    house.deliver("M-1")
    assert house.rejects() == []
    assert len(house.rejects(everything=True)) == 1


def test_a_changed_file_supersedes_its_earlier_rejects(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1", currency="ducats"))
    house.intake()
    house.drop("orders.jsonl", house.body("M-2"), house.body("M-3"))
    house.intake()
    assert house.rejects() == []


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        pytest.param(lambda c, now: None, "not registered", id="no one knows the seller"),
        pytest.param(
            lambda c, now: sellers.add(c, STRANGER, conn_id="feedamp", now=now), "no grant", id="no grant yet"
        ),
    ],
)
def test_an_order_of_a_seller_who_cannot_be_served_waits_with_a_reason(
    house: House, arrange: Any, reason: str
) -> None:
    with house.state.begin() as connection:
        arrange(connection, house.state.now())
    house.placed("M-1", seller=STRANGER)
    order = house.order("M-1", STRANGER)
    assert (order.phase, house.asked("PUT")) == ("to_place", [])
    assert reason in str(order.reason)
    assert order.next_try_at is not None


def test_a_paused_seller_waits_and_goes_on_after_the_pause(house: House) -> None:
    with house.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=True, now=house.state.now())
    house.placed("M-1")
    assert "paused" in str(house.order("M-1").reason)
    with house.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=False, now=house.state.now())
    house.place()
    assert house.order("M-1").phase == "settled"


def test_an_order_of_an_unknown_seller_is_placed_once_the_seller_is_registered(house: House) -> None:
    token = house.sandbox.refresh_token(SELLER)
    house.placed("M-1", seller=STRANGER)
    house.register(STRANGER, token=token)
    house.place()
    order = house.order("M-1", STRANGER)
    assert (order.phase, order.reason) == ("settled", None)


def test_a_dry_run_sends_and_writes_nothing(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1"), house.body("M-2", currency="ducats"))
    dry = house.intake(dry_run=True)
    assert (dry.orders, dry.rejected, house.rejects()) == (2, 1, [])
    house.intake()
    assert house.place(dry_run=True).orders == 1
    assert (house.asked("PUT"), house.order("M-1").phase) == ([], "to_place")


def test_placed_orders_reach_the_warehouse(house: House) -> None:
    house.placed("M-1")
    house.load()
    sent = house.order("M-1").placed_at
    assert house.rows("SELECT mp_order_number, marketplace_state, placed_at, extracted_at FROM orders") == [
        ("M-1", "AWAITING_SHIPMENT", sent, None)
    ]
    assert house.rows("SELECT source, source_row, placed_at FROM placements") == [("0001.jsonl", 1, sent)]
    assert house.rows("SELECT step, orders, complete FROM runs ORDER BY step") == [
        ("intake", 1, True),
        ("place", 1, True),
    ]


def test_rejects_reach_the_warehouse_with_every_reason(house: House) -> None:
    house.deliver("M-1", currency="ducats", nonsense=1)
    house.load()
    [(stage, reasons)] = house.rows("SELECT stage, reasons FROM rejected_orders")
    assert stage == "inbox"
    assert {reason["field"] for reason in json.loads(reasons)} == {"currency", "nonsense"}


def test_rows_beyond_one_transaction_are_all_taken(house: House) -> None:
    """200 rows are one transaction of intake."""
    house.drop("orders.jsonl", *(house.body(f"M-{n}") for n in range(201)))
    assert house.intake().orders == 201
    with house.state.read() as connection:
        assert ledger.phases(connection) == {"to_place": 201}
