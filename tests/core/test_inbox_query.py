"""Rows of a query as orders and rejects: text and decoded JSON alike, exact prices, stable content hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from order_samples import good_line, good_order

from feedamp.inbox import BadRow, OrderRow, read_again, read_query
from feedamp.order_body import BodyRules
from feedamp.order_body.rows import MAX_ORDER_BYTES, Origin, judge

RULES = BodyRules()


class Rows:
    """A query that returns these rows."""

    source = "sql:market"

    def __init__(self, *rows: tuple[object, object]) -> None:
        self._rows = rows

    def rows(self) -> Iterator[tuple[object, object]]:
        yield from self._rows


def as_text(**changes: Any) -> str:
    return json.dumps(good_order(**changes), default=float)


def read_one(seller_id: object, order: object) -> OrderRow | BadRow:
    [row] = read_query(Rows((seller_id, order)), RULES)
    return row


def reasons(row: OrderRow | BadRow) -> list[tuple[str, str]]:
    return [(reason.field, reason.code) for reason in row.reasons] if isinstance(row, BadRow) else []


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(as_text(), id="JSON text"),
        pytest.param("\ufeff" + as_text(), id="JSON text behind a byte order mark"),
        pytest.param(as_text().encode(), id="JSON as bytes"),
        pytest.param(memoryview(as_text().encode()), id="JSON as a memory view"),
        pytest.param(json.loads(as_text()), id="decoded JSON, prices as binary floats"),
        pytest.param(good_order(), id="decoded JSON, prices as decimals"),
        pytest.param(
            good_order(purchase_date=datetime(2026, 3, 2, 14, 5, tzinfo=UTC)), id="a struct with a moment"
        ),
        pytest.param({**json.loads(as_text()), "delivery_notes": None}, id="a member that is null"),
    ],
)
def test_an_order_is_read_however_the_driver_gives_it(order):
    row = read_one("S1", order)
    assert isinstance(row, OrderRow), reasons(row)
    assert row.body == good_order()
    assert (row.source, row.row_number, row.seller_id) == ("sql:market", 1, "S1")


@pytest.mark.parametrize(
    ("seller_id", "read"),
    [
        pytest.param(17, "17", id="a number"),
        pytest.param(Decimal(123456789012345678), "123456789012345678", id="NUMERIC"),
        pytest.param(Decimal("17.00"), "17", id="NUMERIC with places"),
        pytest.param(17.0, "17", id="a float, as pandas has where some are missing"),
        pytest.param(
            UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678", id="a UUID"
        ),
    ],
)
def test_a_seller_known_by_another_kind_of_id_is_read_as_its_text(seller_id, read):
    row = read_one(seller_id, as_text())
    assert isinstance(row, OrderRow)  # a reject shows the digits of any number
    assert row.seller_id == read


@pytest.mark.parametrize(
    ("seller_id", "order", "expected"),
    [
        pytest.param(None, as_text(), [("seller_id", "missing")], id="no seller"),
        pytest.param("S1", None, [("order", "missing")], id="no order"),
        pytest.param("S1", "{broken", [("order", "unreadable")], id="text that is no JSON"),
        pytest.param("S1", "[]", [("order", "wrong_type")], id="JSON that is no object"),
        pytest.param(True, as_text(), [("seller_id", "wrong_type")], id="a seller that is a truth value"),
        pytest.param(1.5, as_text(), [("seller_id", "wrong_type")], id="a seller that is a fraction"),
        pytest.param(
            1234567890123456.0,
            as_text(),
            [("seller_id", "wrong_type")],
            id="a float that may have been rounded",
        ),
        pytest.param(
            "S1",
            as_text(currency="crowns", order_lines=[good_line(quantity=0)]),
            [("currency", "out_of_range"), ("order_lines[0].quantity", "out_of_range")],
            id="every reason at once",
        ),
    ],
)
def test_a_bad_row_is_rejected_with_every_reason(seller_id, order, expected):
    assert sorted(reasons(read_one(seller_id, order))) == sorted(expected)


@pytest.mark.parametrize(
    ("seller_id", "order", "state"),
    [
        pytest.param("S1", as_text(), "AWAITING_SHIPMENT", id="none but the currency"),
        pytest.param(True, as_text(), None, id="the seller"),
        pytest.param("S1", as_text(mp_order_number="1.5E+10"), None, id="the number"),
        pytest.param("S1", as_text(marketplace_state="LOST"), None, id="the state"),
        pytest.param("S1", "[]", None, id="the order"),
    ],
)
def test_a_bad_row_has_a_state_if_its_faults_are_elsewhere(seller_id, order, state):
    row = read_one(seller_id, order.replace("USD", "crowns"))
    assert isinstance(row, BadRow)
    assert row.state == state


def test_a_price_of_text_is_exact_to_the_last_digit():
    price = Decimal("99999999999999.99")
    text = as_text().replace("25.5", str(price))
    row = read_one("S1", text)
    assert isinstance(row, OrderRow)
    assert row.body["order_lines"][0]["unit_price"] == price


def test_a_price_that_a_driver_may_have_rounded_is_rejected_with_the_way_out():
    decoded = json.loads(as_text().replace("25.5", "99999999999999.99"))
    row = read_one("S1", decoded)
    assert reasons(row) == [("order", "bad_number")]
    assert isinstance(row, BadRow)
    assert "cast the column to text" in row.reasons[0].message


def test_equal_content_has_the_same_hash_in_any_notation_and_position():
    spaced = json.dumps(json.loads(as_text()), indent=2)
    rows = list(read_query(Rows(("S1", as_text()), ("S1", spaced), ("S1", json.loads(as_text()))), RULES))
    assert len({row.row_hash for row in rows}) == 1
    assert [row.row_number for row in rows] == [1, 2, 3]


@pytest.mark.parametrize(
    "order",
    [
        pytest.param("{broken", id="no JSON"),
        pytest.param(as_text(currency="crowns"), id="a wrong value"),
        pytest.param(None, id="no order"),
    ],
)
def test_a_kept_row_gives_the_same_verdict_again(order):
    row = read_one("S1", order)
    again = read_again(row.source, row.row_number, row.raw, RULES)
    assert again == row
    assert reasons(again)


def test_a_kept_row_is_good_once_an_option_has_changed():
    row = read_one("S1", as_text(gift_note="hello"))
    assert reasons(row) == [("gift_note", "unknown_field")]
    rules = BodyRules(extra_order_fields=frozenset({"gift_note"}))
    assert isinstance(read_again(row.source, 1, row.raw, rules), OrderRow)


class Raising(dict):
    """JSON that a driver decodes only when it is asked for, and cannot."""

    def items(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("order", "codes"),
    [
        pytest.param(Raising(), ["unreadable"], id="a value that raises"),
        pytest.param(as_text().encode().replace(b"Vale", b"V\xe4le"), ["unreadable"], id="bytes of another encoding"),
        pytest.param(good_order(delivery_notes="x" * MAX_ORDER_BYTES), ["too_large"], id="more than an order may have"),
        pytest.param(good_order(order_lines=[good_line(shipping_price=float("nan"))]), [], id="NaN for nothing"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_costs_its_row_alone(order, codes):
    rows = list(read_query(Rows(("S1", as_text()), ("S2 ", order), ("S1", order)), RULES))
    assert [[reason.code for reason in getattr(row, "reasons", ())] for row in rows] == [[], codes, codes]
    assert [row.seller_id for row in rows] == ["S1", "S2", "S1"]
    assert rows[2].row_hash == read_one("S1", order).row_hash  # wherever the row is in the result


@pytest.mark.usefixtures("without_collection")
def test_json_that_is_nested_too_deep_costs_its_row_alone():
    order: list[Any] = []
    for _ in range(100_000):
        order = [order]
    bad, good = read_query(Rows(("S1", order), ("S1", as_text())), RULES)
    assert reasons(bad) == [("", "unreadable")]
    assert isinstance(good, OrderRow)
    while order:  # from the outside in: Python would free it recursively
        order = order.pop()


def test_whatever_the_check_of_a_row_raises_costs_the_row():
    row = judge(Origin("a", 1, 1, "", ""), {"seller_id": "S1", "order": Hostile()}, RULES)
    assert reasons(row) == [("", "unreadable")]


class Hostile(Raising):
    def keys(self):
        raise ZeroDivisionError
