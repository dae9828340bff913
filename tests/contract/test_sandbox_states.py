"""The life of an order in the sandbox: its states, how it closes, and what is returned of it."""

from __future__ import annotations

import pytest
from probe import Probe, rules

from feedamp_sandbox import SandboxOptions, running

SELLER = "seller-001"
SHIPMENT = {"carrier": "UPS", "tracking_number": "1Z5R89390357567127", "shipped_date": "2026-03-04"}


def shipped(quantity, *, cancelled=0, number="M-1-1"):
    cancellations = [{"quantity": cancelled, "reason": "out_of_stock"}] if cancelled else []
    shipments = [{"quantity": quantity, **SHIPMENT}] if quantity else []
    return [{"mp_line_number": number, "shipments": shipments, "cancellations": cancellations}]


@pytest.mark.parametrize(
    ("steps", "status", "rule"),
    [
        pytest.param(["PENDING", "AWAITING_SHIPMENT"], 200, None, id="released"),
        pytest.param(["PENDING", "CANCELLED"], 200, None, id="cancelled before release"),
        pytest.param(["AWAITING_SHIPMENT", "CANCELLED"], 200, None, id="cancelled before anything shipped"),
        pytest.param(["AWAITING_SHIPMENT", "AWAITING_SHIPMENT"], 200, None, id="the same again"),
        pytest.param(["PENDING", "SHIPPED"], 400, "illegal_transition", id="shipped before release"),
        pytest.param(["AWAITING_SHIPMENT", "PENDING"], 400, "backward_transition", id="taken back"),
        pytest.param(
            ["AWAITING_SHIPMENT", "CANCELLED", "AWAITING_SHIPMENT"],
            400,
            "backward_transition",
            id="opened again",
        ),
        pytest.param(
            ["AWAITING_SHIPMENT", "CANCELLED", "SHIPPED"], 400, "closed_twice", id="closed in two ways"
        ),
        pytest.param(
            ["AWAITING_SHIPMENT", "CANCELLED", "CANCELLED"], 200, None, id="closed twice the same way"
        ),
    ],
)
def test_the_state_moves_forward_only(sandbox, probe, steps, status, rule):
    answers = [probe.place("M-1", marketplace_state=state).status for state in steps]
    assert answers == [200] * (len(steps) - 1) + [status]
    assert rules(sandbox) == ({rule: 1} if rule else {})


def test_nothing_but_the_state_can_be_updated(sandbox, probe):
    probe.place("M-1", marketplace_state="PENDING")
    answer = probe.place("M-1", delivery_notes="ring twice")
    assert (answer.status, rules(sandbox)) == (400, {"body_changed": 1})
    assert sandbox.orders(SELLER)["M-1"]["marketplace_state"] == "PENDING"


@pytest.mark.parametrize(
    ("fulfillments", "state", "broken"),
    [
        pytest.param(shipped(2), "SHIPPED", [], id="all shipped"),
        pytest.param(shipped(1, cancelled=1), "SHIPPED", [], id="part shipped, the rest cancelled"),
        pytest.param(shipped(0, cancelled=2), "CANCELLED", [], id="all cancelled"),
        pytest.param(shipped(0, cancelled=1), "CANCELLED", [], id="the customer cancels what is open"),
        pytest.param(shipped(1), "SHIPPED", ["closed_too_early"], id="one unit still open"),
        pytest.param([], "SHIPPED", ["closed_too_early"], id="nothing shipped yet"),
        pytest.param(shipped(3), "SHIPPED", ["closed_too_early"], id="more shipped than ordered"),
        pytest.param(
            [*shipped(2), *shipped(1, number="M-1-9")],
            "SHIPPED",
            ["closed_too_early"],
            id="a line that was not ordered",
        ),
        pytest.param(
            shipped(0, cancelled=2), "SHIPPED", ["closed_as_the_wrong_state"], id="shipped, but all cancelled"
        ),
        pytest.param(shipped(2), "CANCELLED", ["closed_as_the_wrong_state"], id="cancelled, but all shipped"),
    ],
)
def test_an_order_closes_as_what_its_units_say(sandbox, probe, fulfillments, state, broken):
    probe.place("M-1")
    sandbox.set_fulfillments(SELLER, "M-1", fulfillments)
    assert probe.place("M-1", marketplace_state=state).status == 200
    assert list(rules(sandbox)) == broken
    assert sandbox.orders(SELLER)["M-1"]["status"] == "COMPLETE"


def test_an_order_the_marketplace_ships_itself_may_be_set_shipped(sandbox, probe):
    probe.place("M-1")
    sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    probe.place("M-1", marketplace_state="SHIPPED")
    assert sandbox.broken_rules == []


@pytest.mark.parametrize(
    ("fulfillments", "status", "snapshot_status", "pending"),
    [
        pytest.param(None, "ORDERED", "PENDING", 2, id="not seen by the seller"),
        pytest.param([], "IN_PROGRESS", "PENDING", 2, id="acknowledged"),
        pytest.param(shipped(1), "IN_PROGRESS", "PARTIALLY_FULFILLED", 1, id="part shipped"),
        pytest.param(
            shipped(1, cancelled=1), "FULFILLED", "COMPLETE", 0, id="part shipped, the rest cancelled"
        ),
        pytest.param(shipped(0, cancelled=2), "CANCELLED", "COMPLETE", 0, id="all cancelled"),
        pytest.param(shipped(5), "FULFILLED", "COMPLETE", 0, id="more shipped than ordered"),
    ],
)
def test_status_is_computed_from_the_units(sandbox, probe, fulfillments, status, snapshot_status, pending):
    probe.place("M-1")
    if fulfillments is not None:
        sandbox.set_fulfillments(SELLER, "M-1", fulfillments)
    assert probe.call("GET", "/orders/M-1").json["status"] == status
    snapshot = probe.call("GET", "/orders/M-1/fulfillments").json
    assert snapshot["status"] == snapshot_status
    assert [entry["pending"] for entry in snapshot["fulfillments"]] == [{"quantity": pending}]


@pytest.mark.parametrize(
    ("options", "check"),
    [
        pytest.param({"put_status": 201}, lambda placed, _: placed.status == 201, id="201 for a PUT"),
        pytest.param(
            {"put_status": 204},
            lambda placed, _: (placed.status, placed.body) == (204, b""),
            id="204 for a PUT",
        ),
        pytest.param({"show_errors": False}, lambda _, order: "errors" not in order, id="errors not shown"),
        pytest.param(
            {"fulfillments_in_list": "absent"},
            lambda _, order: "fulfillments" not in order,
            id="no fulfillments",
        ),
        pytest.param(
            {"fulfillments_in_list": "flat"},
            lambda _, order: (
                order["fulfillments"] == [{"mp_line_number": "M-1-1", "quantity": 2, **SHIPMENT}]
            ),
            id="flat fulfillments",
        ),
        pytest.param(
            {"sparse_fulfillments": True},
            lambda _, order: set(order["fulfillments"][0]) == {"mp_line_number", "shipments", "status"},
            id="no empty lists",
        ),
    ],
)
def test_the_unknowns_of_the_contract_are_switches(options, check):
    with running(SandboxOptions(sellers=1, requests_per_second=1000, burst=1000, **options)) as sandbox:
        probe = Probe(sandbox)
        placed = probe.place("M-1")
        sandbox.set_fulfillments(SELLER, "M-1", shipped(2))
        assert check(placed, probe.call("GET", "/orders").json["orders"][0])
        probe.close()
