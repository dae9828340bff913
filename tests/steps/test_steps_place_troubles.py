"""Placing on a bad line: PUTs without an answer, sellers in trouble (promises 1, 2 and 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from house import OTHER, SELLER, House

from feedamp.state import schema
from feedamp.steps.place_orders.place import place
from feedamp_sandbox.faults import Kind


@pytest.fixture(autouse=True)
def _no_rule_is_broken(house: House) -> Iterator[None]:
    yield
    assert house.sandbox.broken_rules == []


LOST: list[Kind] = ["reset_after", "cut_body"]


FAILED: list[Kind] = ["reset_before", "error_502", "error_503", "throttle", "throttle_until", "throttle_bare"]


@pytest.mark.parametrize("kind", [*LOST, *FAILED])
def test_one_failed_put_is_repeated_at_once(house: House, kind: Kind) -> None:
    house.sandbox.fault(kind, method="PUT")
    house.placed("M-1")
    assert house.order("M-1").phase == "settled"


@pytest.mark.parametrize("kind", [*LOST, "error_500", "throttle_bare"])
def test_a_put_that_fails_again_and_again_waits_and_goes_out_later(house: House, kind: Kind) -> None:
    house.sandbox.fault(kind, method="PUT", times=4)
    house.placed("M-1")
    waiting = house.order("M-1")
    assert (waiting.phase, waiting.attempts) == ("to_place", 1)
    assert waiting.reason
    assert waiting.next_try_at is not None
    assert house.place().orders == 0
    house.clock.skip(hours=1)
    assert house.place().orders == 1
    assert house.order("M-1").phase == "settled"


def test_a_failed_put_is_work_left_undone(house: House) -> None:
    house.deliver("M-1")
    house.sandbox.fault("error_500", method="PUT", times=None)
    result = house.place()
    assert result.undone
    assert not result.complete


@pytest.mark.parametrize("happened", [True, False], ids=["the PUT had arrived", "the PUT had not arrived"])
def test_a_cancellation_after_a_put_without_answer_asks_feedamp_first(house: House, happened: bool) -> None:
    house.sandbox.fault("reset_after" if happened else "reset_before", method="PUT", times=4)
    house.placed("M-1")
    house.deliver("M-1", marketplace_state="CANCELLED")
    house.clock.skip(hours=1)
    house.place()
    if happened:
        assert house.shown("M-1")["marketplace_state"] == "CANCELLED"
        assert house.order("M-1").phase == "closed"
    else:
        assert house.sandbox.orders(SELLER) == {}
        assert house.order("M-1").phase == "never_placed"


def test_a_put_without_answer_whose_order_is_unreadable_is_cancelled_once_it_was_read(house: House) -> None:
    house.sandbox.fault("reset_after", method="PUT", times=4)
    house.placed("M-1")
    house.deliver("M-1", marketplace_state="CANCELLED")
    house.clock.skip(hours=1)
    house.sandbox.fault("misshapen_order", method="GET")
    house.place()
    assert house.order("M-1").phase == "held"
    house.read()
    house.process()
    house.place()
    assert house.order("M-1").phase == "closed"


@pytest.mark.parametrize("trouble", ["an outage", "a revoked grant"])
def test_one_sellers_trouble_does_not_hinder_another(house: House, trouble: str) -> None:
    house.deliver("M-1")
    house.deliver("M-2", seller=OTHER)
    if trouble == "an outage":
        house.sandbox.fault("error_503", seller_id=SELLER, path="/orders", times=None)
    else:
        house.sandbox.revoke(SELLER)
    house.place()
    assert house.order("M-2", OTHER).phase == "settled"
    waiting = house.order("M-1")
    assert waiting.phase == "to_place"
    assert waiting.reason
    assert waiting.next_try_at is not None


def test_all_orders_of_a_seller_in_an_outage_say_why_they_wait(house: House) -> None:
    numbers = [f"M-{n}" for n in range(8)]
    house.drop("orders.jsonl", *(house.body(number) for number in numbers))
    house.intake()
    house.sandbox.fault("error_503", method="PUT", times=None)
    house.place()
    assert all(house.order(number).reason and house.order(number).next_try_at for number in numbers)
    assert len({r.path for r in house.asked("PUT")}) < len(numbers)


def test_a_refused_grant_needs_a_person_and_leaves_the_run_green(house: House) -> None:
    house.deliver("M-1")
    house.sandbox.revoke(SELLER)
    result = house.place()
    assert result.undone == []
    assert len(result.notes) == 1
    house.place()  # from now on the plan says why
    assert house.order("M-1").next_try_at > house.state.now() + timedelta(hours=23)


def test_orders_of_a_reconnected_seller_go_out_in_the_next_run(house: House) -> None:
    house.deliver("M-1")
    token = house.sandbox.refresh_token(SELLER)
    house.register(SELLER, token="rt-wrong")
    house.place()
    house.register(SELLER, token=token)
    house.place()
    assert house.order("M-1").phase == "settled"


def test_an_order_that_cannot_even_be_read_hinders_no_other(house: House) -> None:
    numbers = [f"M-{n}" for n in range(6)]
    house.drop("orders.jsonl", *(house.body(number) for number in numbers))
    house.intake()
    with house.state.begin() as connection:  # as a disk may do it
        orders = schema.orders
        connection.execute(sa.update(orders).where(orders.c.mp_order_number == "M-2").values(body="{"))
    result = house.place()
    assert sorted(house.sandbox.orders(SELLER)) == [number for number in numbers if number != "M-2"]
    assert {house.order(number).phase for number in numbers if number != "M-2"} == {"settled"}
    assert len(result.undone) == 1
    assert "M-2" in result.undone[0]


def test_two_runs_at_once_place_every_order_well(house: House) -> None:
    numbers = [f"M-{n}" for n in range(6)]
    house.drop("orders.jsonl", *(house.body(number) for number in numbers))
    house.intake()

    async def both() -> None:
        runs = (house.run("place_orders"), house.run("place_orders"))
        await asyncio.gather(*(place(house.resources, run, 0, [SELLER]) for run in runs))

    asyncio.run(both())
    house.load()
    assert {house.order(number).phase for number in numbers} == {"settled"}
    assert house.rows("SELECT count(*) FROM placements") == [(6,)]
