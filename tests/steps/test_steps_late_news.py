"""Changes that arrive late or without a seller's update are still noticed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from env import BAD_NUMBER, SELLER, Env, shipment

from feedamp.api.rate_limit import RateLimiter
from feedamp.errors import TransientError
from feedamp.rules.finding import REPORTED
from feedamp.steps.step_end import finish


def test_an_order_shipped_before_its_placing_was_confirmed_is_closed(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1"))
    env.sandbox.fault("reset_after", method="PUT", times=4)
    env.intake()
    env.place()
    assert env.order("M-1").phase == "to_place"
    env.fulfill("M-1", shipment(2))
    env.read()
    env.process()
    env.clock.skip(hours=1)
    env.place()
    env.process()
    assert env.order("M-1").phase == "closed"
    assert env.shown("M-1")["marketplace_state"] == "SHIPPED"


def test_an_error_that_is_dropped_without_an_update_lets_the_order_close(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.read()
    env.validate()
    errors = env.sandbox._order(SELLER, "M-1").errors
    kept = list(errors)
    env.fulfill("M-1", shipment(2))
    env.sandbox._order(SELLER, "M-1").errors.extend(kept)  # corrected, but still listed
    env.read()
    env.process()
    assert env.order("M-1").phase == "settled"
    env.sandbox._order(SELLER, "M-1").errors.clear()
    env.clock.skip(hours=1)
    env.read()
    env.clock.skip(hours=1)
    env.read()
    env.process()
    assert env.order("M-1").phase == "closed"


def test_a_report_that_is_dropped_while_the_fault_remains_goes_out_again(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.read()
    env.validate()
    env.clock.skip(hours=1)
    env.read()
    env.validate()
    env.sandbox.clear_errors(SELLER, "M-1")
    env.clock.skip(hours=1)
    env.read()
    env.validate()
    assert len(env.asked("POST", "/orders/M-1/errors")) == 2
    assert [f.state for f in env.findings("M-1")] == [REPORTED]


def test_a_run_is_not_done_while_orders_wait_for_their_next_try(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1"))
    env.sandbox.fault("error_503", method="PUT", times=4)
    env.intake()
    env.place()
    sent = len(env.asked("PUT", "/orders/M-1"))
    with pytest.raises(TransientError, match="wait for their next try"):
        finish(env.place())
    assert len(env.asked("PUT", "/orders/M-1")) == sent


def test_a_retry_adds_to_what_the_first_try_did(env: Env) -> None:
    run = env.run("extract_fulfillments")
    env.placed("M-1", "M-2")
    env.run = lambda *_args, **_kwargs: run  # type: ignore[method-assign]
    env.extract()
    env.extract()
    env.load()
    rows = env.rows("SELECT pages, requests, orders FROM runs WHERE step = 'extract'")
    assert rows == [(4, 5, 4)]  # two sellers, two tries, one token call


async def test_a_request_that_leaves_late_delays_the_next_slot(env: Env) -> None:
    def monotonic() -> float:
        return env.clock.now().timestamp()

    rate_limiter = RateLimiter(env.state, requests_per_second=1.1, sleep=env.clock.sleep, monotonic=monotonic)
    async with rate_limiter.leaving(SELLER, asyncio.Semaphore(1)) as left:
        env.clock.skip(seconds=0.7)  # a new connection had to be made first
        left_at = env.clock.now()
        left(left_at.timestamp())
    async with rate_limiter.leaving(SELLER, asyncio.Semaphore(1)):
        assert (env.clock.now() - left_at).total_seconds() >= 1.0
    assert env.clock.now() > datetime(2026, 1, 1, tzinfo=UTC)
