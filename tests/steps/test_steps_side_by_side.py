"""Two processes with the same work, and failing orders beside good ones (promises 5, 6 and 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from env import BAD_NUMBER, SELLER, Env, shipment
from other_leases import ELSEWHERE, QUICK, held_elsewhere, leave_lease, use_quick_leases

from feedamp.errors import (
    AuthorizationError,
    BusyError,
    ConfigurationError,
    PausedError,
    ThrottledError,
    TransientError,
)
from feedamp.models import Order
from feedamp.state import grants, leases
from feedamp.state.schema import orders
from feedamp.steps.per_order import run_per_order
from feedamp.steps.place_orders.place import place, plan_place
from feedamp.steps.process_fulfillments import close as close_module
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.process_fulfillments.closing_moments import Closing, ClosingMoments
from feedamp.steps.process_fulfillments.validate import validate
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult

BOTH = 2


def side_by_side(env: Env, step: Any) -> list[str]:
    """What both have left undone."""

    async def both() -> list[Any]:
        runs = [env.run("process_fulfillments") for _ in range(BOTH)]
        return await asyncio.gather(*(step(env.resources, run, 0, [SELLER]) for run in runs))

    return [line for result in asyncio.run(both()) for line in result.undone]


def test_two_validations_at_once_report_once(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.read()
    # So slow that both have read before either can send.
    env.sandbox.world.options = replace(env.sandbox.world.options, latency_s=0.4)
    side_by_side(env, validate)
    assert len(env.asked("POST", "/orders/M-1/errors")) == 1
    assert env.sandbox.broken_rules == []


def test_two_closings_at_once_close_once(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read the order at the same moment, and neither sends before both have decided."""
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.read()
    env.validate()
    before = len(env.asked("PUT", "/orders/M-1"))
    decided, read_at, both = ClosingMoments.decided, env.state.now(), asyncio.Barrier(BOTH)
    first: list[Any] = []

    @asynccontextmanager
    async def together(self: ClosingMoments, seller_id: str, fresh: Order, _: Any) -> AsyncIterator[Closing]:
        async with decided(self, seller_id, fresh, read_at) as closing:
            if self not in first:
                first.append(self)
                await asyncio.wait_for(both.wait(), timeout=60)
            yield closing

    monkeypatch.setattr(ClosingMoments, "decided", together)
    side_by_side(env, close)
    assert len(env.asked("PUT", "/orders/M-1")) == before + 1
    assert env.order("M-1").phase == "closed"


