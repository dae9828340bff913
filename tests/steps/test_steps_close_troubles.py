"""Closing with lost answers, refusals, and orders closed elsewhere (promises 6 and 8)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from env import OTHER, SELLER, Env, shipment

from feedamp.api.client import FeedAmpClient
from feedamp.errors import TransientError
from feedamp.rules.cancelling import STILL_FRESH_S
from feedamp.rules.order import SHIPPED
from feedamp.state import State, ledger, open_orders, sellers
from feedamp.state.rate_leases import RateLeases
from feedamp.state.schema import orders
from feedamp.steps.step_end import finish
from feedamp_sandbox.faults import Kind

ANOTHER_NUMBER = "1ZXX3150YW44070023"  # UPS, check digit right
NUMBERS = [f"N-{number}" for number in range(9)]


def puts(env: Env, number: str = "M-1") -> int:
    return len(env.asked("PUT", f"/orders/{number}"))


def test_a_lost_answer_is_asked_for_again_at_once(shipped: Env) -> None:
    shipped.sandbox.fault("reset_after", method="PUT")
    shipped.close()
    assert shipped.order("M-1").phase == "closed"


def test_what_a_gateway_said_to_a_closing_is_what_the_order_waits_for(shipped: Env) -> None:
    shipped.sandbox.fault("error_403", method="PUT")
    with pytest.raises(TransientError, match="`feedamp orders list --open` shows what it said") as raised:
        finish(shipped.close())
    assert "<!DOCTYPE html>" not in str(raised.value)
    with shipped.resources.state.read() as connection:
        stored = open_orders.read(connection, SELLER, "M-1")
    assert stored is not None
    assert str(stored.waits_for).startswith("FeedAMP answered 403: <!DOCTYPE html>")
    assert (stored.closable, stored.needs_person) == (True, False)
    shipped.close()
    assert shipped.order("M-1").phase == "closed"


@pytest.mark.parametrize("by", ["close", "validate"])
def test_a_closing_whose_answers_were_all_lost_is_found_and_recorded(shipped: Env, by: str) -> None:
    shipped.sandbox.fault("reset_after", method="PUT", times=4)
    with pytest.raises(TransientError):
        finish(shipped.close())
    assert shipped.order("M-1").phase == "settled"
    before = puts(shipped)
    if by == "validate":
        shipped.see("M-1")
        shipped.validate()
    else:
        shipped.close()
    shipped.load()
    assert shipped.order("M-1").phase == "closed"
    assert puts(shipped) == before
    assert shipped.rows("SELECT marketplace_state, units_shipped FROM closures") == [("SHIPPED", 2)]


@pytest.mark.parametrize("kind", ["reset_before", "error_503", "throttle"])
def test_a_closing_that_never_arrived_is_sent_again(shipped: Env, kind: Kind) -> None:
    shipped.sandbox.fault(kind, method="PUT", times=4)
    shipped.close()
    shipped.close()
    assert shipped.shown("M-1")["marketplace_state"] == "SHIPPED"
    assert shipped.order("M-1").phase == "closed"


def test_an_order_closed_elsewhere_is_no_closure_of_ours(shipped: Env) -> None:
    with shipped.sandbox.world.lock:
        shipped.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    shipped.close()
    shipped.load()
    order = shipped.order("M-1")
    assert (order.phase, order.closed_at, order.reason) == ("closed", None, "closed elsewhere")
    assert shipped.rows("FROM closures") == []


@pytest.mark.parametrize("state", ["SHIPPED", "CANCELLED"])
@pytest.mark.parametrize("kind", ["throttle", "echo_400"])
def test_a_closing_that_feedamp_did_not_take_is_not_ours(env: Env, kind: Kind, state: str) -> None:
    env.placed("M-1")
    env.fulfill("M-1", *([shipment(2)] if state == "SHIPPED" else []), cancelled=2 * (state == "CANCELLED"))
    env.see("M-1")
    env.validate()
    env.sandbox.fault(kind, method="PUT", times=None)
    env.close()
    assert (puts(env) > 1, env.order("M-1").closing_state) == (True, None)
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").marketplace_state = state
    env.see("M-1")
    env.validate()
    assert (env.order("M-1").phase, env.order("M-1").reason) == ("closed", "closed elsewhere")


def test_a_closing_that_is_refused_after_a_lost_answer_is_ours(shipped: Env) -> None:
    shipped.sandbox.fault("reset_after", method="PUT", times=1)
    shipped.sandbox.fault("echo_400", method="PUT", times=1)
    shipped.close()
    assert (puts(shipped), shipped.order("M-1").phase) == (1 + 2, "settled")
    shipped.see("M-1")
    shipped.validate()
    assert (shipped.order("M-1").phase, shipped.order("M-1").reason) == ("closed", None)


@pytest.fixture
def once_read(shipped: Env, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Takes what happens once `close` has read the list: before it decides, or when its intent `is_stored` and nothing sent."""
    begin_free, asked = State.begin_free, len(shipped.asked("GET"))
    waiting: list[Callable[[], None]] = []

    def once() -> None:
        if waiting and len(shipped.asked("GET")) > asked:
            waiting.pop()()

    def happens(event: Callable[[], None], *, is_stored: bool = False) -> None:
        @contextmanager
        def beside(state: State, seller_ids: Collection[str]) -> Iterator[Any]:
            if not is_stored:
                once()
            with begin_free(state, seller_ids) as begun:
                yield begun
            if is_stored:
                once()

        waiting.append(event)
        monkeypatch.setattr(State, "begin_free", beside)

    yield happens
    assert not waiting


