"""While the emergency stop is on, nothing but reads and token calls leaves; runs stay green, and what is due waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from env import BAD_NUMBER, GOOD_NUMBER, SELLER, Env, shipment

from feedamp.api.client import Request
from feedamp.errors import ReadOnlyError
from feedamp.state import overview, read_only
from feedamp.state.read_only import LOOKED_AT_EVERY_S, ReadOnlyGate
from feedamp.steps.per_order import ORDERS_AT_ONCE
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult

NUMBERS = [f"M-{n}" for n in range(4 * ORDERS_AT_ONCE)]
FEW = NUMBERS[:3]


def switch(env: Env, *, on: bool) -> None:
    with env.state.begin() as connection:
        read_only.switch(connection, on=on, now=env.state.now())


@contextmanager
def stopped(env: Env, by: str = "switch") -> Iterator[None]:
    """Read-only for the steps inside; each has resources of its own, as each task has."""
    env.set_rules(read_only=by == "option")
    if by == "switch":
        switch(env, on=True)
    yield
    switch(env, on=False)
    env.set_rules(read_only=False)


def changes(env: Env) -> int:
    """Requests that have reached FeedAMP and are neither reads nor token calls of ours."""
    tokens = [asked for asked in env.asked("POST", "/access_token") if asked.status == 200]
    return sum(len(env.asked(method, "")) for method in ("PUT", "POST", "PATCH", "DELETE")) - len(tokens)


def green(result: StepResult) -> StepResult:
    assert finish(result)["read_only"] is True
    return result


@pytest.mark.parametrize("by", ["switch", "option"])
def test_orders_are_read_but_not_sent_and_stay_due(env: Env, by: str) -> None:
    env.placed(*FEW)
    env.drop("b.jsonl", *(env.body(number) for number in NUMBERS[3:]))
    before = changes(env)
    with stopped(env, by):
        finish(env.intake())
        waiting = {number: env.order(number) for number in NUMBERS[3:]}
        green(env.place())
        finish(env.extract())
        env.load()
        assert (changes(env), {number: env.order(number) for number in waiting}) == (before, waiting)
        assert len(env.rows("SELECT mp_order_number FROM orders")) == 3
    finish(env.place())
    assert {env.order(number).phase for number in NUMBERS} == {"settled"}


def test_an_order_that_waits_for_its_next_try_turns_no_run_red(env: Env) -> None:
    env.deliver("M-1")
    for _ in range(9):
        env.sandbox.fault("reset_before", method="PUT", path="/orders/M-1", seller_id=SELLER)
    tried = env.place()
    assert tried.undone
    attempts = env.order("M-1").attempts
    with stopped(env):
        green(env.place())
        env.clock.skip(days=1)
        green(env.place())
    assert env.order("M-1").attempts == attempts


def test_what_is_due_for_reporting_and_closing_waits(env: Env) -> None:
    env.placed("M-1", "M-2")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.fulfill("M-2", shipment(2))
    env.see("M-1", "M-2")
    before = changes(env)
    with stopped(env):
        green(env.validate())
        assert [(f.state, f.intent_at) for f in env.findings("M-1")] == [("to_report", None)]
        green(env.close())
        assert changes(env) == before
    finish(env.validate())
    finish(env.close())
    assert [f.state for f in env.findings("M-1")] == ["reported"]
    assert env.order("M-2").phase == "closed"


def test_a_repair_compares_everything_and_sends_nothing(env: Env) -> None:
    env.placed(*FEW)
    env.read()
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        for number in FEW:
            orders._sorted[SELLER].remove(orders._by_number[SELLER].pop(number))
    before = changes(env)
    with stopped(env):
        assert green(env.reconcile(repair=True)).orders == len(FEW)
        assert changes(env) == before
    assert {env.order(number).phase for number in FEW} == {"to_place"}
    finish(env.place())
    assert sorted(env.sandbox.orders(SELLER)) == FEW


@pytest.mark.parametrize("step", ["place", "close", "validate"])
def test_a_switch_in_mid_run_holds_back_what_was_not_sent(
    env: Env, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_only, "LOOKED_AT_EVERY_S", 0.0)
    path, method = ("/orders/M-", "PUT") if step != "validate" else ("/errors", "POST")
    env.drop("a.jsonl", *(env.body(number) for number in NUMBERS))
    env.intake()
    if step != "place":
        env.place()
        for order in NUMBERS:
            env.fulfill(order, shipment(2, BAD_NUMBER if step == "validate" else GOOD_NUMBER))
        env.see(*NUMBERS)
    if step == "close":
        env.validate()
    before = changes(env)
    resources = env.resources

    async def sleep(seconds: float) -> None:
        switch(env, on=True)
        await env.clock.sleep(seconds)

    env.sandbox.fault("throttle", method=method, path=path, seller_id=SELLER)
    env.resources = replace(resources, sleep=sleep)
    green({"place": env.place, "close": env.close, "validate": env.validate}[step]())
    assert changes(env) - before <= ORDERS_AT_ONCE  # those under way when the switch was turned
    assert not any(finding.intent_at for number in NUMBERS for finding in env.findings(number))
    env.resources = resources
    switch(env, on=False)
    env.clock.skip(hours=2)
    finish({"place": env.place, "close": env.close, "validate": env.validate}[step]())
    with env.state.read() as connection:
        assert overview.count_by_phase(connection) == {
            "closed" if step == "close" else "settled": len(NUMBERS)
        }


@pytest.mark.parametrize("method", ["PUT", "post", "PATCH", "DELETE"])
async def test_no_client_of_a_user_gets_a_change_out(env: Env, method: str) -> None:
    switch(env, on=True)
    async with env.resources.clients(env.run("hook")) as clients:
        client = await clients.for_seller(SELLER)
        await client.exchange(Request("GET", "/orders?page_size=10"))
        with pytest.raises(ReadOnlyError, match="feedamp read-only off"):
            await client.exchange(Request(method, "/orders/M-1/acknowledge", b"{}"))
        with pytest.raises(ReadOnlyError):
            await client.exchange(Request(method, "/access_token", b"{}"))
    assert changes(env) == 0


def test_the_gate_looks_once_a_second_while_it_lets_through(env: Env) -> None:
    moment = 10.0
    gate = ReadOnlyGate(env.state, by_option=False, monotonic=lambda: moment)
    gate.check()
    switch(env, on=True)
    gate.check()
    moment += LOOKED_AT_EVERY_S
    with pytest.raises(ReadOnlyError):
        gate.check()
    switch(env, on=False)
    gate.check()
