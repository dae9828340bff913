"""Fulfillments embedded in an order, whose shape is inferred, and those of the documented endpoint."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from feedamp.api.decoding import read_fulfillments, read_order
from feedamp.errors import UnreadableError
from feedamp.models import Cancellation, LineFulfillment, Shipment

SHIPMENT = {"quantity": 2, "carrier": "UPS", "tracking_number": "1Z0", "shipped_date": "2026-03-04"}
FULFILLED = {
    "mp_line_number": "1",
    "shipments": [SHIPMENT],
    "cancellations": [{"quantity": 1, "reason": "out_of_stock"}],
    "status": "PARTIALLY_FULFILLED",
    "pending": {"quantity": 1},
}


def order_of(**fields: Any) -> Any:
    return read_order({"mp_order_number": "M-1", **fields}, Counter())


def test_embedded_fulfillments_of_the_inferred_shape_are_read():
    assert order_of(fulfillments=[FULFILLED]).fulfillments == (
        LineFulfillment(
            mp_line_number="1",
            shipments=(
                Shipment(quantity=2, carrier="UPS", tracking_number="1Z0", shipped_date=date(2026, 3, 4)),
            ),
            cancellations=(Cancellation(quantity=1, reason="out_of_stock"),),
        ),
    )


@pytest.mark.parametrize("member", ["shipments", "cancellations", "status", "pending"])
def test_one_member_of_the_documented_entry_is_enough(member):
    entry = {"mp_line_number": "1", member: FULFILLED[member]}
    assert order_of(fulfillments=[entry]).fulfillments is not None


def test_no_embedded_entries_mean_that_nothing_happened_yet():
    assert order_of(fulfillments=[]).fulfillments == ()


def test_an_empty_object_means_an_empty_list_and_is_counted():
    coercions = Counter()
    assert read_order({"mp_order_number": "M-1", "fulfillments": {}}, coercions).fulfillments == ()
    assert coercions == {"empty_for_list": 1}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param({"1": []}, id="an object"),
        pytest.param(["1"], id="texts"),
        pytest.param([{**FULFILLED, "mp_line_number": [1]}], id="a line number that is no text"),
        pytest.param([{"mp_line_number": "1", "sku": "A"}], id="no member of the documented entry"),
        pytest.param([{**SHIPMENT, "mp_line_number": "1"}], id="a shipment lying flat"),
        pytest.param([{**FULFILLED, "reason": "other"}], id="a cancellation lying flat beside lists"),
        pytest.param([{**FULFILLED, "shipments": {"all": SHIPMENT}}], id="shipments as an object"),
        pytest.param([{**FULFILLED, "cancellations": ["all"]}], id="cancellations as texts"),
        pytest.param([FULFILLED, {**SHIPMENT, "mp_line_number": "1"}], id="one entry of another shape"),
    ],
)
def test_embedded_fulfillments_of_another_shape_are_not_trusted(value):
    assert order_of(fulfillments=value).fulfillments is None


def test_absent_fulfillments_are_not_trusted():
    assert order_of().fulfillments is None


def test_the_fulfillments_answer_says_who_ships():
    body = {"status": "PENDING", "is_marketplace_fulfilled": True, "fulfillments": []}
    assert read_fulfillments(body, Counter()) == ((), True, {})


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"mp_line_number": "1"}, id="lists absent"),
        pytest.param({"mp_line_number": "1", "shipments": None, "cancellations": None}, id="lists null"),
    ],
)
def test_a_missing_list_is_an_empty_one(entry):
    read, _, _ = read_fulfillments({"fulfillments": [entry]}, Counter())
    assert read == (LineFulfillment(mp_line_number="1"),)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        pytest.param([], "fulfillments answer", id="a bare list"),
        pytest.param({"fulfillments": {"all": {}}}, "fulfillments", id="an object for the list"),
        pytest.param({"fulfillments": ["1"]}, "fulfillments[0]", id="text for an entry"),
        pytest.param(
            {"fulfillments": [{"mp_line_number": "1", "cancellations": 2}]},
            "fulfillments[0].cancellations",
            id="a number for cancellations",
        ),
    ],
)
def test_a_fulfillments_answer_of_another_shape_is_an_error(body, where):
    with pytest.raises(UnreadableError) as caught:
        read_fulfillments(body, Counter())
    assert caught.value.where == where


def test_unknown_fields_of_the_fulfillments_answer_are_stored_separately():
    body = {"status": "COMPLETE", "fulfillments": [{**FULFILLED, "gift": 1}], "wave": 7}
    assert read_fulfillments(body, Counter())[2] == {"fulfillments_answer.wave": 7, "fulfillments[0].gift": 1}


def test_units_that_are_no_whole_number_are_the_sellers_slip_and_kept():
    order = order_of(fulfillments=[{**FULFILLED, "shipments": [{"quantity": Decimal("1.5")}]}])
    assert order.fulfillments[0].shipments[0].quantity is None
    assert order.extra == {"fulfillments[0].shipments[0].quantity": Decimal("1.5")}