def assert_read_again(shipped: Env, happens: Callable[[Callable[[], None]], None], units: int) -> None:
    """After a wait for the state, while which so many units were shipped, the order is closed by what it shows then."""

    def wait() -> None:
        shipped.clock.skip(seconds=STILL_FRESH_S + 1)
        shipped.fulfill("M-1", shipment(units))

    happens(wait)
    assert shipped.close().undone == []
    order = shipped.order("M-1")
    assert (order.phase, order.closing_state) == (("settled", None), ("closed", "SHIPPED"))[units - 1]
    assert puts(shipped) == units


@pytest.mark.parametrize("units", [1, 2], ids=["a unit is taken back meanwhile", "nothing changes meanwhile"])
def test_an_order_that_waited_for_the_state_is_read_again(
    shipped: Env, units: int, once_read: Callable[..., None]
) -> None:
    assert_read_again(shipped, once_read, units)


@pytest.mark.parametrize("units", [1, 2], ids=["a unit is taken back meanwhile", "nothing changes meanwhile"])
def test_an_order_whose_intent_took_long_to_store_is_read_again(
    shipped: Env, units: int, once_read: Callable[..., None]
) -> None:
    assert_read_again(shipped, partial(once_read, is_stored=True), units)


@pytest.mark.parametrize(
    ("units", "cancelled", "times", "becomes", "sent"),
    [
        pytest.param(1, 0, 1, ("settled", None), 0, id="a unit is taken back meanwhile"),
        pytest.param(0, 2, 1, ("closed", "CANCELLED"), 1, id="all is cancelled meanwhile"),
        pytest.param(0, 2, 2, ("settled", None), 0, id="CANCELLED waits again"),
        pytest.param(2, 0, 1, ("closed", "SHIPPED"), 1, id="nothing changes meanwhile"),
        pytest.param(2, 0, 2, ("closed", "SHIPPED"), 1, id="SHIPPED waits again"),
    ],
)
def test_a_closing_that_waits_long_for_its_slot_is_decided_again(
    shipped: Env,
    units: int,
    cancelled: int,
    times: int,
    becomes: tuple[str, str | None],
    sent: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a low rate, a PUT waits for its turn after its order was read and its intent was stored."""
    take, read_before = RateLeases.take, len(shipped.asked("GET", "/orders/M-1"))
    waits = [1] * times

    def late(self: RateLeases, seller_id: str, **more: Any) -> float:
        order = shipped.order("M-1")
        if order.closing_at is not None and waits:
            waits.pop()
            shipped.clock.skip(seconds=STILL_FRESH_S + 1)
            shipped.fulfill("M-1", *([shipment(units)] if units else []), cancelled=cancelled)
        return take(self, seller_id, **more)

    monkeypatch.setattr(RateLeases, "take", late)
    assert bool(shipped.close().undone) == (times == 2 and not sent)
    assert not waits
    order = shipped.order("M-1")
    assert ((order.phase, order.closing_state), puts(shipped) - 1) == (becomes, sent)
    assert len(shipped.asked("GET", "/orders/M-1")) > read_before


@pytest.mark.parametrize("change", ["none", "another parcel", "a unit is taken back"])
def test_an_order_that_an_extraction_reads_meanwhile_is_decided_by_that(
    shipped: Env, change: str, once_read: Callable[..., None]
) -> None:
    @once_read
    def extract() -> None:
        shipped.clock.skip(seconds=1)
        if change != "none":
            parcels = {"another parcel": (shipment(1), shipment(1, ANOTHER_NUMBER))}
            shipped.fulfill("M-1", *parcels.get(change, (shipment(1),)))
        shipped.see("M-1")

    assert shipped.close().undone == []
    is_closed = change != "a unit is taken back"
    assert shipped.order("M-1").phase == ("closed" if is_closed else "settled")
    assert puts(shipped) == 1 + is_closed
    held = shipped.held("M-1")
    assert is_closed or (held is not None and held.validated_hash == held.snapshot_hash)
    read_alone = {"none": 0, "another parcel": 1, "a unit is taken back": 0}
    assert len(shipped.asked("GET", "/orders/M-1")) == read_alone[change]


def test_an_order_that_a_killed_run_closed_meanwhile_is_not_closed_twice(
    shipped: Env, once_read: Callable[..., None]
) -> None:
    @once_read
    def arrive() -> None:
        """The PUT of another process arrives, which is killed before it records that."""
        shipped.clock.skip(seconds=1)
        before = shipped.order("M-1")
        with shipped.resources.state.begin(of=[SELLER]) as connection:
            ledger.save(connection, before, before.closing(SHIPPED, at=shipped.clock.now()))
        with shipped.sandbox.world.lock:
            order = shipped.sandbox.world.orders.find(SELLER, "M-1")
            order.remember(shipped.clock.now())
            order.marketplace_state = "SHIPPED"
        shipped.clock.skip(seconds=1)

    assert shipped.close().undone == []
    assert puts(shipped) == 1  # of `place` alone
    order = shipped.order("M-1")
    assert (order.phase, order.closing_state) == ("closed", "SHIPPED")


def test_an_order_that_others_read_after_each_of_our_reads_is_left_undone(
    shipped: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_free, asked = State.begin_free, len(shipped.asked("GET"))
    parcels = itertools.cycle([(shipment(2),), (shipment(1), shipment(1, ANOTHER_NUMBER))])

    def beside(state: State, seller_ids: Collection[str]) -> Any:
        if len(shipped.asked("GET")) > asked:
            shipped.clock.skip(seconds=1)
            shipped.fulfill("M-1", *next(parcels))
            shipped.see("M-1")
        return begin_free(state, seller_ids)

    next(parcels)
    monkeypatch.setattr(State, "begin_free", beside)
    [left] = shipped.close().undone
    assert "read a newer snapshot of order M-1" in left
    assert (puts(shipped), shipped.order("M-1").closing_state) == (1, None)
    monkeypatch.undo()
    shipped.close()
    assert shipped.order("M-1").phase == "closed"


def test_a_cancellation_by_inbox_whose_answers_were_lost_is_our_own(env: Env) -> None:
    env.placed("M-1")
    env.sandbox.fault("reset_after", method="PUT", times=1)
    env.placed("M-1", marketplace_state="CANCELLED")
    env.see("M-1")
    env.process()
    env.clock.skip(hours=1)
    env.place()
    env.load()
    order = env.order("M-1")
    assert (order.phase, order.reason) == ("closed", None)
    assert order.closed_at is not None
    assert env.rows("SELECT marketplace_state FROM placements ORDER BY ALL") == [
        ("AWAITING_SHIPMENT",),
        ("CANCELLED",),
    ]
    assert env.sandbox.broken_rules == []


def test_a_closing_that_feedamp_refuses_requires_action_and_is_not_repeated(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").body["currency"] = "EUR"  # so FeedAMP refuses the body we know
    env.see("M-1")
    env.validate()
    assert finish(env.close())["notes"] == 1
    env.process()
    held = env.held("M-1")
    assert held is not None
    assert held.needs_person
    assert "cannot be updated" in str(held.waits_for)
    assert puts(env) == 2


@pytest.mark.parametrize("trouble", ["an outage", "a revoked grant"])
def test_one_failing_seller_does_not_delay_another(shipped: Env, trouble: str) -> None:
    shipped.placed("M-2", seller=OTHER)
    shipped.fulfill("M-2", shipment(2), seller=OTHER)
    shipped.see("M-2", seller=OTHER)
    shipped.validate()
    if trouble == "an outage":
        shipped.sandbox.fault("error_503", seller_id=SELLER, times=None)
    else:
        shipped.sandbox.revoke(SELLER)
    shipped.close()
    assert (shipped.order("M-1").phase, shipped.order("M-2", OTHER).phase) == ("settled", "closed")


@pytest.fixture
def many(env: Env) -> Env:
    """`NUMBERS` of two sellers can be closed."""
    for seller in (SELLER, OTHER):
        env.placed(*NUMBERS, seller=seller)
        for number in NUMBERS:
            env.fulfill(number, shipment(2), seller=seller)
        env.see(*NUMBERS, seller=seller)
    env.validate()
    return env


def closed(env: Env, seller: str) -> int:
    return sum(env.order(number, seller).phase == "closed" for number in NUMBERS)


def test_orders_of_all_sellers_are_closed_in_common_transactions(many: Env) -> None:
    commits: list[object] = []
    sa.event.listen(many.state.engine, "commit", commits.append)
    many.close()
    assert (closed(many, SELLER), closed(many, OTHER)) == (len(NUMBERS), len(NUMBERS))
    assert len(commits) < 2 * len(NUMBERS)  # four for each of the two orders of a number if it had its own
    many.close()
    puts = [len(many.asked("PUT", f"/orders/{number}")) for number in NUMBERS]
    assert puts == [2 * 2] * len(NUMBERS)  # placed and closed, for both sellers
    assert many.sandbox.broken_rules == []


def test_what_was_closed_is_read_back_although_its_seller_fails_then(many: Env) -> None:
    for number in NUMBERS[-3:]:
        many.sandbox.fault("error_403", method="PUT", path=f"/{number}$", seller_id=SELLER)
    many.close()
    lists = [
        request.query.get("mp_order_numbers")
        for request in many.sandbox.requests
        if request.seller_id == SELLER
    ]
    assert sorted(str(lists[-1]).split(",")) == NUMBERS[:-3]
    assert (closed(many, SELLER), closed(many, OTHER)) == (6, 9)


def test_nothing_is_read_back_of_a_seller_who_was_paused_meanwhile(
    many: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FeedAmpClient.put_order

    async def then_pause(client: FeedAmpClient, *order: Any, **how: Any) -> Any:
        sent = await put(client, *order, **how)
        with many.state.begin() as connection:
            sellers.pause(connection, SELLER, paused=True, now=many.state.now())
        return sent

    monkeypatch.setattr(FeedAmpClient, "put_order", then_pause)
    many.close()
    methods = [request.method for request in many.sandbox.requests if request.seller_id == SELLER]
    assert 0 < closed(many, SELLER) < len(NUMBERS)
    assert (methods[-1], closed(many, OTHER)) == ("PUT", len(NUMBERS))


def test_an_order_that_breaks_a_transaction_leaves_others_to_be_closed(many: Env) -> None:
    damaged = sa.and_(orders.c.seller_id == SELLER, orders.c.mp_order_number == NUMBERS[0])
    with many.state.begin() as connection:
        body = connection.execute(sa.select(orders.c.body).where(damaged)).scalar_one()
        connection.execute(sa.update(orders).where(damaged).values(body="{"))
    assert many.close().failed_sellers == {SELLER}
    assert closed(many, OTHER) == len(NUMBERS)
    with many.state.begin() as connection:
        connection.execute(sa.update(orders).where(damaged).values(body=body))
    many.close()
    assert closed(many, SELLER) == len(NUMBERS)


def test_an_order_unknown_to_feedamp_is_noted_and_the_others_close(shipped: Env) -> None:
    shipped.placed("M-2")
    shipped.fulfill("M-2", shipment(2))
    shipped.see("M-2")
    shipped.validate()
    with shipped.sandbox.world.lock:
        orders = shipped.sandbox.world.orders
        gone = orders._by_number[SELLER].pop("M-1")
        orders._sorted[SELLER].remove(gone)
    result = shipped.close()
    [note] = result.notes
    assert note == (
        f"{SELLER}: order M-1 is no longer in the seller's FeedAMP account; "
        "start feedamp_reconcile_orders for the day of its purchase"
    )
    assert shipped.order("M-2").phase == "closed"
