"""What simulated sellers do: it does not depend on timing, and their tracking numbers are valid."""

from __future__ import annotations

import random
import re
from collections import Counter
from datetime import UTC, date, datetime

import pytest
from order_samples import example_order

from feedamp_sandbox import (
    SandboxOptions,
    running,
    tracking,
)
from feedamp_sandbox.orders import Orders
from feedamp_sandbox.sellers import act, plan

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def orders_of(count, quantity=6, state="AWAITING_SHIPMENT"):
    """Stored orders of two lines with `quantity` units each."""
    store = Orders(["s-1"], seed=0)
    for n in range(count):
        body = example_order(f"M-{n}", marketplace_state=state)
        line = body["order_lines"][0] | {"quantity": quantity}
        body["order_lines"] = [line, line | {"mp_line_number": f"M-{n}-2"}]
        store.add("s-1", body, NOW)
    return list(store.of("s-1"))


def options(behavior=None, seed=7):
    return SandboxOptions(seed=seed, **({"behaviors": ((behavior, 1),)} if behavior else {}))


def shipments(order):
    return [shipment for entry in order.fulfillments for shipment in entry["shipments"]]


@pytest.mark.parametrize(
    ("check", "body", "digit"),
    [
        pytest.param(tracking.ups_check, "5R8939035756712", "7", id="UPS 1Z5R89390357567127"),
        pytest.param(tracking.fedex_check, "98657878885", "5", id="FedEx 986578788855"),
        pytest.param(tracking.mod10_check, "940011120255584233266", "9", id="USPS 9400111202555842332669"),
        pytest.param(tracking.s10_check, "12345678", "5", id="S10 RB123456785GB"),
        pytest.param(tracking.s10_check, "47312482", "9", id="S10 RR473124829FI"),
    ],
)
def test_check_digits_are_those_of_numbers_known_to_be_right(check, body, digit):
    assert check(body) == digit


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        pytest.param("ups", "1Z[A-Z0-9]{6}[0-9]{10}", id="UPS"),
        pytest.param("fedex", "[0-9]{12}", id="FedEx"),
        pytest.param("usps", "9[0-9]{21}", id="USPS"),
        pytest.param("dhl", "0034043433[0-9]{10}", id="DHL Paket"),
        pytest.param("post", "[A-Z]{2}[0-9]{9}(GB|BR|FR)", id="a post"),
    ],
)
def test_tracking_numbers_have_the_shape_of_their_carrier(kind, pattern):
    rng = random.Random(1)
    for _ in range(200):
        number = tracking.tracking_number(rng, kind, rng.choice(tracking.CARRIERS[kind]))
        assert re.fullmatch(pattern, number)
        wrong = tracking.with_wrong_check_digit(rng, number)
        assert (len(wrong), sum(a != b for a, b in zip(number, wrong, strict=True))) == (len(number), 1)


def test_a_mistyped_parcel_differs_from_the_right_one_and_a_right_one_does_not():
    rng = random.Random(1)
    assert all(tracking.parcel(rng, mistyped=True).mistyped for _ in range(200))
    assert not any(tracking.parcel(rng).mistyped for _ in range(200))


@pytest.mark.parametrize(
    ("behavior", "status"),
    [
        pytest.param("ship_whole", "FULFILLED", id="ships everything at once"),
        pytest.param("ship_in_parts", "FULFILLED", id="ships over several rounds"),
        pytest.param("cancel_some", "FULFILLED", id="cancels a part"),
        pytest.param("cancel_all", "CANCELLED", id="cancels everything"),
        pytest.param("mistype", "FULFILLED", id="mistypes"),
        pytest.param("never", "ORDERED", id="never does anything"),
    ],
)
def test_after_some_rounds_a_seller_has_done_what_it_wanted(behavior, status):
    for order in orders_of(20):
        for _ in range(8):
            act(options(behavior), order, NOW)
        assert order.status == status
        assert set(order.pending().values()) == {6 if behavior == "never" else 0}
        assert order.acknowledged == (behavior != "never")


def test_a_seller_who_ships_in_parts_takes_several_rounds():
    order = orders_of(1)[0]
    open_units = []
    for _ in range(8):
        act(options("ship_in_parts"), order, NOW)
        open_units.append(sum(order.pending().values()))
    assert len(set(open_units)) >= 3
    assert open_units == sorted(open_units, reverse=True)


