"""CANCELLED and shipped orders: the order is read alone before CANCELLED is sent, and units against a closing are listed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa
from env import SELLER, Env, shipment
from order_samples import good_order
from other_leases import ELSEWHERE, use_quick_leases

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import UnreadableOrder
from feedamp.errors import NotFoundError
from feedamp.models import LineFulfillment, Shipment, Snapshot
from feedamp.rules import cancelling
from feedamp.rules.order import CANCELLED_TOO_LATE
from feedamp.state import action_required, leases, ledger, open_orders, outbox
from feedamp.state.overview import CountedItems
from feedamp.state.schema import orders
from feedamp.steps.place_orders import seller_batch
from feedamp.steps.place_orders.place import place
from feedamp.steps.place_orders.replay import replay
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult

OPEN = "AWAITING_SHIPMENT"
WAYS = [
    pytest.param("inbox", id="it came into the inbox"),
    pytest.param("replay", id="it is replayed after a refusal"),
    pytest.param("conflict", id="a conflict has ended"),
    pytest.param("repair", id="FeedAMP forgot it and a repair sends it again"),
]


def held_orders(env: Env) -> CountedItems:
    with env.state.read() as connection:
        return action_required.held_orders(connection, limit=20)


def cancelled_but_shipped(env: Env) -> list[str]:
    with env.state.read() as connection:
        return [item["reason"] for item in action_required.cancelled_but_shipped(connection, limit=20).items]


def shipped_but_withdrawn(env: Env) -> list[str]:
    with env.state.read() as connection:
        return [item["reason"] for item in action_required.shipped_but_withdrawn(connection, limit=20).items]


def to_be_cancelled(env: Env, way: str) -> None:
    """M-1 is about to be sent as CANCELLED, and nothing extracted so far contradicts it."""
    env.placed("M-1")
    if way == "conflict":
        env.fulfill("M-1", shipment(1))
        env.see("M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    if way == "replay":
        env.sandbox.fault("echo_400", method="PUT")
        env.place()
        assert env.order("M-1").phase == "held"
        assert replay(env.resources).to_place == 1
    elif way == "conflict":
        env.fulfill("M-1")
        env.see("M-1")
        env.validate()
    elif way == "repair":
        env.place()
        env.load()
        with env.sandbox.world.lock:
            env.sandbox._order(SELLER, "M-1").marketplace_state = OPEN
        return
    assert env.order("M-1").phase == "to_place"


def send(env: Env, way: str) -> None:
    if way == "repair":
        env.reconcile(repair=True)
    else:
        env.place()


@pytest.mark.parametrize("way", WAYS)
def test_a_cancellation_is_not_sent_once_the_seller_has_shipped(env: Env, way: str) -> None:
    to_be_cancelled(env, way)
    env.fulfill("M-1", shipment(1))  # no extraction has seen it
    send(env, way)
    order = env.order("M-1")
    assert (order.phase, order.conflicting_state) == ("held", "CANCELLED")
    assert env.shown("M-1")["marketplace_state"] == OPEN
    assert held_orders(env).count == 1
    assert env.sandbox.broken_rules == []


@pytest.mark.parametrize("way", WAYS)
def test_a_cancellation_is_sent_when_nothing_has_been_shipped(env: Env, way: str) -> None:
    to_be_cancelled(env, way)
    send(env, way)
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "CANCELLED")
    assert env.shown("M-1")["marketplace_state"] == "CANCELLED"


def test_what_was_read_before_a_cancellation_is_kept(env: Env) -> None:
    to_be_cancelled(env, "inbox")
    env.fulfill("M-1", shipment(1))
    env.place()
    held = env.held("M-1")
    assert held is not None
    assert [s.quantity for line in held.snapshot.fulfillments for s in line.shipments] == [1]
    env.load()
    assert env.rows("SELECT units_shipped, marketplace_state FROM orders") == [(1, OPEN)]


def test_one_request_more_is_made_for_a_cancellation_and_none_for_other_puts(env: Env) -> None:
    def alone() -> int:
        return len(env.asked("GET", "/orders/M-1"))

    env.placed("M-1", marketplace_state="PENDING")
    env.placed("M-1")
    assert alone() == 0
    env.placed("M-1", marketplace_state="CANCELLED")
    assert alone() == 1


@pytest.mark.parametrize("kind", ["error_500", "throttle_bare", "reset_before", "cut_body"])
def test_a_cancellation_waits_until_the_order_could_be_read(env: Env, kind: Any) -> None:
    to_be_cancelled(env, "inbox")
    env.sandbox.fault(kind, method="GET", path="/orders/M-1", times=None)
    assert env.place().undone
    order = env.order("M-1")
    assert (order.phase, len(env.asked("PUT"))) == ("to_place", 1)
    assert order.reason is not None
    assert ("can be read" in order.reason) == (
        kind != "throttle_bare"
    )  # that is said of all of the seller's orders
    env.sandbox.clear_faults()
    env.clock.skip(hours=1)
    env.place()
    assert env.order("M-1").phase == "closed"


def test_a_cancellation_of_an_unreadable_order_is_held_and_goes_out_later(env: Env) -> None:
    to_be_cancelled(env, "inbox")
    env.see("M-1")
    env.validate()  # so that the next snapshot shows nothing new
    env.sandbox.fault("misshapen_order", method="GET", path="/orders/M-1", times=None)
    result = env.place()
    assert finish(result)["orders_unread"] == 1
    assert "M-1 cannot be read" in result.notes[0]
    assert "cannot be read" in held_orders(env).items[0]["reason"]
    assert len(env.asked("PUT")) == 1
    env.sandbox.clear_faults()
    env.clock.skip(hours=1)
    env.read()
    env.process()
    env.place()
    assert env.order("M-1").phase == "closed"


def test_an_order_closed_elsewhere_meanwhile_is_not_cancelled(env: Env) -> None:
    to_be_cancelled(env, "inbox")
    env.fulfill("M-1", shipment(2))
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    env.place()
    env.process()
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "SHIPPED")
    assert env.shown("M-1")["marketplace_state"] == "SHIPPED"


def during_the_put(env: Env, what: Callable[[], object], step: Any) -> StepResult:
    """The step for the seller; `what` happens after the read and before the PUT leaves."""
    pending = [what]
    put_order = FeedAmpClient.put_order

    async def held_up(self: FeedAmpClient, *args: Any, **more: Any) -> Any:
        while pending:
            pending.pop()()
        return await put_order(self, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeedAmpClient, "put_order", held_up)
        return asyncio.run(step(env.resources, env.run("place_orders"), 0, [SELLER]))


def slip(env: Env) -> None:
    """The seller ships between the read and the PUT of a cancellation."""
    to_be_cancelled(env, "inbox")
    during_the_put(env, lambda: env.fulfill("M-1", shipment(1)), place)
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "CANCELLED")


def test_what_slips_in_before_a_cancellation_is_named_with_its_units(env: Env) -> None:
    slip(env)
    assert cancelled_but_shipped(env) == ["shipped: 1 of line M-1-1"]


@pytest.mark.parametrize("is_loaded", [True, False], ids=["an extraction shows it", "it is read back"])
def test_a_shipment_of_a_cancelled_order_is_said_until_it_is_withdrawn(env: Env, is_loaded: bool) -> None:
    if is_loaded:
        to_be_cancelled(env, "inbox")
        env.place()
        assert cancelled_but_shipped(env) == []
        env.fulfill("M-1", shipment(2))
        env.read()
        assert cancelled_but_shipped(env) == ["shipped: 2 of line M-1-1"]
    else:
        slip(env)
    env.fulfill("M-1")
    env.clock.skip(minutes=1)
    env.read()
    assert cancelled_but_shipped(env) == []


def test_an_older_snapshot_does_not_take_back_what_a_newer_one_shows(env: Env) -> None:
    to_be_cancelled(env, "inbox")
    env.extract()  # read before the shipment, loaded after it
    env.place()
    env.fulfill("M-1", shipment(1))
    lines = (LineFulfillment(mp_line_number="M-1-1", shipments=(Shipment(quantity=1),)),)
    newer = Snapshot(mp_order_number="M-1", marketplace_state="CANCELLED", fulfillments=lines)
    with env.state.begin() as connection:
        open_orders.keep_open(connection, SELLER, [(newer, env.state.now())], run_id=None)
    env.load()
    assert cancelled_but_shipped(env) == ["shipped: 1 of line M-1-1"]


def test_feedamps_correction_to_shipped_ends_it_with_the_next_repair(env: Env) -> None:
    slip(env)
    env.fulfill("M-1", shipment(2))
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    env.load()
    env.reconcile(repair=True)
    assert env.order("M-1").accepted_state == "SHIPPED"
    assert cancelled_but_shipped(env) == []


# Closing, when everything was cancelled


def all_cancelled(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", cancelled=2)
    env.read()
    env.validate()


def test_a_closing_as_cancelled_reads_the_order_by_itself(env: Env) -> None:
    """A list that lags shows the cancellations that the seller has since taken back."""
    all_cancelled(env)
    env.clock.skip(hours=1)
    env.fulfill("M-1", shipment(1))
    env.sandbox.fault("index_lag", times=None, seconds=30)
    env.close()
    assert env.sandbox.broken_rules == []
    assert env.shown("M-1")["marketplace_state"] == OPEN
    assert env.order("M-1").closing_state is None
    env.sandbox.clear_faults()
    env.fulfill("M-1", shipment(2))
    env.read()
    env.process()
    assert env.shown("M-1")["marketplace_state"] == "SHIPPED"
    assert env.sandbox.broken_rules == []


@pytest.mark.parametrize("state", ["CANCELLED", "SHIPPED"])
def test_a_closing_as_cancelled_that_is_held_up_after_its_read_is_read_again(env: Env, state: str) -> None:
    all_cancelled(env)
    before = len(env.asked("GET", "/orders/M-1"))

    def held_up() -> None:
        env.clock.skip(seconds=cancelling.STILL_FRESH_S + 1)
        if state == "SHIPPED":
            env.fulfill("M-1", shipment(2))

    assert during_the_put(env, held_up, close).undone == []
    assert len(env.asked("GET", "/orders/M-1")) - before == 2
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", state)
    assert env.sandbox.broken_rules == []


def test_a_closing_that_was_not_sent_is_not_ours_if_another_system_cancels(env: Env) -> None:
    all_cancelled(env)

    def held_up() -> None:
        env.clock.skip(seconds=cancelling.STILL_FRESH_S + 1)
        with env.sandbox.world.lock:
            env.sandbox._order(SELLER, "M-1").marketplace_state = "CANCELLED"

    during_the_put(env, held_up, close)
    order = env.order("M-1")
    assert (order.phase, order.closed_at, order.reason) == ("closed", None, "closed elsewhere")
    env.load()
    assert (len(env.asked("PUT")), env.rows("FROM closures")) == (1, [])


def test_a_closing_that_was_not_sent_leaves_the_intent_of_one_that_was(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_cancelled(env)
    monkeypatch.setattr(cancelling, "STILL_FRESH_S", -1.0)
    assert env.close().undone
    assert (env.order("M-1").closing_state, env.order("M-1").closing_at) == (None, None)
    monkeypatch.undo()
    env.sandbox.fault("reset_before", method="PUT", path="/orders/M-1", times=1)
    env.close()
    sent = env.order("M-1")
    assert (sent.phase, sent.closing_state) == ("settled", "CANCELLED")
    env.clock.skip(hours=1)
    monkeypatch.setattr(cancelling, "STILL_FRESH_S", -1.0)
    env.close()
    assert (env.order("M-1").closing_state, env.order("M-1").closing_at) == ("CANCELLED", sent.closing_at)


def test_a_closing_as_cancelled_waits_until_the_order_could_be_read(env: Env) -> None:
    all_cancelled(env)
    env.sandbox.fault("error_500", method="GET", path="/orders/M-1", times=None)
    assert env.close().undone
    assert (env.order("M-1").phase, len(env.asked("PUT"))) == ("settled", 1)
    env.sandbox.clear_faults()
    env.close()
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "CANCELLED")


def test_what_slips_in_before_a_closing_as_cancelled_is_named(env: Env) -> None:
    all_cancelled(env)
    during_the_put(env, lambda: env.fulfill("M-1", shipment(2)), close)
    assert env.order("M-1").accepted_state == "CANCELLED"
    assert cancelled_but_shipped(env) == ["shipped: 2 of line M-1-1"]


def test_a_read_that_outlasts_its_lease_sends_nothing(env: Env) -> None:
    to_be_cancelled(env, "inbox")

    async def sleep(seconds: float) -> None:
        with env.state.begin() as connection:
            connection.execute(leases.leases.update().values(owner=ELSEWHERE))

    env.sandbox.fault("reset_before", method="GET", path="/orders/M-1")
    resources = replace(env.resources, sleep=sleep)
    result = asyncio.run(place(resources, env.run("place_orders"), 0, [SELLER]))
    assert "Another process is placing order M-1" in result.undone[0]
    assert len(env.asked("PUT")) == 1
    use_quick_leases(env.state)
    env.place()
    assert env.order("M-1").phase == "closed"


def test_an_order_that_ended_while_it_was_read_is_left_alone(env: Env) -> None:
    to_be_cancelled(env, "inbox")

    async def sleep(seconds: float) -> None:
        with env.state.begin() as connection:
            held = env.order("M-1").cancellation_held("by another step")
            ledger.write(connection, held)
        await env.clock.sleep(seconds)

    env.sandbox.fault("reset_before", method="GET", path="/orders/M-1")
    asyncio.run(place(replace(env.resources, sleep=sleep), env.run("place_orders"), 0, [SELLER]))
    assert (env.order("M-1").reason, len(env.asked("PUT"))) == ("by another step", 1)


def test_a_cancellation_that_is_held_up_after_its_read_is_read_again_and_waits(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.placed("M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    monkeypatch.setattr(cancelling, "STILL_FRESH_S", -1.0)
    before = len(env.asked("GET", "/orders/M-1"))
    env.place()
    assert len(env.asked("GET", "/orders/M-1")) - before == cancelling.READS_BEFORE_CANCELLED
    assert env.shown("M-1")["marketplace_state"] == OPEN
    assert "before its change could be sent" in str(env.order("M-1").reason)
    monkeypatch.undo()
    env.clock.skip(hours=1)
    env.place()
    assert env.order("M-1").phase == "closed"
    assert env.shown("M-1")["marketplace_state"] == "CANCELLED"


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "beside others of one transaction"])
def test_a_state_that_arrives_during_the_put_of_another_is_sent_next(env: Env, others: int) -> None:
    numbers = ["M-1", *(f"M-{2 + other}" for other in range(others))]
    env.drop("new.jsonl", *map(env.body, numbers))
    env.intake()

    during_the_put(env, lambda: env.deliver("M-1", marketplace_state="CANCELLED"), place)

    order = env.order("M-1")
    assert (order.phase, order.accepted_state, order.desired_state) == ("to_place", OPEN, "CANCELLED")
    assert {env.order(number).phase for number in numbers[1:]} <= {"settled"}
    env.place()
    assert (env.order("M-1").phase, env.shown("M-1")["marketplace_state"]) == ("closed", "CANCELLED")


def test_an_order_that_is_erased_during_its_put_costs_no_other_its_record(env: Env) -> None:
    env.drop("new.jsonl", env.body("M-1"), env.body("M-2"))
    env.intake()

    def erased() -> None:
        with env.state.begin() as connection:
            connection.execute(sa.delete(orders).where(orders.c.mp_order_number == "M-1"))

    during_the_put(env, erased, place)

    assert env.order("M-2").phase == "settled"
    with env.state.read() as connection:
        placed = [row["mp_order_number"] for _, row in outbox.waiting_rows(connection, ["placements"])]
    assert placed == ["M-2"]


def test_a_cancellation_that_arrives_during_closing_is_recorded(env: Env) -> None:
    env.placed("M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    env.fulfill("M-1", shipment(2))
    env.read()
    env.process()
    order = env.order("M-1")
    assert (order.phase, order.accepted_state, order.conflicting_state) == ("closed", "SHIPPED", "CANCELLED")
    assert order.reason == "CANCELLED came in, but the seller had shipped: the order is closed as SHIPPED"
    env.place()
    assert env.shown("M-1")["marketplace_state"] == "SHIPPED"


def test_a_cancellation_that_is_held_during_closing_is_recorded(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.read()
    env.validate()

    def cancelled() -> None:
        env.deliver("M-1", marketplace_state="CANCELLED")
        env.place()

    def meanwhile() -> None:
        another = Thread(target=cancelled)
        another.start()
        another.join()
        assert (env.order("M-1").phase, env.order("M-1").conflicting_state) == ("held", "CANCELLED")

    during_the_put(env, meanwhile, close)
    order = env.order("M-1")
    assert (order.phase, order.accepted_state, order.conflicting_state) == ("closed", "SHIPPED", "CANCELLED")
    assert order.reason == "CANCELLED came in, but the seller had shipped: the order is closed as SHIPPED"


@pytest.mark.parametrize("answer", ["missing", "unreadable"])
def test_an_order_that_was_closed_while_it_was_read_is_not_held(env: Env, answer: str) -> None:
    to_be_cancelled(env, "inbox")

    async def closed_meanwhile(_client: Any, number: str) -> Any:
        with env.state.begin() as connection:
            ledger.write(connection, env.order("M-1").closed("SHIPPED", now=env.state.now()))
        if answer == "missing":
            raise NotFoundError("FeedAMP does not have it.", status=404)
        return UnreadableOrder(number, "status")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seller_batch, "read_alone", closed_meanwhile)
        env.place()
    order = env.order("M-1")
    assert (order.phase, order.accepted_state, order.reason) == ("closed", "SHIPPED", CANCELLED_TOO_LATE)
    assert order.missing_since is None


# CANCELLED in a row that is faulty otherwise


BAD_CODE = {"shipping_address": {**good_order()["shipping_address"], "country_code": "US"}}


@pytest.mark.parametrize("earlier", [None, "PENDING", "AWAITING_SHIPMENT"])
def test_a_cancellation_goes_out_although_its_row_has_faults(env: Env, earlier: str | None) -> None:
    if earlier is not None:
        env.placed("M-1", marketplace_state=earlier)
    bad = env.body("M-1", marketplace_state="CANCELLED", **BAD_CODE)
    for more in ([], [env.body("M-9")]):
        env.drop("cancel.jsonl", bad, *more)  # with more, it is read again
        assert env.intake().rejected == 1
        env.place()
        [rejected] = env.rejects()
        assert [reason["code"] for reason in rejected.reasons] == ["out_of_range"]
    if earlier is None:
        assert set(env.sandbox.orders(SELLER)) == {"M-9"}
    else:
        assert env.shown("M-1")["marketplace_state"] == "CANCELLED"
        assert env.shown("M-1")["shipping_address"]["country_code"] == "USA"


def test_a_cancellation_in_a_row_with_faults_is_held_once_units_are_shipped(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(1))
    env.read()
    env.drop("cancel.jsonl", env.body("M-1", marketplace_state="CANCELLED", **BAD_CODE))
    env.intake()
    assert (env.order("M-1").phase, env.order("M-1").conflicting_state) == ("held", "CANCELLED")
    with env.state.read() as connection:
        told = list(connection.scalars(sa.text("SELECT details FROM order_events WHERE kind = 'delivered'")))
    assert len(told) == 2
    assert not any("differs" in details for details in told)


@pytest.mark.parametrize("answer", ["taken", "refused"])
def test_a_row_with_faults_keeps_its_reject_until_it_comes_corrected(env: Env, answer: str) -> None:
    env.placed("M-1")
    if answer == "refused":
        env.sandbox.fault("echo_400", method="PUT")
    env.drop("cancel.jsonl", env.body("M-1", marketplace_state="CANCELLED", **BAD_CODE))
    env.intake()
    env.place()
    codes = {rejected.source: rejected.reasons[0]["code"] for rejected in env.rejects()}
    assert codes.pop("cancel.jsonl") == "out_of_range"
    assert set(codes.values()) == ({"refused_by_feedamp"} if answer == "refused" else set())
    env.deliver("M-1", marketplace_state="CANCELLED")
    assert env.rejects() == []


# Closing as SHIPPED, when the seller takes the shipment back


def all_shipped(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.read()
    env.validate()


@pytest.mark.parametrize(
    ("cancelled", "reason"),
    [
        pytest.param(2, "cancelled: 2 of line M-1-1", id="and cancelled"),
        pytest.param(0, "cancelled: none", id="and not cancelled"),
    ],
)
@pytest.mark.parametrize("is_before", [True, False], ids=["before the PUT", "after an extraction"])
def test_a_shipped_order_that_is_withdrawn_is_listed_until_it_ships_again(
    env: Env, cancelled: int, reason: str, is_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    all_shipped(env)
    if is_before:
        during_the_put(env, lambda: env.fulfill("M-1", cancelled=cancelled), close)
    else:
        env.close()
        env.read()
        assert shipped_but_withdrawn(env) == []
        env.fulfill("M-1", cancelled=cancelled)
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "SHIPPED")
    env.clock.skip(minutes=1)
    env.read()
    env.read()
    assert shipped_but_withdrawn(env) == [reason]
    assert caplog.text.count("was closed as SHIPPED, but the seller has shipped 0 units") == 1
    env.fulfill("M-1", shipment(1))
    env.clock.skip(minutes=1)
    env.read()
    assert (shipped_but_withdrawn(env), cancelled_but_shipped(env)) == ([], [])


def test_an_order_that_the_marketplace_ships_needs_no_shipped_units(env: Env) -> None:
    env.placed("M-1")
    env.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    env.read()
    env.deliver("M-1", marketplace_state="SHIPPED")
    env.place()
    env.clock.skip(minutes=1)
    env.sandbox.set_marketplace_fulfilled(SELLER, "M-1")  # touched, so that it is read
    env.read()
    assert (env.order("M-1").accepted_state, env.order("M-1").closed_units_shipped) == ("SHIPPED", 0)
    assert shipped_but_withdrawn(env) == []
