"""What comes late or without a seller's update is noticed all the same."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from house import BAD_NUMBER, SELLER, House, shipment

from feedamp.api.rate_limit import RateLimiter
from feedamp.errors import TransientError
from feedamp.rules.finding import REPORTED
from feedamp.steps.runner import finish


def test_an_order_shipped_before_its_placing_was_confirmed_is_closed(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1"))
    house.sandbox.fault("reset_after", method="PUT", times=4)
    house.intake()
    house.place()
    assert house.order("M-1").phase == "to_place"
    house.fulfill("M-1", shipment(2))
    house.read()
    house.process()
    house.clock.skip(hours=1)
    house.place()
    house.process()
    assert house.order("M-1").phase == "closed"
    assert house.shown("M-1")["marketplace_state"] == "SHIPPED"


def test_an_error_that_is_dropped_without_an_update_lets_the_order_close(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment(2, BAD_NUMBER))
    house.read()
    house.validate()
    errors = house.sandbox._order(SELLER, "M-1").errors
    kept = list(errors)
    house.fulfill("M-1", shipment(2))
    house.sandbox._order(SELLER, "M-1").errors.extend(kept)  # mended, but still listed
    house.read()
    house.process()
    assert house.order("M-1").phase == "settled"
    house.sandbox._order(SELLER, "M-1").errors.clear()
    house.clock.skip(hours=1)
    house.read()
    house.clock.skip(hours=1)
    house.read()
    house.process()
    assert house.order("M-1").phase == "closed"


def test_a_report_that_is_dropped_while_the_fault_remains_goes_out_again(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment(2, BAD_NUMBER))
    house.read()
    house.validate()
    house.clock.skip(hours=1)
    house.read()
    house.validate()
    house.sandbox.clear_errors(SELLER, "M-1")
    house.clock.skip(hours=1)
    house.read()
    house.validate()
    assert len(house.asked("POST", "/orders/M-1/errors")) == 2
    assert [f.state for f in house.findings("M-1")] == [REPORTED]


def test_a_run_is_not_done_while_orders_wait_for_their_next_try(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1"))
    house.sandbox.fault("error_503", method="PUT", times=4)
    house.intake()
    house.place()
    sent = len(house.asked("PUT", "/orders/M-1"))
    with pytest.raises(TransientError, match="wait for their next try"):
        finish(house.place())
    assert len(house.asked("PUT", "/orders/M-1")) == sent


def test_a_retry_adds_to_what_the_first_try_did(house: House) -> None:
    run = house.run("extract_fulfillments")
    house.placed("M-1", "M-2")
    house.run = lambda *_args, **_kwargs: run  # type: ignore[method-assign]
    house.extract()
    house.extract()
    house.load()
    rows = house.rows("SELECT pages, requests, orders FROM runs WHERE step = 'extract'")
    assert rows == [(4, 5, 4)]  # two sellers, two tries, one token call


async def test_a_request_that_leaves_late_moves_the_next_turn(house: House) -> None:
    rate_limiter = RateLimiter(house.state, requests_per_second=1.1, sleep=house.clock.sleep)
    await rate_limiter.acquire(SELLER)
    house.clock.skip(seconds=0.7)  # a new connection had to be made first
    rate_limiter.left(SELLER)
    left_at = house.clock.now()
    await rate_limiter.acquire(SELLER)
    assert (house.clock.now() - left_at).total_seconds() >= 1.0
    assert house.clock.now() > datetime(2026, 1, 1, tzinfo=UTC)
