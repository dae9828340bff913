"""Two processes at the same work, and orders in trouble beside good ones (promises 5, 6 and 8)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from house import BAD_NUMBER, SELLER, House, shipment

from feedamp.errors import BusyError, TransientError
from feedamp.state import grants, leases
from feedamp.steps.place_orders.place import place, plan_place
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.process_fulfillments.validate import validate
from feedamp.steps.runner import (
    StepResult,
    finish,
    run_per_order,
)

BOTH = 2


def side_by_side(house: House, step: Any) -> list[str]:
    """What both have left undone."""

    async def both() -> list[Any]:
        runs = [house.run("process_fulfillments") for _ in range(BOTH)]
        return await asyncio.gather(*(step(house.resources, run, 0, [SELLER]) for run in runs))

    return [line for result in asyncio.run(both()) for line in result.undone]


def test_two_validations_at_once_report_once(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment(2, BAD_NUMBER))
    house.read()
    side_by_side(house, validate)
    assert len(house.asked("POST", "/orders/M-1/errors")) == 1
    assert house.sandbox.broken_rules == []


def test_two_closings_at_once_close_once(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment(2))
    house.read()
    house.validate()
    before = len(house.asked("PUT", "/orders/M-1"))
    side_by_side(house, close)
    assert len(house.asked("PUT", "/orders/M-1")) == before + 1
    assert house.order("M-1").phase == "closed"


def test_a_lease_ends_by_itself(house: House) -> None:
    def take() -> bool:
        with house.state.begin() as connection:
            return leases.take(connection, "close/S1/M-1", now=house.state.now()) is not None

    assert (take(), take()) == (True, False)
    house.clock.skip(seconds=leases.LASTS.total_seconds() + 1)
    assert take()


def test_who_comes_too_late_does_not_give_back_the_lease_of_the_next(house: House) -> None:
    with house.state.begin() as connection:
        first = leases.take(connection, "close/S1/M-1", now=house.state.now())
        house.clock.skip(seconds=leases.LASTS.total_seconds() + 1)
        second = leases.take(connection, "close/S1/M-1", now=house.state.now())
        leases.release(connection, "close/S1/M-1", str(first))
        assert second is not None
        assert leases.take(connection, "close/S1/M-1", now=house.state.now()) is None


def at_it(house: House, work: str, number: str) -> None:
    """As if a process had died in the middle of the work, just now."""
    with house.state.begin() as connection:
        leases.take(connection, f"{work}/{SELLER}/{number}", now=house.state.now())


def test_a_placing_whose_process_died_is_work_left_until_its_lease_has_ended(house: House) -> None:
    house.drop("orders.jsonl", house.body("M-1"), house.body("M-2"))
    house.intake()
    at_it(house, "place", "M-1")
    with pytest.raises(TransientError, match="Another process is placing order M-1"):
        finish(house.place())
    assert [house.order(number).phase for number in ("M-1", "M-2")] == ["to_place", "settled"]
    house.clock.skip(seconds=leases.LASTS.total_seconds() + 1)
    finish(house.place())
    assert house.order("M-1").phase == "settled"


def test_a_closing_whose_process_died_is_work_left_until_its_lease_has_ended(house: House) -> None:
    house.placed("M-1", "M-2")
    for number in ("M-1", "M-2"):
        house.fulfill(number, shipment(2))
    house.see("M-1", "M-2")
    house.validate()
    at_it(house, "close", "M-1")
    with pytest.raises(TransientError, match="Another process is closing order M-1"):
        finish(house.close())
    assert [house.order(number).phase for number in ("M-1", "M-2")] == ["settled", "closed"]
    house.clock.skip(seconds=leases.LASTS.total_seconds() + 1)
    finish(house.close())
    assert house.order("M-1").phase == "closed"


def test_what_others_are_at_does_not_end_a_sellers_turn(house: House) -> None:
    numbers = [f"M-{at}" for at in range(1, 6)]
    house.placed(*numbers)
    for number in numbers:
        house.fulfill(number, shipment(2, BAD_NUMBER))
    house.see(*numbers)
    for number in numbers[:4]:
        at_it(house, "report", number)
    with pytest.raises(TransientError):
        finish(house.validate())
    assert [house.findings(number)[0].state for number in numbers] == ["to_report"] * 4 + ["reported"]


def test_an_order_that_another_process_is_at_is_looked_at_again_after_all_others() -> None:
    asked: list[str] = []
    result = StepResult("close")

    async def work(number: str) -> None:
        asked.append(number)
        if asked == ["M-1"]:
            raise BusyError("Another process is closing it.", mp_order_number=number)

    asyncio.run(run_per_order(SELLER, ["M-1", "M-2"], result, work))
    assert (asked, result.undone) == (["M-1", "M-2", "M-1"], [])


def test_a_put_that_was_decided_on_earlier_does_not_take_back_a_cancellation(house: House) -> None:
    """One process has begun to release the order when the marketplace cancels it, and another places that."""
    house.placed("M-1", marketplace_state="PENDING")
    house.deliver("M-1")
    shards = plan_place(house.resources, house.run("place_orders"), [])

    async def both() -> None:
        waits, goes_on = asyncio.Event(), asyncio.Event()

        async def held_up(seconds: float) -> None:
            waits.set()
            await goes_on.wait()

        slow = asyncio.create_task(
            place(replace(house.resources, sleep=held_up), house.run("place_orders"), 0, shards[0]["sellers"])
        )
        await waits.wait()
        house.deliver("M-1", marketplace_state="CANCELLED")
        await place(house.resources, house.run("place_orders"), 0, shards[0]["sellers"])
        goes_on.set()
        await slow

    house.sandbox.fault("error_503", method="PUT")
    asyncio.run(both())
    house.clock.skip(minutes=10)
    house.place()
    assert house.shown("M-1")["marketplace_state"] == "CANCELLED"
    assert (house.order("M-1").phase, house.order("M-1").accepted_state) == ("closed", "CANCELLED")
    assert house.sandbox.broken_rules == []


def test_a_cancellation_that_waits_is_held_when_the_seller_ships_meanwhile(house: House) -> None:
    house.placed("M-1")
    cancelled = house.body("M-1", marketplace_state="CANCELLED")
    house.drop("cancel.jsonl", cancelled)
    house.intake()
    house.fulfill("M-1", shipment(1))
    house.see("M-1")
    house.place()
    assert (house.order("M-1").phase, house.order("M-1").conflicting_state) == ("held", "CANCELLED")
    assert house.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_a_conflict_that_the_seller_withdraws_lets_the_cancellation_out(house: House) -> None:
    test_a_cancellation_that_waits_is_held_when_the_seller_ships_meanwhile(house)
    house.fulfill("M-1")
    house.see("M-1")
    house.validate()
    house.place()
    assert (house.order("M-1").phase, house.order("M-1").accepted_state) == ("closed", "CANCELLED")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_one_order_that_always_fails_holds_up_no_other(house: House, method: str) -> None:
    numbers = ["M-1", "M-2", "M-3"]
    house.placed(*numbers)
    for number in numbers:
        house.fulfill(number, shipment(2, BAD_NUMBER) if method == "POST" else shipment(2))
    house.read()
    house.sandbox.fault("error_500", method=method, path="/orders/M-1", times=None)
    house.process()
    if method == "POST":
        assert [house.findings(n)[0].state for n in numbers] == ["to_report", "reported", "reported"]
    else:
        assert [house.order(n).phase for n in numbers] == ["settled", "closed", "closed"]


def test_an_order_whose_own_read_fails_costs_only_itself(house: House) -> None:
    house.placed("M-1", "M-2", "M-3")
    house.sandbox.fault("misshapen_order", path="/orders$", times=1)
    house.sandbox.fault("error_500", path="/orders/M-", times=None)
    result = house.extract()
    house.load()
    [(seen,)] = house.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL")
    assert seen == 2
    assert not result.complete
    assert house.watermark() is None


def test_poison_orders_keep_their_own_pause(house: House) -> None:
    house.drop("orders.jsonl", *(house.body(f"M-{n}") for n in range(1, 5)))
    house.sandbox.fault("error_500", path="/orders/M-1", times=None)
    house.sandbox.fault("error_500", path="/orders/M-2", times=None)
    house.intake()
    for _ in range(4):
        house.place()
        house.clock.skip(minutes=10)
    assert [house.order(f"M-{n}").phase for n in (3, 4)] == ["settled", "settled"]


def test_a_seller_who_is_disowned_in_two_runs_must_authorize_again(house: House) -> None:
    def status() -> str:
        with house.state.read() as connection:
            grant = grants.read(connection, house.cipher, SELLER)
        assert grant is not None
        return grant.status

    house.sandbox.fault("refuse_token", seller_id=SELLER, path="/orders", times=None)
    house.extract()
    assert status() == "active"
    house.clock.skip(hours=1)
    house.extract()
    assert status() == "needs_authorization"


def test_half_a_character_in_one_order_costs_no_other() -> None:
    from feedamp.codec import decode_json

    page = decode_json(b'{"orders":[{"mp_order_number":"A","x":"\\ud83d"},{"mp_order_number":"B"}]}')
    assert [order["mp_order_number"] for order in page["orders"]] == ["A", "B"]
    json.dumps(page).encode("utf-8")