def test_a_seller_who_cancels_a_part_ships_the_rest():
    for order in orders_of(20):
        for _ in range(8):
            act(options("cancel_some"), order, NOW)
        cancelled = sum(order.units("cancellations").values())
        assert 0 < cancelled < 12
        assert order.units_shipped == 12 - cancelled


@pytest.mark.parametrize("behavior", ["ship_in_parts", "cancel_some"])
def test_a_single_unit_is_shipped_whole(behavior):
    order = orders_of(1, quantity=1)[0]
    order.body["order_lines"] = order.body["order_lines"][:1]
    for _ in range(8):
        act(options(behavior), order, NOW)
    assert (order.units_shipped, order.units("cancellations")) == (1, {"M-0-1": 0})


def test_a_mistyped_number_is_corrected_on_the_reported_lines():
    order = orders_of(1)[0]
    for _ in range(4):
        act(options("mistype"), order, NOW)
    typed = [shipment["tracking_number"] for shipment in shipments(order)]
    carriers = [shipment["carrier"] for shipment in shipments(order)]
    order.errors = [{"code": "INVALID_TRACKING_NUMBER", "message": "x", "mp_line_number": "M-0-1"}]
    act(options("mistype"), order, NOW)
    right = plan(options("mistype"), order).moves[0].parcel
    first, second = shipments(order)
    assert (first["carrier"], first["tracking_number"]) == (right.carrier, right.tracking_number)
    assert (second["carrier"], second["tracking_number"]) == (carriers[1], typed[1])
    assert order.errors == []


def test_a_seller_who_was_right_leaves_the_error_alone():
    order = orders_of(1)[0]
    for _ in range(4):
        act(options("ship_whole"), order, NOW)
    order.errors = [{"code": "INVALID_TRACKING_NUMBER", "message": "x"}]
    before = order.fulfillments
    act(options("ship_whole"), order, NOW)
    assert (order.fulfillments, len(order.errors)) == (before, 1)


@pytest.mark.parametrize("state", ["PENDING", "SHIPPED", "CANCELLED"])
def test_a_seller_acts_on_released_orders_only(state):
    order = orders_of(1, state=state)[0]
    act(options("ship_whole"), order, NOW)
    assert (order.acknowledged, order.rounds) == (False, 0)


def test_all_behaviors_occur_and_depend_on_the_seed():
    orders = orders_of(300)
    chosen = [plan(options(), order).behavior for order in orders]
    assert set(Counter(chosen)) == {name for name, _ in options().behaviors}
    assert chosen != [plan(options(seed=8), order).behavior for order in orders]


def test_timing_changes_nothing_but_dates():
    at_once, one_by_one = orders_of(40), orders_of(40)
    for order in at_once:
        for _ in range(8):
            act(options(), order, NOW)
    for _ in range(8):
        for order in reversed(one_by_one):
            act(options(), order, NOW)
    assert [o.fulfillments for o in at_once] == [o.fulfillments for o in one_by_one]


@pytest.mark.parametrize(
    ("purchase_date", "earliest", "latest"),
    [
        pytest.param("2026-03-02T14:05:00Z", date(2026, 3, 3), date(2026, 3, 6), id="purchased long ago"),
        pytest.param("2026-07-01T11:59:00Z", date(2026, 7, 1), date(2026, 7, 1), id="purchased just now"),
    ],
)
def test_shipped_dates_lie_between_purchase_and_today(purchase_date, earliest, latest):
    for order in orders_of(20):
        order.body["purchase_date"] = purchase_date
        for _ in range(8):
            act(options("ship_in_parts"), order, NOW)
        assert all(earliest <= date.fromisoformat(s["shipped_date"]) <= latest for s in shipments(order))


def test_nothing_is_shipped_before_its_purchase():
    order = orders_of(1)[0]
    order.body["purchase_date"] = "2026-07-02T00:00:00Z"
    act(options("ship_whole"), order, NOW)
    assert not order.acknowledged


def test_sellers_act_on_all_but_what_a_test_has_set():
    with running(SandboxOptions(sellers=1, behaviors=(("ship_whole", 1),))) as sandbox:
        for number in ("M-1", "M-2"):
            sandbox.world.orders.add("seller-001", example_order(number), NOW)
        sandbox.set_fulfillments("seller-001", "M-1", [])
        sandbox.act(rounds=5)
        statuses = {number: order["status"] for number, order in sandbox.orders("seller-001").items()}
        assert statuses == {"M-1": "IN_PROGRESS", "M-2": "FULFILLED"}
