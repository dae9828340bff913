"""Inbox -> ledger -> PUT: promises 1, 2, 8 and 13, and docs/rules.md, Intake and Placing, against a strict server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from env import SELLER, Env, shipment

from feedamp.state import overview, sellers
from feedamp.steps.step_end import finish

pytestmark = pytest.mark.usefixtures("no_rule_is_broken")

STRANGER = "seller-404"


def test_a_good_order_is_placed_and_settled(env: Env) -> None:
    env.placed("M-1")
    order = env.order("M-1")
    assert (order.phase, order.accepted_state) == ("settled", "AWAITING_SHIPMENT")
    assert env.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_the_same_order_in_another_file_sends_nothing(env: Env) -> None:
    env.placed("M-1")
    before = env.order("M-1")
    env.placed("M-1")
    assert len(env.asked("PUT")) == 1
    assert env.order("M-1") == before


def test_the_same_file_is_read_once(env: Env) -> None:
    env.placed("M-1")
    assert env.intake().orders == 0


def test_an_empty_inbox_is_no_work(env: Env) -> None:
    assert finish(env.intake())["orders"] == 0
    assert env.place().orders == 0


def test_a_changed_file_is_read_whole_and_sends_only_what_is_new(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1"))
    env.loop()
    env.drop("orders.jsonl", env.body("M-1"), env.body("M-2"))
    env.intake()
    env.place()
    assert [r.path.rpartition("/")[2] for r in env.asked("PUT")] == ["M-1", "M-2"]


def test_a_release_sends_the_first_body_with_the_new_state(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.placed("M-1", currency="EUR")
    shown = env.shown("M-1")
    assert (shown["marketplace_state"], shown["currency"]) == ("AWAITING_SHIPMENT", "USD")


def test_another_body_is_recorded_while_the_state_is_applied(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.placed("M-1", currency="EUR")
    assert env.reject_codes() == [("inbox", "body_changed")]
    assert env.order("M-1").phase == "settled"


def test_an_order_cancelled_before_its_first_put_is_never_placed(env: Env) -> None:
    env.deliver("M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    env.place()
    assert env.asked("PUT") == []
    assert env.order("M-1").phase == "never_placed"


def test_a_cancelled_order_is_closed_at_feedamp(env: Env) -> None:
    env.placed("M-1")
    env.placed("M-1", marketplace_state="CANCELLED")
    assert env.shown("M-1")["marketplace_state"] == "CANCELLED"
    assert env.order("M-1").phase == "closed"


def test_a_cancellation_after_units_were_shipped_is_held(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(1))
    env.see("M-1")
    env.placed("M-1", marketplace_state="CANCELLED")
    assert env.order("M-1").phase == "held"
    assert env.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_shipped_from_the_inbox_is_sent_for_what_the_marketplace_ships(env: Env) -> None:
    env.placed("M-1")
    env.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    env.see("M-1")
    env.placed("M-1", marketplace_state="SHIPPED")
    assert env.shown("M-1")["marketplace_state"] == "SHIPPED"


def test_an_order_that_was_not_released_yet_is_released_before_it_is_shipped(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    env.see("M-1")
    env.deliver("M-1")  # the release
    env.deliver("M-1", marketplace_state="SHIPPED")  # before the release went out
    env.place()
    assert env.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"
    env.place()
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "SHIPPED")
    assert env.shown("M-1")["marketplace_state"] == "SHIPPED"
    env.load()
    states = env.rows(
        "SELECT marketplace_state FROM placements WHERE mp_order_number = 'M-1' ORDER BY placed_at"
    )
    assert [state for (state,) in states] == ["PENDING", "AWAITING_SHIPMENT", "SHIPPED"]


def test_shipped_from_the_inbox_is_rejected_for_what_the_seller_ships(env: Env) -> None:
    env.placed("M-1")
    env.placed("M-1", marketplace_state="SHIPPED")
    assert env.reject_codes() == [("inbox", "illegal_transition")]
    assert env.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_a_bad_row_is_rejected_and_the_others_are_placed(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1", currency="ducats", nonsense=1), env.body("M-2"))
    result = env.intake()
    env.place()
    assert (result.orders, result.rejected) == (2, 1)
    assert {code for _, code in env.reject_codes()} >= {"unknown_field"}
    assert env.order("M-2").phase == "settled"


def test_a_corrected_row_supersedes_its_reject(env: Env) -> None:
    env.deliver("M-1", currency="ducats")
    env.deliver("M-1")
    assert env.rejects() == []
    assert len(env.rejects(everything=True)) == 1


def test_a_changed_file_supersedes_its_earlier_rejects(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1", currency="ducats"))
    env.intake()
    env.drop("orders.jsonl", env.body("M-2"), env.body("M-3"))
    env.intake()
    assert env.rejects() == []


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
    env: Env, arrange: Any, reason: str
) -> None:
    with env.state.begin() as connection:
        arrange(connection, env.state.now())
    env.placed("M-1", seller=STRANGER)
    order = env.order("M-1", STRANGER)
    assert (order.phase, env.asked("PUT")) == ("to_place", [])
    assert reason in str(order.reason)
    assert order.next_try_at is not None


def test_a_paused_seller_waits_and_goes_on_after_the_pause(env: Env) -> None:
    with env.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=True, now=env.state.now())
    env.placed("M-1")
    assert "paused" in str(env.order("M-1").reason)
    with env.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=False, now=env.state.now())
    env.place()
    assert env.order("M-1").phase == "settled"


def test_an_order_of_an_unknown_seller_is_placed_once_the_seller_is_registered(env: Env) -> None:
    token = env.sandbox.refresh_token(SELLER)
    env.placed("M-1", seller=STRANGER)
    env.register(STRANGER, token=token)
    env.place()
    order = env.order("M-1", STRANGER)
    assert (order.phase, order.reason) == ("settled", None)


def test_a_dry_run_sends_and_writes_nothing(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1"), env.body("M-2", currency="ducats"))
    dry = env.intake(dry_run=True)
    assert (dry.orders, dry.rejected, env.rejects()) == (2, 1, [])
    env.intake()
    assert env.place(dry_run=True).orders == 1
    assert (env.asked("PUT"), env.order("M-1").phase) == ([], "to_place")


def test_placed_orders_reach_the_warehouse(env: Env) -> None:
    env.placed("M-1")
    env.load()
    sent = env.order("M-1").placed_at
    assert env.rows("SELECT mp_order_number, marketplace_state, placed_at, extracted_at FROM orders") == [
        ("M-1", "AWAITING_SHIPMENT", sent, None)
    ]
    assert env.rows("SELECT source, source_row, placed_at FROM placements") == [("0001.jsonl", 1, sent)]
    assert env.rows("SELECT step, orders, complete FROM runs ORDER BY step") == [
        ("intake", 1, True),
        ("place", 1, True),
    ]


def test_rejects_reach_the_warehouse_with_every_reason(env: Env) -> None:
    env.deliver("M-1", currency="ducats", nonsense=1)
    env.load()
    [(stage, reasons)] = env.rows("SELECT stage, reasons FROM rejected_orders")
    assert stage == "inbox"
    assert {reason["field"] for reason in json.loads(reasons)} == {"currency", "nonsense"}


def test_rows_beyond_one_transaction_are_all_taken(env: Env) -> None:
    """200 rows are one transaction of intake."""
    env.drop("orders.jsonl", *(env.body(f"M-{n}") for n in range(201)))
    assert env.intake().orders == 201
    with env.state.read() as connection:
        assert overview.count_by_phase(connection) == {"to_place": 201}
