"""To which seller an order returned by an account belongs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from feedamp.models import Order, OrderLine
from feedamp.rules.account_evidence import (
    KnownOrder,
    contradicts,
    mark,
    proves,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
KNOWN = KnownOrder("S1", "1001", NOON, {"1": "SKU-A", "2": None}, NOON)
LINES = (OrderLine(mp_line_number="1", sku="SKU-A"), OrderLine(mp_line_number="2", sku="SKU-B"))


def shown(**changes):
    return Order(**{"mp_order_number": "1001", "purchase_date": NOON, "order_lines": LINES} | changes)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param(shown(), (False, True), id="the same date and lines"),
        pytest.param(
            shown(purchase_date=NOON + timedelta(milliseconds=1)), (False, True), id="a part of a second"
        ),
        pytest.param(shown(purchase_date=NOON + timedelta(seconds=1)), (True, False), id="another second"),
        pytest.param(shown(order_lines=LINES[:1]), (True, False), id="a line less"),
        pytest.param(
            shown(order_lines=(OrderLine(mp_line_number="1", sku="SKU-X"), LINES[1])),
            (True, False),
            id="another SKU",
        ),
        pytest.param(
            shown(order_lines=(OrderLine(mp_line_number="1"), LINES[1])), (False, True), id="a SKU not shown"
        ),
        pytest.param(shown(purchase_date=None), (False, False), id="no date shown"),
        pytest.param(shown(order_lines=()), (False, False), id="no lines shown"),
    ],
)
def test_an_equal_number_alone_proves_nothing(order, expected):
    assert (contradicts(order, KNOWN), proves(order, KNOWN)) == expected


def test_the_mark_of_an_order_is_the_same_in_another_account():
    assert mark(shown()) == mark(shown(order_lines=LINES[::-1], status="FULFILLED"))
    assert mark(shown()) != mark(shown(purchase_date=NOON + timedelta(days=1)))
    assert mark(shown()) != mark(shown(mp_order_number="1002"))
    assert mark(shown(purchase_date=None)) is None
