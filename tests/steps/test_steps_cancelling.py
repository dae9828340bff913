"""CANCELLED over a shipment: an order is read by itself before it is sent, and what coercions through is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from house import SELLER, House, shipment

from feedamp.api import client
from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import UnreadableOrder
from feedamp.errors import NotFoundError
from feedamp.models import LineFulfillment, Shipment, Snapshot
from feedamp.state import leases, ledger, open_orders, overview
from feedamp.state.overview import Some
from feedamp.steps.place_orders import seller_batch
from feedamp.steps.place_orders.place import place
from feedamp.steps.place_orders.replay import replay
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.runner import StepResult, finish

OPEN = "AWAITING_SHIPMENT"
WAYS = [
    pytest.param("inbox", id="it came into the inbox"),
    pytest.param("replay", id="it is replayed after a refusal"),
    pytest.param("conflict", id="a conflict has ended"),
    pytest.param("repair", id="FeedAMP forgot it and a repair sends it again"),
]


def held_orders(house: House) -> Some:
    with house.state.read() as connection:
        return overview.held_orders(connection, limit=20)


def cancelled_but_shipped(house: House) -> list[str]:
    with house.state.read() as connection:
        return [item["reason"] for item in overview.cancelled_but_shipped(connection, limit=20).items]


def to_be_cancelled(house: House, way: str) -> None:
    """M-1 has CANCELLED on its way out, and nothing that was extracted speaks against it."""
    house.placed("M-1")
    if way == "conflict":
        house.fulfill("M-1", shipment(1))
        house.see("M-1")
    house.deliver("M-1", marketplace_state="CANCELLED")
    if way == "replay":
        house.sandbox.fault("echo_400", method="PUT")
        house.place()
        assert house.order("M-1").phase == "held"
        assert replay(house.resources).to_place == 1
    elif way == "conflict":
        house.fulfill("M-1")
        house.see("M-1")
        house.validate()
    elif way == "repair":
        house.place()
        house.load()
        with house.sandbox.world.lock:
            house.sandbox._order(SELLER, "M-1").marketplace_state = OPEN
        return
    assert house.order("M-1").phase == "to_place"


def send(house: House, way: str) -> None:
    if way == "repair":
        house.reconcile(repair=True)
    else:
        house.place()


@pytest.mark.parametrize("way", WAYS)
def test_a_cancellation_is_not_sent_once_the_seller_has_shipped(house: House, way: str) -> None:
    to_be_cancelled(house, way)
    house.fulfill("M-1", shipment(1))  # no extraction has seen it
    send(house, way)
    order = house.order("M-1")
    assert (order.phase, order.conflicting_state) == ("held", "CANCELLED")
    assert house.shown("M-1")["marketplace_state"] == OPEN
    assert held_orders(house).count == 1
    assert house.sandbox.broken_rules == []


@pytest.mark.parametrize("way", WAYS)
def test_a_cancellation_is_sent_when_nothing_has_been_shipped(house: House, way: str) -> None:
    to_be_cancelled(house, way)
    send(house, way)
    assert (house.order("M-1").phase, house.order("M-1").accepted_state) == ("closed", "CANCELLED")
    assert house.shown("M-1")["marketplace_state"] == "CANCELLED"


def test_what_was_read_before_a_cancellation_is_kept(house: House) -> None:
    to_be_cancelled(house, "inbox")
    house.fulfill("M-1", shipment(1))
    house.place()
    held = house.held("M-1")
    assert held is not None
    assert [s.quantity for line in held.snapshot.fulfillments for s in line.shipments] == [1]
    house.load()
    assert house.rows("SELECT units_shipped, marketplace_state FROM orders") == [(1, OPEN)]


def test_one_request_more_is_made_for_a_cancellation_and_none_for_other_puts(house: House) -> None:
    def alone() -> int:
        return len(house.asked("GET", "/orders/M-1"))

    house.placed("M-1", marketplace_state="PENDING")
    house.placed("M-1")
    assert alone() == 0
    house.placed("M-1", marketplace_state="CANCELLED")
    assert alone() == 1


@pytest.mark.parametrize("kind", ["error_500", "throttle_bare", "reset_before", "cut_body"])
def test_a_cancellation_waits_until_the_order_could_be_read(house: House, kind: Any) -> None:
    to_be_cancelled(house, "inbox")
    house.sandbox.fault(kind, method="GET", path="/orders/M-1", times=None)
    assert house.place().undone
    order = house.order("M-1")
    assert (order.phase, len(house.asked("PUT"))) == ("to_place", 1)
    assert order.reason is not None
    assert ("could be read" in order.reason) == (
        kind != "throttle_bare"
    )  # that is said of all of the seller's orders
    house.sandbox.clear_faults()
    house.clock.skip(hours=1)
    house.place()
    assert house.order("M-1").phase == "closed"


def test_a_cancellation_of_an_unreadable_order_is_held_and_goes_out_later(house: House) -> None:
    to_be_cancelled(house, "inbox")
    house.see("M-1")
    house.validate()  # so that the next snapshot shows nothing new
    house.sandbox.fault("misshapen_order", method="GET", path="/orders/M-1", times=None)
    result = house.place()
    assert finish(result)["orders_unread"] == 1
    assert "M-1 cannot be read" in result.notes[0]
    assert "cannot be read" in held_orders(house).items[0]["reason"]
    assert len(house.asked("PUT")) == 1
    house.sandbox.clear_faults()
    house.clock.skip(hours=1)
    house.read()
    house.process()
    house.place()
    assert house.order("M-1").phase == "closed"


def test_an_order_closed_elsewhere_meanwhile_is_not_cancelled(house: House) -> None:
    to_be_cancelled(house, "inbox")
    house.fulfill("M-1", shipment(2))
    with house.sandbox.world.lock:
        house.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    house.place()
    house.process()
    assert (house.order("M-1").phase, house.order("M-1").accepted_state) == ("closed", "SHIPPED")
    assert house.shown("M-1")["marketplace_state"] == "SHIPPED"


def during_the_put(house: House, what: Callable[[], object], step: Any) -> StepResult:
    """The step for the seller; `what` happens after the read and before the PUT leaves."""
    pending = [what]
    put_order = FeedAmpClient.put_order

    async def held_up(self: FeedAmpClient, *args: Any, **more: Any) -> Any:
        while pending:
            pending.pop()()
        return await put_order(self, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeedAmpClient, "put_order", held_up)
        return asyncio.run(step(house.resources, house.run("place_orders"), 0, [SELLER]))


def slip(house: House) -> None:
    """The seller ships between the read and the PUT of a cancellation."""
    to_be_cancelled(house, "inbox")
    during_the_put(house, lambda: house.fulfill("M-1", shipment(1)), place)
    assert (house.order("M-1").phase, house.order("M-1").accepted_state) == ("closed", "CANCELLED")


def test_what_slips_in_before_a_cancellation_is_named_with_its_units(house: House) -> None:
    slip(house)
    assert cancelled_but_shipped(house) == ["shipped: 1 of line M-1-1"]


@pytest.mark.parametrize("is_loaded", [True, False], ids=["an extraction shows it", "it is read back"])
def test_a_shipment_of_a_cancelled_order_is_said_until_it_is_withdrawn(house: House, is_loaded: bool) -> None:
    if is_loaded:
        to_be_cancelled(house, "inbox")
        house.place()
        assert cancelled_but_shipped(house) == []
        house.fulfill("M-1", shipment(2))
        house.read()
        assert cancelled_but_shipped(house) == ["shipped: 2 of line M-1-1"]
    else:
        slip(house)
    house.fulfill("M-1")
    house.clock.skip(minutes=1)
    house.read()
    assert cancelled_but_shipped(house) == []


def test_an_older_snapshot_does_not_take_back_what_a_newer_one_shows(house: House) -> None:
    to_be_cancelled(house, "inbox")
    house.extract()  # read before the shipment, loaded after it
    house.place()
    house.fulfill("M-1", shipment(1))
    lines = (LineFulfillment(mp_line_number="M-1-1", shipments=(Shipment(quantity=1),)),)
    newer = Snapshot(mp_order_number="M-1", marketplace_state="CANCELLED", fulfillments=lines)
    with house.state.begin() as connection:
        open_orders.keep_open(connection, SELLER, [(newer, house.state.now())])
    house.load()
    assert cancelled_but_shipped(house) == ["shipped: 1 of line M-1-1"]


def test_feedamps_correction_to_shipped_ends_it_with_the_next_repair(house: House) -> None:
    slip(house)
    house.fulfill("M-1", shipment(2))
    with house.sandbox.world.lock:
        house.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    house.load()
    house.reconcile(repair=True)
    assert house.order("M-1").accepted_state == "SHIPPED"
    assert cancelled_but_shipped(house) == []


# Closing, when everything was cancelled


def all_cancelled(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", cancelled=2)
    house.read()
    house.validate()


def test_a_closing_as_cancelled_reads_the_order_by_itself(house: House) -> None:
    """A list that lags shows the cancellations that the seller has since taken back."""
    all_cancelled(house)
    house.clock.skip(hours=1)
    house.fulfill("M-1", shipment(1))
    house.sandbox.fault("index_lag", times=None, seconds=30)
    house.close()
    assert house.sandbox.broken_rules == []
    assert house.shown("M-1")["marketplace_state"] == OPEN
    assert house.order("M-1").closing_state is None
    house.sandbox.clear_faults()
    house.fulfill("M-1", shipment(2))
    house.read()
    house.process()
    assert house.shown("M-1")["marketplace_state"] == "SHIPPED"
    assert house.sandbox.broken_rules == []


def test_a_closing_as_cancelled_waits_until_the_order_could_be_read(house: House) -> None:
    all_cancelled(house)
    house.sandbox.fault("error_500", method="GET", path="/orders/M-1", times=None)
    assert house.close().undone
    assert (house.order("M-1").phase, len(house.asked("PUT"))) == ("settled", 1)
    house.sandbox.clear_faults()
    house.close()
    assert (house.order("M-1").phase, house.order("M-1").accepted_state) == ("closed", "CANCELLED")


def test_what_slips_in_before_a_closing_as_cancelled_is_named(house: House) -> None:
    all_cancelled(house)
    during_the_put(house, lambda: house.fulfill("M-1", shipment(2)), close)
    assert house.order("M-1").accepted_state == "CANCELLED"
    assert cancelled_but_shipped(house) == ["shipped: 2 of line M-1-1"]


def test_a_read_that_outlasts_its_lease_sends_nothing(house: House) -> None:
    to_be_cancelled(house, "inbox")

    async def sleep(seconds: float) -> None:
        house.clock.skip(seconds=leases.LASTS.total_seconds() + 1)
        await asyncio.sleep(0)

    house.sandbox.fault("reset_before", method="GET", path="/orders/M-1")
    resources = replace(house.resources, sleep=sleep)
    result = asyncio.run(place(resources, house.run("place_orders"), 0, [SELLER]))
    assert "Another process is placing order M-1" in result.undone[0]
    assert len(house.asked("PUT")) == 1
    house.place()
    assert house.order("M-1").phase == "closed"


def test_an_order_that_ended_while_it_was_read_is_left_alone(house: House) -> None:
    to_be_cancelled(house, "inbox")

    async def sleep(seconds: float) -> None:
        with house.state.begin() as connection:
            ledger.change(connection, house.order("M-1"), phase="held", reason="by another step")
        await house.clock.sleep(seconds)

    house.sandbox.fault("reset_before", method="GET", path="/orders/M-1")
    asyncio.run(place(replace(house.resources, sleep=sleep), house.run("place_orders"), 0, [SELLER]))
    assert (house.order("M-1").reason, len(house.asked("PUT"))) == ("by another step", 1)


def test_a_cancellation_that_is_held_up_after_its_read_is_read_again_and_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.placed("M-1")
    house.deliver("M-1", marketplace_state="CANCELLED")
    monkeypatch.setattr(client, "STILL_FRESH_S", -1.0)
    before = len(house.asked("GET", "/orders/M-1"))
    house.place()
    assert len(house.asked("GET", "/orders/M-1")) - before == seller_batch.READS_BEFORE_CANCELLED
    assert house.shown("M-1")["marketplace_state"] == OPEN
    assert "before its change could be sent" in str(house.order("M-1").reason)
    monkeypatch.undo()
    house.clock.skip(hours=1)
    house.place()
    assert house.order("M-1").phase == "closed"
    assert house.shown("M-1")["marketplace_state"] == "CANCELLED"


def test_a_cancellation_that_comes_in_as_the_order_is_closed_leaves_its_word(house: House) -> None:
    house.placed("M-1")
    house.deliver("M-1", marketplace_state="CANCELLED")
    house.fulfill("M-1", shipment(2))
    house.read()
    house.process()
    order = house.order("M-1")
    assert (order.phase, order.accepted_state, order.conflicting_state) == ("closed", "SHIPPED", "CANCELLED")
    assert order.reason == "CANCELLED came in, but the seller had shipped: the order is closed as SHIPPED"
    house.place()
    assert house.shown("M-1")["marketplace_state"] == "SHIPPED"


@pytest.mark.parametrize("answer", ["missing", "unreadable"])
def test_an_order_that_was_closed_while_it_was_read_is_not_held(house: House, answer: str) -> None:
    to_be_cancelled(house, "inbox")

    async def closed_meanwhile(_client: Any, number: str) -> Any:
        with house.state.begin() as connection:
            ledger.change(
                connection,
                house.order("M-1"),
                phase="closed",
                accepted_state="SHIPPED",
                desired_state="SHIPPED",
            )
        if answer == "missing":
            raise NotFoundError("FeedAMP does not have it.", status=404)
        return UnreadableOrder(number, "status")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seller_batch, "read_alone", closed_meanwhile)
        house.place()
    order = house.order("M-1")
    assert (order.phase, order.accepted_state, order.conflicting_state) == ("closed", "SHIPPED", None)
    assert order.missing_since is None
