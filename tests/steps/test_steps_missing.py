"""An order that FeedAMP does not have is marked, requires action, and is not tried again in every run."""

from __future__ import annotations

import asyncio
import bisect
from datetime import datetime
from typing import Any

import pytest
from house import BAD_NUMBER, SELLER, House, shipment

from feedamp.state import ledger, overview
from feedamp.steps.completeness_proof.verify import verify
from feedamp.steps.runner import finish
from feedamp_sandbox.orders import StoredOrder


def lose(house: House, number: str = "M-1") -> StoredOrder:
    """FeedAMP forgets the order."""
    with house.sandbox.world.lock:
        orders = house.sandbox.world.orders
        order: StoredOrder = orders._by_number[SELLER].pop(number)
        orders._sorted[SELLER].remove(order)
        return order


def bring_back(house: House, order: StoredOrder) -> None:
    with house.sandbox.world.lock:
        orders = house.sandbox.world.orders
        orders._by_number[SELLER][order.body["mp_order_number"]] = order
        bisect.insort(orders._sorted[SELLER], order, key=lambda stored: stored.sort_key)


def missing(house: House) -> list[str]:
    with house.state.read() as connection:
        found = overview.missing_orders(connection, limit=20)
    return [item["mp_order_number"] for item in found.items]


def waits(house: House) -> dict[str, int]:
    with house.state.read() as connection:
        return dict(overview.waits_of_settled(connection))


def alone(house: House) -> int:
    return len(house.asked("GET", "/orders/M-1"))


@pytest.fixture
def closable(house: House) -> House:
    """M-1 could be closed."""
    house.placed("M-1")
    house.fulfill("M-1", shipment(2))
    house.read()
    house.validate()
    return house


def test_close_marks_what_feedamp_does_not_have(closable: House) -> None:
    lose(closable)
    result = closable.close()
    assert finish(result)["notes"] == 1
    assert missing(closable) == ["M-1"]
    assert waits(closable) == {overview.MISSING: 1}


def test_close_tries_a_missing_order_once_a_day_and_says_so(closable: House) -> None:
    closable.placed("M-2")
    closable.fulfill("M-2", shipment(2))
    closable.see("M-2")
    closable.validate()
    lose(closable)
    closable.close()
    before = len(closable.sandbox.requests)
    assert closable.close().sellers == 0
    assert len(closable.sandbox.requests) == before
    closable.placed("M-3")
    closable.fulfill("M-3", shipment(2))
    closable.see("M-3")
    closable.validate()
    asked = alone(closable)
    result = closable.close()
    assert closable.order("M-3").phase == "closed"
    assert "FeedAMP does not have 1 order that could be closed" in result.notes[0]
    assert alone(closable) == asked
    closable.clock.skip(hours=25)
    closable.close()
    assert alone(closable) == asked + 1


def test_an_order_that_shows_again_is_missing_no_longer_and_closes(closable: House) -> None:
    order = lose(closable)
    closable.close()
    closable.clock.skip(hours=25)
    closable.read()
    assert missing(closable) == ["M-1"]
    bring_back(closable, order)
    closable.clock.skip(hours=25)
    closable.read()
    assert (missing(closable), closable.order("M-1").next_try_at) == ([], None)
    closable.process()
    assert closable.order("M-1").phase == "closed"


def test_extractions_look_for_a_missing_order_once_a_day(closable: House) -> None:
    lose(closable)
    closable.close()
    asked = alone(closable)
    for _ in range(4):
        closable.clock.skip(minutes=15)
        closable.read()
    assert alone(closable) == asked
    closable.clock.skip(days=1)
    closable.read()
    assert alone(closable) == asked + 1


def test_a_report_on_an_order_that_feedamp_does_not_have_marks_it(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment(2, BAD_NUMBER))
    house.read()
    lose(house)
    finish(house.validate())
    assert missing(house) == ["M-1"]
    posts = len(house.asked("POST", "/errors"))
    finish(house.validate())
    assert len(house.asked("POST", "/errors")) == posts
    house.clock.skip(hours=25)
    finish(house.validate())
    assert len(house.asked("POST", "/errors")) == posts + 1


