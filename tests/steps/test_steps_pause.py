"""A pause in mid-run takes hold at the seller's next order or page, and leaves the run green."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from house import BAD_NUMBER, OTHER, SELLER, House, open_house, shipment

from feedamp.resources import Resources
from feedamp.state import sellers
from feedamp.steps.place_orders.seller_batch import ORDERS_AT_ONCE
from feedamp.steps.runner import StepResult, finish
from feedamp_sandbox.faults import Kind

NUMBERS = [f"M-{n}" for n in range(4 * ORDERS_AT_ONCE)]


def pause(house: House, *, paused: bool = True) -> None:
    with house.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=paused, now=house.state.now())


@contextmanager
def paused_while(house: House, method: str, path: str, *, kind: Kind = "reset_before") -> Iterator[None]:
    """The seller is paused while the first request of this kind waits to be sent again."""
    before: Resources = house.resources

    async def sleep(seconds: float) -> None:
        pause(house)
        await house.clock.sleep(seconds)

    house.sandbox.fault(kind, method=method, path=path, seller_id=SELLER)
    house.resources = replace(house.resources, sleep=sleep)
    yield
    house.resources = before


def green(result: StepResult) -> StepResult:
    finish(result)
    assert [note for note in result.notes if "paused" in note] == [
        f"{SELLER}: The seller is paused; what was not sent waits."
    ]
    return result


def test_orders_that_were_not_sent_before_a_pause_wait_for_its_end(house: House) -> None:
    house.drop("a.jsonl", *(house.body(number) for number in NUMBERS))
    house.drop("b.jsonl", house.body("O-1"), seller=OTHER)
    house.intake()
    with paused_while(house, "PUT", "/orders/M-"):
        green(house.place())
    waiting = [house.order(number) for number in NUMBERS if house.order(number).phase == "to_place"]
    assert len(waiting) >= len(NUMBERS) - 2 * ORDERS_AT_ONCE
    assert {order.reason for order in waiting} == {"the seller is paused"}
    assert house.order("O-1", OTHER).phase == "settled"
    sent = len(house.asked("PUT"))
    green_plan = house.place()
    assert (green_plan.undone, len(house.asked("PUT"))) == ([], sent)
    pause(house, paused=False)
    finish(house.place())
    assert {house.order(number).phase for number in NUMBERS} == {"settled"}


def test_orders_that_could_be_closed_stay_open_while_the_seller_is_paused(house: House) -> None:
    house.placed(*NUMBERS)
    for number in NUMBERS:
        house.fulfill(number, shipment(2))
    house.see(*NUMBERS)
    house.validate()
    before = len(house.asked("PUT"))
    with paused_while(house, "PUT", "/orders/M-"):
        green(house.close())
    assert len(house.asked("PUT")) == before + 2  # the one that was under way, and its repeat
    pause(house, paused=False)
    finish(house.close())
    assert {house.order(number).phase for number in NUMBERS} == {"closed"}


def test_reports_wait_while_the_seller_is_paused(house: House) -> None:
    house.placed(*NUMBERS)
    for number in NUMBERS:
        house.fulfill(number, shipment(2, f"{BAD_NUMBER[:-2]}{int(number[2:]) % 10}9"))
    house.see(*NUMBERS)
    with paused_while(house, "POST", "/errors", kind="throttle"):
        green(house.validate())
    assert len(house.asked("POST", "/errors")) == 2  # the one that was under way, and its repeat
    assert {finding.state for number in NUMBERS[1:] for finding in house.findings(number)} <= {
        "to_report",
        "held",
    }
    pause(house, paused=False)
    finish(house.validate())
    assert len(house.asked("POST", "/errors")) > 1


def test_a_repair_sends_nothing_more_to_a_paused_seller(house: House) -> None:
    house.placed(*NUMBERS)
    house.read()
    with house.sandbox.world.lock:
        orders = house.sandbox.world.orders
        for number in NUMBERS:
            orders._sorted[SELLER].remove(orders._by_number[SELLER].pop(number))
    with paused_while(house, "PUT", "/orders/M-"):
        green(house.reconcile(repair=True))
    waiting = [house.order(number) for number in NUMBERS if house.order(number).phase == "to_place"]
    assert len(waiting) >= len(NUMBERS) - 2 * ORDERS_AT_ONCE
    assert {order.reason for order in waiting} == {"the seller is paused"}
    pause(house, paused=False)
    finish(house.place())
    assert sorted(house.sandbox.orders(SELLER)) == sorted(NUMBERS)


def test_an_extraction_reads_no_further_page_of_a_paused_seller(tmp_path: Any) -> None:
    with open_house(tmp_path, rules={"page_size": 10}) as house:
        house.stock(30)
        with paused_while(house, "GET", "/orders$"):
            result = green(house.extract())
        assert not result.complete
        assert len(house.asked("GET", "/orders")) <= 3
        house.load()
        assert house.watermark() is None
        assert house.rows("SELECT complete FROM runs WHERE step = 'extract'") == [(False,)]
        pause(house, paused=False)
        house.read()
        assert house.rows("SELECT count(*) FROM orders") == [(30,)]


@pytest.mark.parametrize("is_paused", [True, False])
def test_only_a_paused_seller_counts_as_paused(house: House, is_paused: bool) -> None:
    if is_paused:
        pause(house)
    with house.state.read() as connection:
        assert sellers.is_paused(connection, SELLER) == is_paused
        assert not sellers.is_paused(connection, OTHER)
        assert not sellers.is_paused(connection, "no one")
