"""Moments and prices of an order body: what is taken, and how it is written."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from order_samples import good_line, good_order

from feedamp.order_body import BodyRules, Reason, check_body


def check(**changes: Any) -> tuple[dict[str, Any] | None, tuple[Reason, ...]]:
    return check_body({"seller_id": "S1", "order": good_order(**changes)}, BodyRules())


def price_sent(price: object) -> str:
    body, _ = check(order_lines=[good_line(unit_price=price)])
    assert body is not None
    return str(body["order_lines"][0]["unit_price"])


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("2026-03-02T14:05:00", id="no zone"),
        pytest.param("2026-02-31T14:05:00Z", id="31 February"),
        pytest.param("2026-03-02", id="no time"),
        pytest.param("2026-03-02T24:00:00Z", id="hour 24"),
        pytest.param("2026-03-02T14:05:00+24:00", id="offset of a day"),
        pytest.param("9999-12-31T23:59:59-01:00", id="past the year 9999 in UTC"),
        pytest.param("0001-01-01T00:00:00Z", id="the empty date of other systems"),
        pytest.param("٢٠٢٦-03-02T14:05:00Z", id="digits of another script"),
        pytest.param("02.03.2026 14:05", id="another order"),
    ],
)
def test_a_moment_that_cannot_be_read_for_sure_is_a_bad_date(moment):
    _, reasons = check(purchase_date=moment)
    assert [(reason.field, reason.code) for reason in reasons] == [("purchase_date", "bad_date")]


def test_the_reason_for_a_time_without_zone_says_what_to_add():
    (reason,) = check(latest_ship_date="2026-03-02T14:05:00")[1]
    assert "add Z" in reason.message


@pytest.mark.parametrize(
    ("moment", "canonical"),
    [
        pytest.param("2026-03-02T14:05:00+02:00", "2026-03-02T12:05:00Z", id="an offset becomes UTC"),
        pytest.param("2026-03-02T22:05:00-0500", "2026-03-03T03:05:00Z", id="an offset may cross midnight"),
        pytest.param("2026-03-02T14:05:59.999Z", "2026-03-02T14:05:59Z", id="a fraction is cut, not rounded"),
        pytest.param(
            "2026-03-02 14:05:00z", "2026-03-02T14:05:00Z", id="a blank and a small z are understood"
        ),
    ],
)
def test_a_moment_is_sent_in_utc_with_z_and_whole_seconds(moment, canonical):
    body, _ = check(purchase_date=moment)
    assert body is not None
    assert body["purchase_date"] == canonical


@pytest.mark.parametrize("price", [6, 6.0, Decimal(6), Decimal("6.000"), Decimal("0.6E1")])
def test_prices_that_are_equal_are_written_alike(price):
    assert price_sent(price) == "6.00"


def test_minus_zero_is_sent_as_zero():
    assert price_sent(Decimal("-0.0")) == "0.00"