def test_a_cancellation_of_an_order_that_feedamp_does_not_have_is_held(house: House) -> None:
    house.placed("M-1")
    house.read()
    order = lose(house)
    house.deliver("M-1", marketplace_state="CANCELLED")
    finish(house.place())
    assert (missing(house), house.sandbox.orders(SELLER)) == (["M-1"], {})
    assert "does not have the order" in str(house.order("M-1").reason)
    bring_back(house, order)
    house.clock.skip(hours=25)
    house.read()
    house.process()
    house.place()
    assert (house.order("M-1").phase, house.order("M-1").accepted_state) == ("closed", "CANCELLED")


def test_a_read_back_marks_what_feedamp_lost_right_after_the_change(house: House) -> None:
    house.placed("M-1", marketplace_state="PENDING")
    house.deliver("M-1")
    house.sandbox.fault("error_500", method="GET", path="/orders", times=None)
    house.place()
    house.sandbox.clear_faults()
    lose(house)
    house.read()  # what could not be read back is read by number
    assert missing(house) == ["M-1"]


def test_a_repair_places_a_missing_order_again_and_the_mark_goes(house: House) -> None:
    house.placed("M-1")
    house.read()
    lose(house)
    house.reconcile()
    assert missing(house) == ["M-1"]
    house.reconcile(repair=True)
    assert (missing(house), house.order("M-1").phase) == ([], "settled")
    assert house.order("M-1").missing_since is None
    assert "M-1" in house.sandbox.orders(SELLER)


def test_a_missing_order_that_the_seller_has_worked_on_stays_marked_after_a_repair(closable: House) -> None:
    lose(closable)
    closable.reconcile(repair=True)
    assert missing(closable) == ["M-1"]


def test_an_order_that_never_arrived_is_not_missing(house: House) -> None:
    house.sandbox.fault("reset_before", method="PUT", times=4)
    house.placed("M-1")
    house.reconcile()
    assert (missing(house), house.order("M-1").missing_since) == ([], None)


def test_since_when_it_is_missing_stays_the_first_moment(closable: House) -> None:
    lose(closable)
    closable.close()
    first: Any = closable.order("M-1").missing_since
    closable.clock.skip(hours=25)
    closable.close()
    assert closable.order("M-1").missing_since == first


def mark_as_asked(house: House, asked_at: datetime, number: str = "M-1") -> None:
    """What a process stores that was answered 404 by then and comes late."""
    with house.state.begin() as connection:
        ledger.mark_missing(connection, SELLER, number, asked_at=asked_at)


def test_an_old_answer_does_not_mark_what_was_placed_again_since(house: House) -> None:
    house.placed("M-1")
    house.read()
    lose(house)
    asked_at = house.clock.now()
    house.clock.skip(minutes=5)
    house.reconcile(repair=True)
    assert "M-1" in house.sandbox.orders(SELLER)
    mark_as_asked(house, asked_at)
    assert (missing(house), house.order("M-1").missing_since) == ([], None)
    mark_as_asked(house, house.clock.now())
    assert missing(house) == ["M-1"]


def test_an_old_answer_does_not_mark_what_was_accepted_again_and_not_yet_read(house: House) -> None:
    house.placed("M-1", marketplace_state="PENDING")
    house.read()
    asked_at = house.clock.now()
    house.clock.skip(minutes=5)
    house.deliver("M-1")
    house.sandbox.fault("error_500", method="GET", path="/orders", times=None)
    house.place()
    assert house.order("M-1").accepted_state == "AWAITING_SHIPMENT"
    mark_as_asked(house, asked_at)
    assert missing(house) == []


def test_an_old_answer_does_not_mark_what_was_closed_since(closable: House) -> None:
    asked_at = closable.clock.now()
    closable.clock.skip(minutes=5)
    closable.close()
    mark_as_asked(closable, asked_at)
    assert closable.order("M-1").missing_since is None


def test_a_repair_of_the_lake_marks_what_feedamp_does_not_have(house: House) -> None:
    house.placed("M-1")
    lose(house)
    house.load()
    found = asyncio.run(verify(house.resources, house.run("lake"), repair=True))
    assert any("is not in the seller's FeedAMP account any more" in note for note in found.notes)
    assert missing(house) == ["M-1"]