def test_an_order_that_another_process_is_placing_is_work_left(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1"), env.body("M-2"))
    env.intake()
    use_quick_leases(env.state)
    with (
        held_elsewhere(env.state, f"place/{SELLER}/M-1"),
        pytest.raises(TransientError, match="Another process is placing order M-1"),
    ):
        finish(env.place())
    assert [env.order(number).phase for number in ("M-1", "M-2")] == ["to_place", "settled"]


def test_an_order_that_was_taken_over_is_not_sent_again(env: Env) -> None:
    """The process waits before it repeats the PUT, and is stopped so long that another one takes the lease."""
    env.deliver("M-1")
    use_quick_leases(env.state)

    async def stopped(seconds: float) -> None:
        with env.state.begin() as connection:
            connection.execute(leases.leases.update().values(owner=ELSEWHERE))
        await asyncio.sleep(QUICK.free_after_s)

    env.sandbox.fault("error_503", method="PUT")
    resources = replace(env.resources, sleep=stopped)
    result = asyncio.run(place(resources, env.run("place_orders"), 0, [SELLER]))
    assert "Another process is placing order M-1" in result.undone[0]
    assert len(env.asked("PUT")) == 1
    assert (env.order("M-1").attempts, env.order("M-1").next_try_at) == (0, None)


def test_an_order_whose_process_died_on_another_machine_is_placed(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1"), env.body("M-2"))
    env.intake()
    use_quick_leases(env.state)
    leave_lease(env.state, f"place/{SELLER}/M-1")
    finish(env.place())
    assert env.order("M-1").phase == "settled"


def shipped(env: Env, *numbers: str) -> None:
    """Orders that can be closed."""
    env.placed(*numbers)
    for number in numbers:
        env.fulfill(number, shipment(2))
    env.see(*numbers)
    env.validate()


def test_an_order_whose_process_died_on_another_machine_is_closed(env: Env) -> None:
    shipped(env, "M-1", "M-2")
    use_quick_leases(env.state)
    with (
        held_elsewhere(env.state, f"close/{SELLER}/M-1"),
        pytest.raises(TransientError, match="Another process is closing order M-1"),
    ):
        finish(env.close())
    assert [env.order(number).phase for number in ("M-1", "M-2")] == ["settled", "closed"]
    leave_lease(env.state, f"close/{SELLER}/M-1")
    finish(env.close())
    assert env.order("M-1").phase == "closed"


def test_an_order_that_another_process_has_closed_by_the_end_is_not_undone(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(env, "M-1", "M-2")
    use_quick_leases(env.state)
    read_back = close_module.read_back

    async def closed_meanwhile(*args: Any, **more: Any) -> None:
        with env.state.begin() as connection:
            ended = sa.update(orders).where(orders.c.mp_order_number == "M-1")
            connection.execute(ended.values(phase="closed", accepted_state="SHIPPED"))
        await read_back(*args, **more)

    monkeypatch.setattr(close_module, "read_back", closed_meanwhile)
    with held_elsewhere(env.state, f"close/{SELLER}/M-1"):
        assert finish(env.close())["orders"] == 1


def test_an_order_whose_process_died_after_its_put_is_not_closed_again(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(env, "M-1")
    use_quick_leases(env.state)
    leave_lease(env.state, f"close/{SELLER}/M-1")
    watch = env.state.leases.watch

    async def watch_while_it_sends(*args: Any) -> None:
        with env.sandbox.world.lock:
            env.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
        await watch(*args)

    monkeypatch.setattr(env.state.leases, "watch", watch_while_it_sends)
    assert env.close().undone == []
    assert (env.order("M-1").phase, len(env.asked("PUT"))) == ("closed", 1)


def test_an_order_leased_elsewhere_does_not_end_the_work_for_its_seller(env: Env) -> None:
    numbers = [f"M-{at}" for at in range(1, 6)]
    env.placed(*numbers)
    for number in numbers:
        env.fulfill(number, shipment(2, BAD_NUMBER))
    env.see(*numbers)
    use_quick_leases(env.state)
    leased = [f"report/{SELLER}/{number}" for number in numbers[:4]]
    with held_elsewhere(env.state, *leased), pytest.raises(TransientError):
        finish(env.validate())
    assert [env.findings(number)[0].state for number in numbers] == ["to_report"] * 4 + ["reported"]


def test_an_order_leased_by_another_process_is_retried_after_all_others() -> None:
    asked: list[str] = []
    result = StepResult("close")

    async def work(number: str) -> None:
        asked.append(number)
        if asked == ["M-1"]:
            raise BusyError("Another process is closing it.", mp_order_number=number)

    async def watch(numbers: Sequence[str]) -> None:
        asked.append(f"watched {numbers}")

    busy = asyncio.run(run_per_order(SELLER, ["M-1", "M-2"], result, work, watch=watch))
    assert (asked, result.undone, busy) == (["M-1", "M-2", "watched ['M-1']", "M-1"], [], {})


def test_what_ends_the_work_of_a_seller_lets_the_orders_under_way_end_first() -> None:
    begun: list[str] = []
    ended: list[str] = []

    async def work(number: str) -> None:
        begun.append(number)
        await asyncio.sleep(0.01 * (int(number) + 1))
        if number == "1":
            raise ThrottledError("FeedAMP answered 429.")
        ended.append(number)

    async def all_orders() -> None:
        with pytest.raises(ThrottledError):
            await run_per_order(SELLER, list("012345678"), StepResult("close"), work, watch=watch, at_once=4)
        assert ended == list("0234")

    async def watch(numbers: Sequence[str]) -> None:
        raise AssertionError("none is busy")

    asyncio.run(all_orders())
    assert begun == list("01234")


@pytest.mark.parametrize("first", ["0", "1", "2"])
def test_a_pause_hides_nothing_that_ended_the_work_beside_it(first: str) -> None:
    result = StepResult("close")
    ends = {
        "0": PausedError("The seller is paused."),
        "1": ThrottledError("FeedAMP answered 429."),
        "2": KeyError("sku"),
    }

    async def work(number: str) -> None:
        await asyncio.sleep(0 if number == first else 0.01)
        raise ends[number]

    async def watch(numbers: Sequence[str]) -> None:
        raise AssertionError("none is busy")

    with pytest.raises(KeyError):
        asyncio.run(run_per_order(SELLER, list(ends), result, work, watch=watch, at_once=3))
    assert result.undone == [f"{SELLER}: FeedAMP answered 429."]


def test_what_no_retry_can_help_is_raised_before_all_else() -> None:
    result = StepResult("close")
    ends = [
        PausedError("The seller is paused."),
        ThrottledError("FeedAMP answered 429."),
        KeyError("sku"),
        AuthorizationError("FeedAMP refuses the grant."),
        ConfigurationError("No such key."),
    ]

    async def work(number: str) -> None:
        await asyncio.sleep(0)
        raise ends[int(number)]

    async def watch(numbers: Sequence[str]) -> None:
        raise AssertionError("none is busy")

    with pytest.raises(ConfigurationError):
        asyncio.run(run_per_order(SELLER, list("01234"), result, work, watch=watch, at_once=5))
    assert len(result.undone) == 2
    assert result.notes == [f"{SELLER}: FeedAMP refuses the grant."]


def test_three_failed_orders_end_the_work_for_a_seller() -> None:
    begun: list[str] = []
    result = StepResult("close")

    async def work(number: str) -> None:
        begun.append(number)
        raise TransientError(f"Order {number} failed.")

    async def watch(numbers: Sequence[str]) -> None:
        raise AssertionError("none is busy")

    with pytest.raises(TransientError, match="Order 2 failed"):
        asyncio.run(run_per_order(SELLER, list("012345"), result, work, watch=watch))
    assert begun == list("012")


def test_a_put_that_was_decided_on_earlier_does_not_take_back_a_cancellation(env: Env) -> None:
    """One process has begun to release the order when the marketplace cancels it, and another places that."""
    env.placed("M-1", marketplace_state="PENDING")
    env.deliver("M-1")
    use_quick_leases(env.state)
    shards = plan_place(env.resources, env.run("place_orders"), [])

    async def both() -> None:
        waits, goes_on = asyncio.Event(), asyncio.Event()

        async def held_up(seconds: float) -> None:
            waits.set()
            await goes_on.wait()

        slow = asyncio.create_task(
            place(replace(env.resources, sleep=held_up), env.run("place_orders"), 0, shards[0]["sellers"])
        )
        await waits.wait()
        env.deliver("M-1", marketplace_state="CANCELLED")
        await place(env.resources, env.run("place_orders"), 0, shards[0]["sellers"])
        goes_on.set()
        await slow

    env.sandbox.fault("error_503", method="PUT")
    asyncio.run(both())
    env.clock.skip(minutes=10)
    env.place()
    assert env.shown("M-1")["marketplace_state"] == "CANCELLED"
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "CANCELLED")
    assert env.sandbox.broken_rules == []


def cancel_while_the_seller_ships(env: Env) -> None:
    env.placed("M-1")
    cancelled = env.body("M-1", marketplace_state="CANCELLED")
    env.drop("cancel.jsonl", cancelled)
    env.intake()
    env.fulfill("M-1", shipment(1))
    env.see("M-1")
    env.place()


def test_a_cancellation_that_waits_is_held_when_the_seller_ships_meanwhile(env: Env) -> None:
    cancel_while_the_seller_ships(env)
    assert (env.order("M-1").phase, env.order("M-1").conflicting_state) == ("held", "CANCELLED")
    assert env.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"


def test_a_conflict_that_the_seller_withdraws_lets_the_cancellation_out(env: Env) -> None:
    cancel_while_the_seller_ships(env)
    assert env.order("M-1").phase == "held"
    env.fulfill("M-1")
    env.see("M-1")
    env.validate()
    env.place()
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "CANCELLED")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_one_order_that_always_fails_holds_up_no_other(env: Env, method: str) -> None:
    numbers = ["M-1", "M-2", "M-3"]
    env.placed(*numbers)
    for number in numbers:
        env.fulfill(number, shipment(2, BAD_NUMBER) if method == "POST" else shipment(2))
    env.read()
    env.sandbox.fault("error_500", method=method, path="/orders/M-1", times=None)
    env.process()
    if method == "POST":
        assert [env.findings(n)[0].state for n in numbers] == ["to_report", "reported", "reported"]
    else:
        assert [env.order(n).phase for n in numbers] == ["settled", "closed", "closed"]


def test_an_order_whose_own_read_fails_costs_only_itself(env: Env) -> None:
    env.placed("M-1", "M-2", "M-3")
    env.sandbox.fault("misshapen_order", path="/orders$", times=1, seller_id=SELLER)
    env.sandbox.fault("error_500", path="/orders/M-", times=None)
    result = env.extract()
    env.load()
    [(seen,)] = env.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL")
    assert seen == 2
    assert not result.complete
    assert env.watermark() is None


def test_poison_orders_keep_their_own_pause(env: Env) -> None:
    env.drop("orders.jsonl", *(env.body(f"M-{n}") for n in range(1, 5)))
    env.sandbox.fault("error_500", path="/orders/M-1", times=None)
    env.sandbox.fault("error_500", path="/orders/M-2", times=None)
    env.intake()
    for _ in range(4):
        env.place()
        env.clock.skip(minutes=10)
    assert [env.order(f"M-{n}").phase for n in (3, 4)] == ["settled", "settled"]


def test_a_seller_whose_token_fails_in_two_runs_must_authorize_again(env: Env) -> None:
    def status() -> str:
        with env.state.read() as connection:
            grant = grants.read(connection, env.cipher, SELLER)
        assert grant is not None
        return grant.status

    env.sandbox.fault("refuse_token", seller_id=SELLER, path="/orders", times=None)
    env.extract()
    assert status() == "active"
    env.clock.skip(hours=1)
    env.extract()
    assert status() == "needs_authorization"


def test_half_a_character_in_one_order_costs_no_other() -> None:
    from feedamp.codec import decode_json

    page = decode_json(b'{"orders":[{"mp_order_number":"A","x":"\\ud83d"},{"mp_order_number":"B"}]}')
    assert [order["mp_order_number"] for order in page["orders"]] == ["A", "B"]
    json.dumps(page).encode("utf-8")
