"""`check_body`: what an order may hold, and every reason against it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_samples import good_line, good_order

from feedamp.errors import ConfigurationError
from feedamp.order_body import BodyRules, Reason, check_body

RULES = BodyRules()


def check(order: Any, rules: BodyRules = RULES) -> tuple[dict[str, Any] | None, tuple[Reason, ...]]:
    return check_body({"seller_id": "S1", "order": order}, rules)


def faults(order: Any, rules: BodyRules = RULES) -> list[tuple[str, str]]:
    body, reasons = check(order, rules)
    assert (body is None) == bool(reasons)
    return [(reason.field, reason.code) for reason in reasons]


def line(**changes: Any) -> dict[str, Any]:
    return good_order(order_lines=[good_line(**changes)])


def without(*path: str) -> dict[str, Any]:
    order = good_order()
    target = order
    for step in path[:-1]:
        target = target[step][0] if step == "order_lines" else target[step]
    del target[path[-1]]
    return order


def address(**changes: Any) -> dict[str, Any]:
    return good_order(shipping_address={**good_order()["shipping_address"], **changes})


def test_a_canonical_body_comes_back_as_it_is():
    assert check(good_order()) == (good_order(), ())


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param(without("mp_order_number"), ("mp_order_number", "missing"), id="no order number"),
        pytest.param(without("customer"), ("customer", "missing"), id="no customer"),
        pytest.param(without("customer", "full_name"), ("customer.full_name", "missing"), id="no name"),
        pytest.param(good_order(customer=None), ("customer", "missing"), id="customer is null"),
        pytest.param(good_order(sales_channel="  "), ("sales_channel", "missing"), id="channel is blank"),
        pytest.param(
            without("shipping_address", "city"), ("shipping_address.city", "missing"), id="no city"
        ),
        pytest.param(good_order(order_lines=[]), ("order_lines", "missing"), id="no line"),
        pytest.param(without("order_lines", "sku"), ("order_lines[0].sku", "missing"), id="no sku"),
        pytest.param(good_order(customer="Robin"), ("customer", "wrong_type"), id="customer is text"),
        pytest.param(good_order(order_lines={}), ("order_lines", "wrong_type"), id="lines are an object"),
        pytest.param(good_order(order_lines=[7]), ("order_lines[0]", "wrong_type"), id="line is a number"),
        pytest.param(address(postal_code=1201), ("shipping_address.postal_code", "wrong_type"), id="postal code is a number"),
        pytest.param(address(city="a\x00b"), ("shipping_address.city", "wrong_type"), id="NUL in text"),
        pytest.param(address(city="a\ud800"), ("shipping_address.city", "wrong_type"), id="lone surrogate"),
        pytest.param(good_order(mp_order_number="M 1"), ("mp_order_number", "out_of_range"), id="blank in the number"),
        pytest.param(good_order(mp_order_number="M-1\n"), ("mp_order_number", "wrong_type"), id="line end in the number"),
        pytest.param(good_order(mp_order_number=".."), ("mp_order_number", "out_of_range"), id="number that a URL would swallow"),
        pytest.param(good_order(mp_order_number="M" * 129), ("mp_order_number", "out_of_range"), id="number of 129 characters"),
        pytest.param(good_order(currency="usd"), ("currency", "out_of_range"), id="currency in small letters"),
        pytest.param(good_order(currency="XXX"), ("currency", "out_of_range"), id="currency that does not exist"),
        pytest.param(good_order(marketplace_state="OPEN"), ("marketplace_state", "illegal_transition"), id="unknown state"),
        pytest.param(good_order(gift=True), ("gift", "unknown_field"), id="unknown field"),
        pytest.param(address(floor="3"), ("shipping_address.floor", "unknown_field"), id="unknown member"),
        pytest.param(line(color="red"), ("order_lines[0].color", "unknown_field"), id="unknown field of a line"),
        pytest.param(good_order(status="ORDERED"), ("status", "unknown_field"), id="read-only field"),
        pytest.param(good_order(location={}), ("location", "unknown_field"), id="undocumented field"),
        pytest.param(line(quantity=0), ("order_lines[0].quantity", "out_of_range"), id="quantity zero"),
        pytest.param(line(quantity=2**31), ("order_lines[0].quantity", "out_of_range"), id="quantity past 32 bits"),
        pytest.param(line(quantity=True), ("order_lines[0].quantity", "wrong_type"), id="quantity is true"),
        pytest.param(line(quantity="2"), ("order_lines[0].quantity", "wrong_type"), id="quantity is text"),
        pytest.param(line(quantity=Decimal("2.5")), ("order_lines[0].quantity", "wrong_type"), id="half a unit"),
        pytest.param(line(quantity=Decimal("1e999999999")), ("order_lines[0].quantity", "out_of_range"), id="an exponent of a billion"),
        pytest.param(line(unit_price="25.5"), ("order_lines[0].unit_price", "wrong_type"), id="price is text"),
        pytest.param(line(unit_price=""), ("order_lines[0].unit_price", "wrong_type"), id="price is empty text"),
        pytest.param(line(unit_price=False), ("order_lines[0].unit_price", "wrong_type"), id="price is false"),
        pytest.param(line(unit_price=-1), ("order_lines[0].unit_price", "out_of_range"), id="price below zero"),
        pytest.param(line(unit_price=10**14), ("order_lines[0].unit_price", "out_of_range"), id="price past DECIMAL(18,4)"),
        pytest.param(line(unit_price=Decimal("1.005")), ("order_lines[0].unit_price", "bad_number"), id="price of three decimals"),
        pytest.param(line(unit_price=Decimal("1E-999999")), ("order_lines[0].unit_price", "bad_number"), id="price next to nothing"),
        pytest.param(line(unit_price=Decimal("1E+999999")), ("order_lines[0].unit_price", "out_of_range"), id="price without end"),
        pytest.param(line(unit_price=Decimal("NaN")), ("order_lines[0].unit_price", "bad_number"), id="price is NaN"),
        pytest.param(line(mp_line_number="L" * 129), ("order_lines[0].mp_line_number", "out_of_range"), id="line number of 129 characters"),
        pytest.param(line(taxes=[{"type": "SALES"}]), ("order_lines[0].taxes[0].amount", "missing"), id="tax without amount"),
        pytest.param(
            line(discounts=[{"type": "ITEM", "amount": Decimal("0.001")}]),
            ("order_lines[0].discounts[0].amount", "bad_number"),
            id="discount of three decimals",
        ),
        pytest.param(
            good_order(order_lines=[good_line(), good_line(sku="B")]),
            ("order_lines[1].mp_line_number", "duplicate_line"),
            id="line number twice",
        ),
    ],
)  # fmt: skip
def test_one_fault_gives_one_reason(order, expected):
    assert faults(order) == [expected]


def test_what_says_nothing_is_left_out():
    order = address(address2=None, address3="", state=None)
    order["order_lines"][0] |= {
        "discounts": [],
        "taxes": [{"type": "SALES", "amount": 0}],
        "shipping_price": None,
    }
    del order["shipping_address"]["state"]
    expected = good_order()
    del expected["shipping_address"]["state"]
    assert check({**order, "delivery_notes": " "}) == (expected, ())


def test_all_reasons_come_at_once():
    order = good_order(currency="dollar", purchase_date="today", order_lines=[good_line(quantity=0), 1])
    assert faults({**order, "errors": []}) == [
        ("purchase_date", "bad_date"),
        ("currency", "out_of_range"),
        ("order_lines[0].quantity", "out_of_range"),
        ("order_lines[1]", "wrong_type"),
        ("errors", "unknown_field"),
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param([], [("", "wrong_type")], id="a list"),
        pytest.param({}, [("seller_id", "missing"), ("order", "missing")], id="nothing in it"),
        pytest.param({"seller_id": 7, "order": good_order()}, [("seller_id", "wrong_type")], id="seller is a number"),
        pytest.param({"seller_id": "a\tb", "order": good_order()}, [("seller_id", "wrong_type")], id="tab in the seller"),
        pytest.param({"seller_id": "S1", "order": "x"}, [("order", "wrong_type")], id="order is text"),
        pytest.param({"seller_id": "S1", "order": good_order(), "x": 1}, [("x", "unknown_field")], id="another key"),
    ],
)  # fmt: skip
def test_the_row_around_the_order_is_checked_too(row, expected):
    assert [(reason.field, reason.code) for reason in check_body(row, RULES)[1]] == expected


def test_extra_fields_pass_where_they_are_named():
    rules = BodyRules(extra_order_fields=frozenset({"gift", "order_lines.color", "channel.region"}))
    order = good_order(gift={"note": "Hi"}, channel={"region": "EU"}, order_lines=[good_line(color="red")])
    assert check(order, rules) == (order, ())
    assert faults({**order, "channel": {"city": "X"}}, rules) == [("channel.city", "unknown_field")]


def test_optional_fields_replace_the_default():
    order = without("shipping_address", "postal_code")
    rules = BodyRules(optional_fields=frozenset({"shipping_address.postal_code"}))
    assert check(order, rules) == (order, ())
    assert faults(without("shipping_address", "state"), rules) == [("shipping_address.state", "missing")]
    assert faults(without("shipping_address", "state")) == []


def test_another_order_number_pattern_can_be_set():
    assert faults(good_order(mp_order_number="M/1"), BodyRules(order_number_pattern="M/[0-9]")) == []


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"extra_order_fields": frozenset({"acknowledged"})}, id="a read-only field as extra"),
        pytest.param({"optional_fields": frozenset({"state"})}, id="an optional field that does not exist"),
        pytest.param({"optional_fields": frozenset({"order_lines.quantity"})}, id="orders without quantity"),
        pytest.param({"order_number_pattern": "["}, id="a broken pattern"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(options):
    with pytest.raises(ConfigurationError):
        BodyRules(**options)


def test_no_reason_repeats_what_the_customer_gave():
    order = good_order(customer={"full_name": 7, "email": "robin\x00@buyer.example"}, purchase_date="Robin")
    assert not any(word in reason.message for reason in check(order)[1] for word in ("Robin", "robin", "7"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.floats() | st.text(max_size=5)
    | st.text(st.characters(categories=["Cs", "Cc"]), max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
fields = st.sampled_from([*good_order(), "location", "status", "gift"])


@given(st.dictionaries(fields, json_values))
def test_whatever_comes_gives_a_body_or_reasons(changes):
    rules = BodyRules(extra_order_fields=frozenset({"gift"}))
    body, reasons = check(good_order(**changes), rules)
    assert (body is None) == bool(reasons)
    if body is not None:
        assert check(body, rules) == (body, ())


@given(st.dictionaries(st.sampled_from([*good_line(), "taxes", "discounts"]), json_values))
def test_whatever_a_line_holds_gives_a_body_or_reasons(changes):
    body, reasons = check(line(**changes))
    assert (body is None) == bool(reasons)


@given(json_values)
def test_whatever_the_row_is_no_exception_comes(row):
    assert check_body(row, RULES)[0] is None
