"""How sellers are measured."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import pytest
from manifests import Loader
from view_rows import DAY, INSTANT, NOW, ask, sold

from feedamp.state.scorecards import FIGURES
from feedamp.warehouse.views import LATE_ORDERS, SELLER_SCORECARDS


def card(loader: Loader, window_days: int = 30, seller: str = "S1") -> dict[str, Any]:
    [row] = [
        row
        for row in ask(loader, SELLER_SCORECARDS)
        if (row["seller_id"], row["window_days"]) == (seller, window_days)
    ]
    return row


@pytest.mark.parametrize(
    ("purchased", "in_30", "in_60"),
    [
        pytest.param(NOW, 1, 1, id="this very moment"),
        pytest.param(NOW + INSTANT, 0, 0, id="in the future"),
        pytest.param(NOW - 30 * DAY, 1, 1, id="exactly 30 days ago"),
        pytest.param(NOW - 30 * DAY - INSTANT, 0, 1, id="a moment more than 30 days ago"),
        pytest.param(NOW - 60 * DAY, 0, 1, id="exactly 60 days ago"),
        pytest.param(NOW - 60 * DAY - INSTANT, 0, 0, id="a moment more than 60 days ago"),
    ],
)
def test_a_window_holds_the_orders_purchased_in_it(
    loader: Loader, purchased: datetime, in_30: int, in_60: int
) -> None:
    sold(loader, "M-1", purchase_date=purchased)
    assert (card(loader, 30)["orders"], card(loader, 60)["orders"]) == (in_30, in_60)


@pytest.mark.parametrize(
    ("shipped", "changes", "due", "late"),
    [
        pytest.param([date(2026, 6, 20)], {}, 1, 0, id="shipped on the last day"),
        pytest.param([date(2026, 6, 21)], {}, 1, 1, id="shipped the day after"),
        pytest.param([date(2026, 6, 19), date(2026, 6, 21)], {}, 1, 1, id="the last of two parcels late"),
        pytest.param([None], {}, 1, 0, id="shipped without a date"),
        pytest.param([], {}, 1, 1, id="never shipped"),
        pytest.param(
            [date(2026, 6, 19)],
            {"units_shipped": 1, "units_pending": 1},
            1,
            1,
            id="partly shipped, still open",
        ),
        pytest.param(
            [],
            {"latest_ship_date": datetime(2026, 6, 30, 1, tzinfo=UTC)},
            0,
            0,
            id="its last day is not over",
        ),
        pytest.param(
            [],
            {"latest_ship_date": datetime(2026, 6, 29, 23, tzinfo=UTC)},
            1,
            1,
            id="its last day was yesterday",
        ),
        pytest.param([], {"latest_ship_date": None}, 0, 0, id="no day to ship by"),
        pytest.param([date(2026, 6, 25)], {"latest_ship_date": None}, 0, 0, id="shipped, no day to ship by"),
        pytest.param([], {"units_pending": 0, "units_cancelled": 2}, 0, 0, id="all cancelled by the seller"),
        pytest.param([date(2026, 6, 21)], {"marketplace_state": "SHIPPED"}, 1, 1, id="closed and late"),
        pytest.param([date(2026, 6, 21)], {"marketplace_state": "PENDING"}, 0, 0, id="not released"),
        pytest.param(
            [date(2026, 6, 21)], {"is_marketplace_fulfilled": True}, 0, 0, id="marketplace ships it"
        ),
    ],
)
def test_an_order_is_due_and_late(
    loader: Loader, shipped: list[date], changes: dict[str, Any], due: int, late: int
) -> None:
    sold(loader, "M-1", *shipped, **changes)
    found = card(loader)
    assert (found["orders_due"], found["orders_late"]) == (due, late)


@pytest.mark.parametrize(
    ("changes", "orders", "cancelled"),
    [
        pytest.param({"units_pending": 0, "units_cancelled": 2}, 1, 1, id="all by the seller"),
        pytest.param({"units_pending": 1, "units_cancelled": 1}, 1, 1, id="one unit by the seller"),
        pytest.param({"marketplace_state": "CANCELLED"}, 0, 0, id="by the marketplace alone"),
        pytest.param(
            {"marketplace_state": "CANCELLED", "units_pending": 0, "units_cancelled": 2},
            1,
            1,
            id="by the seller, and closed so",
        ),
        pytest.param({}, 1, 0, id="not at all"),
    ],
)
def test_an_order_counts_as_cancelled(
    loader: Loader, changes: dict[str, Any], orders: int, cancelled: int
) -> None:
    sold(loader, "M-1", **changes)
    found = card(loader)
    assert (found["orders"], found["orders_cancelled"]) == (orders, cancelled)


def test_the_valid_tracking_rate_leaves_out_unverified_numbers(loader: Loader) -> None:
    days = [date(2026, 6, 12)] * 5
    sold(loader, "M-1", *days, checks=("valid", "valid", "invalid", "no number", "unverified"))
    found = card(loader)
    assert (found["shipments_judged"], found["shipments_valid"], found["valid_tracking_rate"]) == (4, 2, 0.5)


def test_a_seller_without_orders_in_the_window_has_zeros_and_nulls(loader: Loader) -> None:
    sold(loader, "M-1", purchase_date=NOW - 100 * DAY)
    found = card(loader)
    numbers = {
        "orders",
        "orders_cancelled",
        "orders_due",
        "orders_late",
        "shipments_judged",
        "shipments_valid",
    }
    assert {name for name, value in found.items() if value == 0} == numbers
    assert all(value is None for name, value in found.items() if name.endswith(("_rate", "_ok")))


def many(loader: Loader, count: int, late: int, cancelled: int, invalid: int) -> None:
    """That many orders; the first of them late, cancelled and with a wrong number, as many as asked for."""
    for n in range(count):
        day = date(2026, 6, 21) if n < late else date(2026, 6, 12)
        check = "invalid" if n < invalid else "valid"
        sold(
            loader, f"M-{n}", day, checks=(check,), units_cancelled=1 if n < cancelled else 0, units_shipped=1
        )


def test_exactly_at_the_limits_of_amazon_is_not_within_them(loader: Loader) -> None:
    many(loader, 200, late=8, cancelled=5, invalid=10)  # 4 %, 2.5 %, 95 %
    found = card(loader)
    assert (found["late_rate"], found["cancel_rate"], found["valid_tracking_rate"]) == (0.04, 0.025, 0.95)
    assert {found[f"amazon_{name}_ok"] for name in ("late", "cancel", "tracking")} == {False}


def test_exactly_at_the_limits_of_walmart_is_within_them(loader: Loader) -> None:
    many(loader, 100, late=10, cancelled=2, invalid=1)  # 90 %, 2 %, 99 %
    found = card(loader)
    assert (found["on_time_rate"], found["cancel_rate"], found["valid_tracking_rate"]) == (0.9, 0.02, 0.99)
    assert {found[f"walmart_{name}_ok"] for name in ("on_time", "cancel", "tracking")} == {True}
    assert found["amazon_late_ok"] is False


def test_a_little_better_or_worse_than_the_limits(loader: Loader) -> None:
    many(loader, 52, late=2, cancelled=1, invalid=2)  # 3.8 %, 1.9 %, 96.2 %
    found = card(loader)
    verdicts = {name: value for name, value in found.items() if name.endswith("_ok")}
    assert verdicts.pop("walmart_tracking_ok") is False
    assert set(verdicts.values()) == {True}


def test_sellers_do_not_mix(loader: Loader) -> None:
    sold(loader, "M-1", date(2026, 6, 21))
    sold(loader, "M-1", date(2026, 6, 12), seller_id="S2")
    assert (card(loader)["orders_late"], card(loader, seller="S2")["orders_late"]) == (1, 0)
    assert card(loader, seller="S2")["shipments_judged"] == 1


def test_the_pages_get_the_figures_of_the_views(loader: Loader) -> None:
    many(loader, 7, late=2, cancelled=1, invalid=1)
    sold(loader, "M-open")
    sold(loader, "M-old", seller_id="S2", purchase_date=NOW - 100 * DAY)
    sold(loader, "M-sent", date(2026, 6, 12), seller_id="S3")
    late = Counter(row["seller_id"] for row in ask(loader, LATE_ORDERS))
    assert late == {"S1": 1, "S2": 1}
    expected = [
        {name: late[row["seller_id"]] if name == "late_orders" else row[name] for name in FIGURES}
        for row in ask(loader, SELLER_SCORECARDS)
        if row["window_days"] == 30
    ]
    found = loader.session.scorecards(FIGURES, NOW)
    assert sorted(found, key=lambda row: row["seller_id"]) == expected
    assert len(expected) == 3
