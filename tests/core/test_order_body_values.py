"""Moments, prices, countries and quantities of an order body: what is taken, and how it is written."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from order_samples import good_line, good_order

from feedamp.order_body import BodyRules, Reason, check_body
from feedamp.order_body.countries import ALPHA_3, COUNTRIES


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
        pytest.param("2026-03-02 14:05:00 EST", id="a zone that several countries have"),
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
        pytest.param("2026-03-02 14:05:00+00", "2026-03-02T14:05:00Z", id="as Postgres writes it"),
        pytest.param("2026-03-02 14:05:00.25-03", "2026-03-02T17:05:00Z", id="an offset of whole hours"),
        pytest.param("2026-03-02 14:05:00.000 +0530", "2026-03-02T08:35:00Z", id="as Snowflake writes it"),
        pytest.param("2026-03-02 14:05:00 UTC", "2026-03-02T14:05:00Z", id="as BigQuery writes it"),
        pytest.param("2026-03-02 14:05:00GMT", "2026-03-02T14:05:00Z", id="the older name of UTC"),
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


@pytest.mark.parametrize(
    ("written", "right"),
    [("US", "USA"), ("us", "USA"), (" DE", "DEU"), ("UK", "GBR"), ("usa", "USA"), ("XK", "XKX"), ("ROM", None), ("Germany", None)],
)  # fmt: skip
def test_a_country_that_is_not_alpha_3_is_rejected_with_the_right_code(written, right):
    address = {**good_order()["shipping_address"], "country_code": written}
    (reason,) = check(shipping_address=address)[1]
    assert (reason.field, reason.code) == ("shipping_address.country_code", "out_of_range")
    assert reason.message == (
        f"must be {right}" if right else "must be an ISO 3166 alpha-3 code, such as USA"
    )


def test_every_country_has_one_code_of_three_letters():
    assert len(COUNTRIES) == len(ALPHA_3) == 250  # 249 of ISO 3166, and Kosovo
    assert all(len(code) == 3 and code.isalpha() and code.isupper() for code in COUNTRIES)


@pytest.mark.parametrize("quantity", [2.0, Decimal("2.0"), Decimal("2E0"), 2])
def test_a_number_without_fraction_is_whole(quantity):
    body, _ = check(order_lines=[good_line(quantity=quantity)])
    assert body is not None
    assert repr(body["order_lines"][0]["quantity"]) == "2"
