"""Which orders the sandbox accepts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from order_samples import example_order
from probe import Probe, rules

SELLER = "seller-001"


def line(**changes):
    return {**example_order("M-1")["order_lines"][0], **changes}


def address(**changes):
    return {**example_order("M-1")["shipping_address"], **changes}


def without(body, name):
    return {key: value for key, value in body.items() if key != name}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="only what is required and usual"),
        pytest.param({"marketplace_state": "PENDING"}, id="not yet released"),
        pytest.param({"customer": {}}, id="a customer without members"),
        pytest.param({"location": {"store": 4}}, id="a location, whose members are undocumented"),
        pytest.param({"latest_delivery_date": "2026-03-09T00:00:00Z"}, id="an optional date"),
        pytest.param({"shipping_address": address(address3="")}, id="an empty third address line"),
        pytest.param({"order_lines": [line(unit_price=0)]}, id="a free article"),
        pytest.param(
            {"order_lines": [line(unit_price=Decimal("25.50"))]}, id="a price with a zero at its end"
        ),
        pytest.param({"order_lines": [line(taxes=[{"type": "SHIPPING", "amount": 0.5}])]}, id="a tax"),
        pytest.param({"order_lines": [line(), line(mp_line_number="M-1-2")]}, id="two lines"),
    ],
)
def test_an_order_of_the_contract_is_taken(sandbox, probe, changes):
    assert probe.place("M-1", **changes).status == 200
    assert sandbox.broken_rules == []


@pytest.mark.parametrize(
    ("changes", "code", "rule"),
    [
        pytest.param({"gift": True}, "UNKNOWN_FIELD_PRESENT", "unknown_field", id="an unknown field"),
        pytest.param(
            {"is_marketplace_fulfilled": False},
            "UNKNOWN_FIELD_PRESENT",
            "unknown_field",
            id="a read-only field",
        ),
        pytest.param(
            {"shipping_address": address(region="x")},
            "UNKNOWN_FIELD_PRESENT",
            "unknown_field",
            id="an unknown address field",
        ),
        pytest.param(
            {"order_lines": [line(sales_tax=1)]},
            "UNKNOWN_FIELD_PRESENT",
            "unknown_field",
            id="a flat tax, which is another API's",
        ),
        pytest.param(
            {"shipping_address": without(address(), "state")},
            "MISSING_REQUIRED_FIELD",
            "missing_field",
            id="an address without state",
        ),
        pytest.param(
            {"order_lines": [without(line(), "sku")]},
            "MISSING_REQUIRED_FIELD",
            "missing_field",
            id="a line without sku",
        ),
        pytest.param(
            {"customer": "Robin"}, "FIELD_INCORRECT_DATA_TYPE", "bad_field", id="a customer as text"
        ),
        pytest.param(
            {"delivery_notes": None},
            "FIELD_INCORRECT_DATA_TYPE",
            "bad_field",
            id="null for an optional field",
        ),
        pytest.param(
            {"order_lines": [line(unit_price="25.5")]},
            "FIELD_INCORRECT_DATA_TYPE",
            "bad_field",
            id="a price as text",
        ),
        pytest.param(
            {"order_lines": [line(quantity=2.0)]},
            "FIELD_INCORRECT_DATA_TYPE",
            "bad_field",
            id="a quantity as 2.0",
        ),
        pytest.param(
            {"order_lines": [line(quantity=True)]},
            "FIELD_INCORRECT_DATA_TYPE",
            "bad_field",
            id="a quantity as true",
        ),
        pytest.param({"order_lines": [line(quantity=0)]}, "FIELD_INVALID_VALUE", "bad_field", id="no unit"),
        pytest.param({"order_lines": []}, "FIELD_INVALID_VALUE", "bad_field", id="no line"),
        pytest.param(
            {"order_lines": [line(), line()]}, "FIELD_INVALID_VALUE", "bad_field", id="a line twice"
        ),
        pytest.param(
            {"order_lines": [line(unit_price=25.501)]},
            "FIELD_INVALID_VALUE",
            "bad_field",
            id="three decimals",
        ),
        pytest.param(
            {"order_lines": [line(mp_line_number="x" * 129)]},
            "FIELD_INVALID_VALUE",
            "bad_field",
            id="a line number of 129 characters",
        ),
        pytest.param({"currency": "usd"}, "FIELD_INVALID_VALUE", "bad_field", id="a currency in lower case"),
        pytest.param({"currency": "ABC"}, "FIELD_INVALID_VALUE", "bad_field", id="an unknown currency"),
        pytest.param(
            {"shipping_address": address(country_code="US")},
            "FIELD_INVALID_VALUE",
            "bad_field",
            id="a country of two letters",
        ),
        pytest.param(
            {"purchase_date": "2026-03-02T14:05:00+00:00"},
            "FIELD_INVALID_VALUE",
            "bad_field",
            id="an offset for Z",
        ),
        pytest.param(
            {"purchase_date": "2026-03-02T14:05:00"}, "FIELD_INVALID_VALUE", "bad_field", id="no zone"
        ),
        pytest.param(
            {"purchase_date": "2026-03-02T14:05:00.000Z"},
            "FIELD_INVALID_VALUE",
            "bad_field",
            id="milliseconds",
        ),
        pytest.param(
            {"purchase_date": "2026-02-30T14:05:00Z"}, "FIELD_INVALID_VALUE", "bad_field", id="30 February"
        ),
        pytest.param(
            {"mp_order_number": "M-2"}, "FIELD_INVALID_VALUE", "bad_field", id="another number than the path"
        ),
        pytest.param(
            {"marketplace_state": "SHIPPED"},
            "FIELD_INVALID_VALUE",
            "illegal_first_state",
            id="first sent as shipped",
        ),
        pytest.param(
            {"marketplace_state": "CANCELLED"},
            "FIELD_INVALID_VALUE",
            "illegal_first_state",
            id="cancelled before it was placed",
        ),
    ],
)
def test_an_order_outside_the_contract_is_refused_and_counted(sandbox, probe, changes, code, rule):
    answer = probe.place("M-1", **changes)
    assert (answer.status, answer.codes, rules(sandbox)) == (400, [code], {rule: 1})
    assert sandbox.orders(SELLER) == {}


def test_all_problems_of_a_body_are_named_at_once(probe):
    answer = probe.place("M-1", currency="x", gift=1, customer=3)
    assert sorted(answer.codes) == [
        "FIELD_INCORRECT_DATA_TYPE",
        "FIELD_INVALID_VALUE",
        "UNKNOWN_FIELD_PRESENT",
    ]


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"{", "application/json", id="half a JSON text"),
        pytest.param(b"[]", "application/json", id="a list"),
        pytest.param(b"\xff", "application/json", id="bytes that are no text"),
        pytest.param(b"[" * 100_000, "application/json", id="a very deep list"),
        pytest.param(b"{}", "text/plain", id="another content type"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(sandbox, probe, body, content_type):
    probe.call("GET", "/orders")
    headers = {"Authorization": f"Bearer {probe.access_token}", "Content-Type": content_type}
    assert probe.send("PUT", "/orders/M-1", body, headers).status == 400
    assert rules(sandbox) == {"bad_body": 1}


def test_money_comes_back_with_the_digits_it_was_sent_with(sandbox, probe):
    probe.call("GET", "/orders")
    body = (
        b'{"mp_order_number":"M-1","sales_channel":"x","customer":{},"purchase_date":"2026-03-02T14:05:00Z",'
    )
    body += b'"currency":"USD","shipping_address":{"full_name":"","address1":"","city":"","state":"",'
    body += b'"postal_code":"","country_code":"USA"},"order_lines":[{"mp_line_number":"1","sku":"a",'
    body += b'"product_name":"b","quantity":1,"unit_price":1234567.10}],"marketplace_state":"PENDING"}'
    headers = {"Authorization": f"Bearer {probe.access_token}", "Content-Type": "application/json"}
    assert probe.send("PUT", "/orders/M-1", body, headers).status == 200
    assert b'"unit_price":1234567.10}' in probe.call("GET", "/orders/M-1").body


def test_a_seller_sees_only_its_own_orders(sandbox, probe):
    probe.place("M-1")
    other = Probe(sandbox, "seller-002")
    assert other.call("GET", "/orders").json["orders"] == []
    assert [other.call("GET", path).status for path in ("/orders/M-1", "/orders/M-1/fulfillments")] == [
        404,
        404,
    ]
    other.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/orders/none", 404, id="an order that is not there"),
        pytest.param("POST", "/orders", 405, id="a method that is not there"),
        pytest.param("GET", "/refunds", 404, id="a path the sandbox does not play"),
        pytest.param("GET", "/orders/%0A%2F%F0%9F%93%A6", 404, id="a number of odd characters"),
        pytest.param("GET", "/orders/M-1?page_size=20", 400, id="a query where none belongs"),
    ],
)
def test_what_does_not_exist_is_answered_with_a_list_of_codes(probe, method, path, status):
    path, _, query = path.partition("?")
    answer = probe.call(method, path, **({"page_size": "20"} if query else {}))
    assert (answer.status, len(answer.codes)) == (status, 1)
