"""A pause during a run takes effect at the seller's next order or page, and leaves the run green."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from env import BAD_NUMBER, OTHER, SELLER, Env, open_env, shipment

from feedamp.resources import Resources
from feedamp.state import sellers
from feedamp.steps.extract_fulfillments import extract
from feedamp.steps.per_order import ORDERS_AT_ONCE
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult
from feedamp_sandbox.faults import Kind

NUMBERS = [f"M-{n}" for n in range(4 * ORDERS_AT_ONCE)]


def pause(env: Env, *, paused: bool = True) -> None:
    with env.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=paused, now=env.state.now())


@contextmanager
def paused_while(env: Env, method: str, path: str, *, kind: Kind = "reset_before") -> Iterator[None]:
    """The seller is paused while the first request of this kind waits to be sent again."""
    before: Resources = env.resources

    async def sleep(seconds: float) -> None:
        pause(env)
        await env.clock.sleep(seconds)

    env.sandbox.fault(kind, method=method, path=path, seller_id=SELLER)
    env.resources = replace(env.resources, sleep=sleep)
    yield
    env.resources = before


def green(result: StepResult) -> StepResult:
    finish(result)
    assert [note for note in result.notes if "paused" in note] == [
        f"{SELLER}: The seller is paused or was removed; what was not sent waits."
    ]
    return result


def test_orders_that_were_not_sent_before_a_pause_wait_for_its_end(env: Env) -> None:
    env.drop("a.jsonl", *(env.body(number) for number in NUMBERS))
    env.drop("b.jsonl", env.body("O-1"), seller=OTHER)
    env.intake()
    with paused_while(env, "PUT", "/orders/M-"):
        green(env.place())
    waiting = [env.order(number) for number in NUMBERS if env.order(number).phase == "to_place"]
    assert len(waiting) >= len(NUMBERS) - 2 * ORDERS_AT_ONCE
    assert {order.reason for order in waiting} == {"the seller is paused"}
    assert env.order("O-1", OTHER).phase == "settled"
    sent = len(env.asked("PUT"))
    green_plan = env.place()
    assert (green_plan.undone, len(env.asked("PUT"))) == ([], sent)
    pause(env, paused=False)
    finish(env.place())
    assert {env.order(number).phase for number in NUMBERS} == {"settled"}


def test_orders_that_could_be_closed_stay_open_while_the_seller_is_paused(env: Env) -> None:
    env.placed(*NUMBERS)
    for number in NUMBERS:
        env.fulfill(number, shipment(2))
    env.see(*NUMBERS)
    env.validate()
    before = len(env.asked("PUT"))
    with paused_while(env, "PUT", "/orders/M-"):
        green(env.close())
    assert len(env.asked("PUT")) <= before + ORDERS_AT_ONCE + 1  # those under way, and a repeat
    pause(env, paused=False)
    finish(env.close())
    assert {env.order(number).phase for number in NUMBERS} == {"closed"}


def test_reports_wait_while_the_seller_is_paused(env: Env) -> None:
    env.placed(*NUMBERS)
    for number in NUMBERS:
        env.fulfill(number, shipment(2, f"{BAD_NUMBER[:-2]}{int(number[2:]) % 10}9"))
    env.see(*NUMBERS)
    with paused_while(env, "POST", "/errors", kind="throttle"):
        green(env.validate())
    assert len(env.asked("POST", "/errors")) == 2  # the one that was under way, and its repeat
    assert {finding.state for number in NUMBERS[1:] for finding in env.findings(number)} <= {
        "to_report",
        "held",
    }
    pause(env, paused=False)
    finish(env.validate())
    assert len(env.asked("POST", "/errors")) > 1


def test_a_repair_sends_nothing_more_to_a_paused_seller(env: Env) -> None:
    env.placed(*NUMBERS)
    env.read()
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        for number in NUMBERS:
            orders._sorted[SELLER].remove(orders._by_number[SELLER].pop(number))
    with paused_while(env, "PUT", "/orders/M-"):
        green(env.reconcile(repair=True))
    waiting = [env.order(number) for number in NUMBERS if env.order(number).phase == "to_place"]
    assert len(waiting) >= len(NUMBERS) - 2 * ORDERS_AT_ONCE
    assert {order.reason for order in waiting} == {"the seller is paused"}
    pause(env, paused=False)
    finish(env.place())
    assert sorted(env.sandbox.orders(SELLER)) == sorted(NUMBERS)


def test_an_extraction_reads_no_further_page_of_a_paused_seller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "HELD", timedelta(0))  # as if pages came less often
    with open_env(rules={"page_size": 10}) as env:
        env.stock(80)
        with paused_while(env, "GET", "/orders$"):
            result = green(env.extract())
        assert not result.complete
        assert len(env.asked("GET", "/orders")) <= 4  # the next one was on its way
        env.load()
        assert env.watermark() is None
        assert env.rows("SELECT complete FROM runs WHERE step = 'extract'") == [(False,)]
        pause(env, paused=False)
        env.read()
        assert env.rows("SELECT count(*) FROM orders") == [(80,)]


def test_an_extraction_that_is_shown_nothing_heeds_a_pause(env: Env) -> None:
    with paused_while(env, "GET", "/orders$"):
        assert not green(env.extract()).complete
    env.load()
    assert env.watermark() is None


@pytest.mark.parametrize("is_paused", [True, False])
def test_only_a_paused_seller_counts_as_paused(env: Env, is_paused: bool) -> None:
    if is_paused:
        pause(env)
    with env.state.read() as connection:
        assert sellers.is_paused(connection, SELLER) == is_paused
        assert not sellers.is_paused(connection, OTHER)
        assert not sellers.is_paused(connection, "no one")
