"""Promise 12: unknown things are kept, coercions are read as meant and counted, anything else names its field."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from feedamp.api.decoding import number_of, read_order
from feedamp.api.json_fields import Coercions
from feedamp.errors import UnreadableError
from feedamp.models import Address, Customer, ListedError, Order, OrderLine

SHIPMENT = {"quantity": 2, "carrier": "UPS", "tracking_number": "1Z0", "shipped_date": "2026-03-04"}
FULFILLED = {
    "mp_line_number": "1",
    "shipments": [SHIPMENT],
    "cancellations": [{"quantity": 1, "reason": "out_of_stock"}],
    "status": "PARTIALLY_FULFILLED",
    "pending": {"quantity": 1},
}


def order_of(coercions: Coercions | None = None, **fields: Any) -> Any:
    return read_order({"mp_order_number": "M-1", **fields}, Counter() if coercions is None else coercions)


def line_of(coercions: Coercions | None = None, **fields: Any) -> Any:
    return order_of(coercions, order_lines=[{"mp_line_number": "1", **fields}]).order_lines[0]


def shipment_of(coercions: Coercions | None = None, **fields: Any) -> Any:
    return (
        order_of(coercions, fulfillments=[{**FULFILLED, "shipments": [fields]}]).fulfillments[0].shipments[0]
    )


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        pytest.param({"gift": 1}, "gift", id="of the order"),
        pytest.param({"customer": {"gift": 1}}, "customer.gift", id="of the customer"),
        pytest.param({"shipping_address": {"gift": 1}}, "shipping_address.gift", id="of the address"),
        pytest.param(
            {"fulfillments": [{**FULFILLED, "gift": 1}]}, "fulfillments[0].gift", id="of a fulfillment"
        ),
        pytest.param(
            {"fulfillments": [{**FULFILLED, "pending": {"quantity": 1, "gift": 1}}]},
            "fulfillments[0].pending.gift",
            id="of pending units",
        ),
        pytest.param(
            {"fulfillments": [FULFILLED, {**FULFILLED, "shipments": [{**SHIPMENT, "gift": 1}]}]},
            "fulfillments[1].shipments[0].gift",
            id="of a shipment",
        ),
        pytest.param(
            {"fulfillments": [{**FULFILLED, "cancellations": [{"quantity": 1, "gift": 1}]}]},
            "fulfillments[0].cancellations[0].gift",
            id="of a cancellation",
        ),
        pytest.param(
            {"errors": [{"code": "C", "message": "m", "gift": 1}]}, "errors[0].gift", id="of a listed error"
        ),
    ],
)
def test_an_unknown_field_is_kept_under_its_path(fields, where):
    assert order_of(**fields).extra == {where: 1}


def test_an_unknown_field_of_a_line_is_kept_on_the_line():
    assert line_of(taxes=[{"amount": Decimal("1.10")}]).extra == {"taxes": [{"amount": Decimal("1.10")}]}


@pytest.mark.parametrize("field", ["status", "marketplace_state", "currency", "sales_channel"])
def test_an_unknown_enum_value_stays_as_it_is(field):
    assert getattr(order_of(**{field: "AWAITING_PICKUP"}), field) == "AWAITING_PICKUP"


@pytest.mark.parametrize(
    ("read", "slip"),
    [
        pytest.param(
            lambda s: line_of(s, quantity="4").quantity == 4, "number_as_text", id="a quantity as text"
        ),
        pytest.param(
            lambda s: line_of(s, unit_price=" 25.50 ").unit_price == Decimal("25.50"),
            "number_as_text",
            id="a price as text",
        ),
        pytest.param(
            lambda s: shipment_of(s, quantity="2.0").quantity == 2, "number_as_text", id="units as text"
        ),
        pytest.param(
            lambda s: (
                shipment_of(s, shipped_date="2026-03-04T23:30:00-05:00").shipped_date == date(2026, 3, 4)
            ),
            "date_as_date_time",
            id="a date as a date-time keeps the day it names",
        ),
        pytest.param(
            lambda s: (
                order_of(s, purchase_date="2026-03-02T14:05:00").purchase_date
                == datetime(2026, 3, 2, 14, 5, tzinfo=UTC)
            ),
            "time_without_zone",
            id="a time without zone is UTC",
        ),
    ],
)
def test_a_value_of_another_type_is_coerced_and_counted(read, slip):
    coercions: Coercions = Counter()
    assert read(coercions)
    assert coercions == {slip: 1}


LINES = [{"mp_line_number": "1"}]


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        pytest.param({"customer": []}, "customer", Customer(), id="a list for an empty customer"),
        pytest.param({"customer": False}, "customer", Customer(), id="false for no customer"),
        pytest.param(
            {"customer": [{"full_name": "R"}]},
            "customer",
            Customer(full_name="R"),
            id="a list of one customer",
        ),
        pytest.param({"shipping_address": ""}, "shipping_address", Address(), id="no text for no address"),
        pytest.param({"errors": {}}, "errors", (), id="an object for no errors"),
        pytest.param(
            {"errors": {"code": "C", "message": "m"}},
            "errors",
            (ListedError(code="C", message="m"),),
            id="an object for one error",
        ),
        pytest.param(
            {"errors": ["m", {"code": "C", "message": "n"}]},
            "errors",
            (ListedError(code="", message="m"), ListedError(code="C", message="n")),
            id="a text for an error",
        ),
        pytest.param(
            {"order_lines": {"0": LINES[0]}},
            "order_lines",
            (OrderLine(mp_line_number="1"),),
            id="a list as an object",
        ),
        pytest.param(
            {"order_lines": LINES[0]},
            "order_lines",
            (OrderLine(mp_line_number="1"),),
            id="one line without its list",
        ),
        pytest.param({"acknowledged": 1}, "acknowledged", True, id="1 for true"),
        pytest.param({"acknowledged": Decimal("0.0")}, "acknowledged", False, id="0.0 for false"),
        pytest.param({"acknowledged": "True "}, "acknowledged", True, id="a word for true"),
        pytest.param(
            {"is_marketplace_fulfilled": "no"}, "is_marketplace_fulfilled", False, id="a word for false"
        ),
        pytest.param(
            {"is_marketplace_fulfilled": ""}, "is_marketplace_fulfilled", None, id="no text for no flag"
        ),
        pytest.param(
            {"mp_order_number": 1001}, "mp_order_number", "1001", id="a number for the order number"
        ),
        pytest.param({"mp_order_number": Decimal("1001.0")}, "mp_order_number", "1001", id="a float for it"),
        pytest.param(
            {"mp_order_number": 10**30}, "mp_order_number", "1" + "0" * 30, id="a long number for it"
        ),
        pytest.param({"delivery_notes": Decimal("2.50")}, "delivery_notes", "2.50", id="a fraction for text"),
        pytest.param({"delivery_notes": {}}, "delivery_notes", None, id="an object for no text"),
        pytest.param({"delivery_notes": False}, "delivery_notes", None, id="false for no text"),
        pytest.param({"purchase_date": "0000-00-00 00:00:00"}, "purchase_date", None, id="zeros for no time"),
        pytest.param({"purchase_date": []}, "purchase_date", None, id="a list for no time"),
    ],
)
def test_loosely_typed_json_is_read_as_meant_and_counted(fields, field, value):
    coercions = Coercions()
    assert getattr(order_of(coercions, **fields), field) == value
    assert coercions.total() == 1


def test_whatever_a_conversion_raises_costs_that_order_alone(monkeypatch):
    monkeypatch.setattr("feedamp.api.decoding.Address", None)
    with pytest.raises(UnreadableError):
        order_of(status=7)  # not read at once


def test_nothing_is_counted_where_all_is_to_the_letter():
    coercions: Coercions = Counter()
    order_of(coercions, purchase_date="2026-03-02T14:05:00Z", fulfillments=[FULFILLED], order_lines=[])
    line_of(coercions, quantity=4, unit_price=Decimal("25.5"))
    assert not coercions


@pytest.mark.parametrize(
    ("before", "filler", "after"),
    [
        pytest.param(
            b'"order_lines": [{"mp_line_number": "1", "unit_price": 25.', b"0", b"}]", id="an amount"
        ),
        pytest.param(
            b'"order_lines": [{"mp_line_number": "1", "unit_price": "25', b" ", b'"}]', id="an amount as text"
        ),
        pytest.param(b'"purchase_date": "2026-03-02T14:05:00Z', b" ", b'"', id="a time"),
    ],
)
def test_a_long_text_that_can_be_read_is_not_remembered(before, filler, after):
    def read(length: int) -> Order:
        text = b'{"mp_order_number": "M-1", %b%b%b}' % (before, filler * length, after)
        return read_order(msgspec.Raw(text), Counter())

    read(1)
    tracemalloc.start()
    try:
        for length in range(200_000, 200_010):
            order = read(length)
        assert order.purchase_date or order.order_lines[0].unit_price == 25
        del order
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zone", [" UTC", "UTC", " GMT", " +00:00", "z"])
def test_a_time_names_its_zone_in_any_way(zone):
    coercions: Coercions = Counter()
    assert order_of(coercions, purchase_date=f"2026-03-02 14:05:00{zone}").purchase_date == datetime(
        2026, 3, 2, 14, 5, tzinfo=UTC
    )
    assert shipment_of(shipped_date=f"2026-03-04 23:30:00{zone}").shipped_date == date(2026, 3, 4)
    assert not coercions


def test_a_time_of_another_zone_becomes_utc():
    moment = order_of(latest_ship_date="2026-03-02T14:05:00-05:00").latest_ship_date
    assert (moment.isoformat(), moment.tzinfo) == ("2026-03-02T19:05:00+00:00", UTC)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        pytest.param({"mp_order_number": {"id": 7}}, "mp_order_number", id="an object for the order number"),
        pytest.param({"mp_order_number": Decimal("5.2E+23")}, "mp_order_number", id="an exponent in it"),
        pytest.param({"mp_order_number": ""}, "mp_order_number", id="an empty order number"),
        pytest.param({"status": True}, "status", id="a flag for text"),
        pytest.param({"status": ["NEW"]}, "status", id="a list for text"),
        pytest.param({"acknowledged": "maybe"}, "acknowledged", id="another word for a flag"),
        pytest.param({"acknowledged": 2}, "acknowledged", id="another number for a flag"),
        pytest.param({"customer": [1]}, "customer", id="a list for an object"),
        pytest.param({"customer": "Jo"}, "customer", id="text for an object"),
        pytest.param({"customer": {"email": {"to": 7}}}, "customer.email", id="an object in the customer"),
        pytest.param({"order_lines": {"lines": 7}}, "order_lines", id="an object for a list"),
        pytest.param({"order_lines": "none"}, "order_lines", id="text for a list"),
        pytest.param({"order_lines": [7]}, "order_lines[0]", id="a number for a line"),
        pytest.param(
            {"order_lines": [{"sku": "A"}]}, "order_lines[0].mp_line_number", id="a line without number"
        ),
        pytest.param({"purchase_date": "soon"}, "purchase_date", id="a word for a time"),
        pytest.param({"purchase_date": {"day": 3}}, "purchase_date", id="an object for a time"),
        pytest.param(
            {"purchase_date": "0001-01-01T00:00:00+05:00"}, "purchase_date", id="a time before the calendar"
        ),
        pytest.param({"purchase_date": 1772460300}, "purchase_date", id="a number for a time"),
        pytest.param({"errors": 3}, "errors", id="a number for the errors"),
        pytest.param({"errors": [{"code": [7]}]}, "errors[0].code", id="a list for an error code"),
        pytest.param(
            {"mp_order_number": "M" * 129},
            "mp_order_number with more than 128 characters",
            id="a number that no key can hold",
        ),
        pytest.param(
            {"order_lines": [{"mp_line_number": "1" * 129}]},
            "order_lines[0].mp_line_number with more than 128 characters",
            id="a line number that no key can hold",
        ),
    ],
)
def test_a_wrong_type_is_an_error_that_names_the_field(fields, where):
    with pytest.raises(UnreadableError) as caught:
        order_of(**fields)
    assert caught.value.where == where


def nested(levels):
    value = "x"
    for level in range(levels):
        value = [value] if level % 2 else {"inner": value}
    return value


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        pytest.param({"gift": nested(101)}, "an unknown field", id="of an order"),
        pytest.param({"customer": {"gift": nested(101)}}, "customer.an unknown field", id="of a customer"),
        pytest.param(
            {"order_lines": [{"mp_line_number": "1", "gift": nested(101)}]},
            "order_lines[0].an unknown field",
            id="of a line",
        ),
    ],
)
def test_an_unknown_value_that_no_step_could_write_is_unreadable(fields, where):
    with pytest.raises(UnreadableError) as caught:
        order_of(**fields)
    assert caught.value.where == where


def test_an_unknown_value_of_a_hundred_levels_is_kept():
    assert order_of(gift=nested(100)).extra == {"gift": nested(100)}


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"shipments": [{"carrier": [7]}]}, id="a list for a carrier"),
        pytest.param({"shipments": [{"shipped_date": "4 March"}]}, id="words for a date"),
        pytest.param({"mp_line_number": ""}, id="a fulfillment of no line"),
    ],
)
def test_unreadable_fulfillments_of_a_list_are_left_to_their_own_request(entry):
    coercions = Coercions()
    read = order_of(coercions, fulfillments=[{**FULFILLED, "new": 1, **entry}])
    assert (read.fulfillments, read.extra, coercions) == (None, {}, Coercions())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("quantity", True, id="a flag for units"),
        pytest.param("quantity", Decimal("1.5"), id="a fraction of a unit"),
        pytest.param("quantity", 2**31, id="more units than an integer column holds"),
        pytest.param("quantity", "four", id="a word for units"),
        pytest.param("unit_price", "1,50", id="a comma in a price"),
        pytest.param("unit_price", "NaN", id="NaN for a price"),
        pytest.param("unit_price", [1], id="a list for a price"),
        pytest.param("quantity", False, id="false for units"),
        pytest.param("unit_price", True, id="a flag for a price"),
        pytest.param("unit_price", "$1.50", id="a sign in a price"),
        pytest.param(
            "unit_price", Decimal("99999999999999.99995"), id="a price that rounding makes too large"
        ),
        pytest.param("unit_price", Decimal("1e400"), id="a price beyond all bounds"),
    ],
)
def test_a_wrong_number_on_a_line_is_an_error_that_names_the_field(field, value):
    with pytest.raises(UnreadableError) as caught:
        line_of(**{field: value})
    assert caught.value.where == f"order_lines[0].{field}"


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        pytest.param({}, None, id="absent: FeedAMP lists none at all"),
        pytest.param({"errors": None}, None, id="null: the same"),
        pytest.param({"errors": []}, (), id="empty: none is open"),
        pytest.param(
            {"errors": [{"code": "C", "message": "m", "mp_line_number": "1"}]},
            (ListedError(code="C", message="m", mp_line_number="1"),),
            id="one",
        ),
    ],
)
def test_listed_errors_tell_none_from_not_said(fields, errors):
    assert order_of(**fields).errors == errors


@pytest.mark.parametrize(
    ("item", "number"),
    [
        pytest.param({"mp_order_number": "M-1", "order_lines": 7}, "M-1", id="an unreadable order"),
        pytest.param({"mp_order_number": 7}, "7", id="a number as a number"),
        pytest.param({"mp_order_number": [7]}, None, id="an unreadable number"),
        pytest.param({"mp_order_number": "M" * 129}, None, id="one that is too long to ask for"),
        pytest.param({"mp_order_number": ""}, None, id="an empty number"),
        pytest.param("M-1", None, id="no object"),
    ],
)
def test_the_number_of_an_item_is_told_where_it_can_be(item, number):
    assert number_of(item) == number
