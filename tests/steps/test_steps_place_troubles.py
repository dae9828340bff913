"""Placing with failures: PUTs without an answer, failing sellers (promises 1, 2 and 8)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from env import OTHER, SELLER, Env

from feedamp.state import schema
from feedamp.steps.place_orders.place import place
from feedamp_sandbox.faults import Kind

pytestmark = pytest.mark.usefixtures("no_rule_is_broken")


LOST: list[Kind] = ["reset_after", "cut_body"]


FAILED: list[Kind] = ["reset_before", "error_502", "error_503", "throttle", "throttle_until", "throttle_bare"]


@pytest.mark.parametrize("kind", [*LOST, *FAILED])
def test_one_failed_put_is_repeated_at_once(env: Env, kind: Kind) -> None:
    env.sandbox.fault(kind, method="PUT")
    env.placed("M-1")
    assert env.order("M-1").phase == "settled"


@pytest.mark.parametrize("kind", [*LOST, "error_500", "throttle_bare"])
def test_a_put_that_fails_again_and_again_waits_and_goes_out_later(env: Env, kind: Kind) -> None:
    env.sandbox.fault(kind, method="PUT", times=4)
    env.placed("M-1")
    waiting = env.order("M-1")
    assert (waiting.phase, waiting.attempts) == ("to_place", 1)
    assert waiting.reason
    assert waiting.next_try_at is not None
    assert env.place().orders == 0
    env.clock.skip(hours=1)
    assert env.place().orders == 1
    assert env.order("M-1").phase == "settled"


def test_a_failed_put_is_work_left_undone(env: Env) -> None:
    env.deliver("M-1")
    env.sandbox.fault("error_500", method="PUT", times=None)
    result = env.place()
    assert result.undone
    assert not result.complete


@pytest.mark.parametrize("happened", [True, False], ids=["the PUT had arrived", "the PUT had not arrived"])
def test_a_cancellation_after_a_put_without_answer_asks_feedamp_first(env: Env, happened: bool) -> None:
    env.sandbox.fault("reset_after" if happened else "reset_before", method="PUT", times=4)
    env.placed("M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    env.clock.skip(hours=1)
    env.place()
    if happened:
        assert env.shown("M-1")["marketplace_state"] == "CANCELLED"
        assert env.order("M-1").phase == "closed"
    else:
        assert env.sandbox.orders(SELLER) == {}
        assert env.order("M-1").phase == "never_placed"


def test_an_unanswered_put_of_an_unreadable_order_is_cancelled_once_it_is_read(env: Env) -> None:
    env.sandbox.fault("reset_after", method="PUT", times=4)
    env.placed("M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    env.clock.skip(hours=1)
    env.sandbox.fault("misshapen_order", method="GET")
    env.place()
    assert env.order("M-1").phase == "held"
    env.read()
    env.process()
    env.place()
    assert env.order("M-1").phase == "closed"


@pytest.mark.parametrize("trouble", ["an outage", "a revoked grant"])
def test_one_failing_seller_does_not_delay_another(env: Env, trouble: str) -> None:
    env.deliver("M-1")
    env.deliver("M-2", seller=OTHER)
    if trouble == "an outage":
        env.sandbox.fault("error_503", seller_id=SELLER, path="/orders", times=None)
    else:
        env.sandbox.revoke(SELLER)
    env.place()
    assert env.order("M-2", OTHER).phase == "settled"
    waiting = env.order("M-1")
    assert waiting.phase == "to_place"
    assert waiting.reason
    assert waiting.next_try_at is not None


def test_all_orders_of_a_seller_in_an_outage_say_why_they_wait(env: Env) -> None:
    numbers = [f"M-{n}" for n in range(8)]
    env.drop("orders.jsonl", *(env.body(number) for number in numbers))
    env.intake()
    env.sandbox.fault("error_503", method="PUT", times=None)
    env.place()
    assert all(env.order(number).reason and env.order(number).next_try_at for number in numbers)
    assert len({r.path for r in env.asked("PUT")}) < len(numbers)


def test_a_refused_grant_requires_action_and_leaves_the_run_green(env: Env) -> None:
    env.deliver("M-1")
    env.sandbox.revoke(SELLER)
    result = env.place()
    assert result.undone == []
    assert len(result.notes) == 1
    env.place()  # from now on the plan says why
    assert env.order("M-1").next_try_at > env.state.now() + timedelta(hours=23)


def test_orders_of_a_reconnected_seller_go_out_in_the_next_run(env: Env) -> None:
    env.deliver("M-1")
    token = env.sandbox.refresh_token(SELLER)
    env.register(SELLER, token="rt-wrong")
    env.place()
    env.register(SELLER, token=token)
    env.place()
    assert env.order("M-1").phase == "settled"


def test_an_order_that_cannot_even_be_read_hinders_no_other(env: Env) -> None:
    numbers = [f"M-{n}" for n in range(6)]
    env.drop("orders.jsonl", *(env.body(number) for number in numbers))
    env.intake()
    with env.state.begin() as connection:  # as a disk may do it
        orders = schema.orders
        connection.execute(sa.update(orders).where(orders.c.mp_order_number == "M-2").values(body="{"))
    result = env.place()
    assert sorted(env.sandbox.orders(SELLER)) == [number for number in numbers if number != "M-2"]
    assert {env.order(number).phase for number in numbers if number != "M-2"} == {"settled"}
    assert len(result.undone) == 1
    assert "M-2" in result.undone[0]


def test_two_runs_at_once_place_every_order_well(env: Env) -> None:
    numbers = [f"M-{n}" for n in range(6)]
    env.drop("orders.jsonl", *(env.body(number) for number in numbers))
    env.intake()

    async def both() -> None:
        runs = (env.run("place_orders"), env.run("place_orders"))
        await asyncio.gather(*(place(env.resources, run, 0, [SELLER]) for run in runs))

    asyncio.run(both())
    env.load()
    assert {env.order(number).phase for number in numbers} == {"settled"}
    assert env.rows("SELECT count(*) FROM placements") == [(6,)]
