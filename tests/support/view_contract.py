"""What the views answer, over every engine: rows put in by hand, answers worked out by hand.

A test module of an engine imports these tests and brings the fixture `open_loader`, as for the merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from manifests import Loader

from feedamp.tables import Type
from feedamp.warehouse.structure import _normal
from feedamp.warehouse.views import (
    LATE_ORDERS,
    OPEN_FINDINGS_BY_AGE,
    SELLER_SCORECARDS,
    TIME_TO_SHIP,
    VIEWS,
    View,
)

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
SHOWN_NOW = "TIMESTAMP WITH TIME ZONE '2026-06-30 12:00:00+00'"
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
LIMIT = datetime(2026, 6, 20, 18, tzinfo=UTC)


@pytest.fixture
def loader(tmp_path: Path, open_loader: Callable[[Path], Loader]) -> Iterator[Loader]:
    with closing(open_loader(tmp_path)) as opened:
        yield opened


def put(loader: Loader, table: str, **values: Any) -> None:
    given = {name: value for name, value in values.items() if value is not None}
    places = ", ".join(f"${n + 1}" for n in range(len(given)))
    with loader.engine.transaction():
        loader.engine.execute(
            f"INSERT INTO feedamp.{table} ({', '.join(given)}) VALUES ({places})", list(given.values())
        )


def sold(
    loader: Loader, number: str, *shipped_on: date | None, checks: tuple[str, ...] = (), **changes: Any
) -> None:
    """An order of two units, wholly shipped if it has shipments and nothing else is said."""
    units = (
        {"units_shipped": 2, "units_pending": 0} if shipped_on else {"units_shipped": 0, "units_pending": 2}
    )
    values: dict[str, Any] = {
        "seller_id": "S1",
        "mp_order_number": number,
        "marketplace_state": "AWAITING_SHIPMENT",
        "is_marketplace_fulfilled": False,
        "purchase_date": NOW - 20 * DAY,
        "latest_ship_date": LIMIT,
        "units_ordered": 2,
        "units_cancelled": 0,
        **units,
        **changes,
    }
    put(loader, "orders", **values)
    for index, day in enumerate(shipped_on):
        check = checks[index] if checks else "valid"
        put(
            loader,
            "shipments",
            seller_id=values["seller_id"],
            mp_order_number=number,
            mp_line_number="1",
            shipment_index=index,
            shipped_date=day,
            tracking_check="unverified" if check == "no number" else check,
            tracking_number=None if check == "no number" else f"T{index}",
        )


def ask(loader: Loader, view: View) -> list[dict[str, Any]]:
    with loader.engine.transaction():
        rows = list(loader.engine.rows(view.select(SHOWN_NOW)))
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def card(loader: Loader, window_days: int = 30, seller: str = "S1") -> dict[str, Any]:
    [row] = [
        row
        for row in ask(loader, SELLER_SCORECARDS)
        if (row["seller_id"], row["window_days"]) == (seller, window_days)
    ]
    return row


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_is_there_with_its_columns_and_types(loader: Loader, view: View) -> None:
    wanted = {column.name: _normal(loader.engine.types[column.type]) for column in view.columns}
    with loader.engine.transaction():
        found = loader.engine.relations("feedamp")[view.name]
    assert {name: _normal(kind) for name, kind in found.items()} == wanted
    assert Type.MONEY not in {column.type for column in view.columns}
    assert loader.query(f"SELECT * FROM feedamp.{view.name}") == []
    assert ask(loader, view) == []


def test_the_views_count_from_now(loader: Loader) -> None:
    now = datetime.now(UTC)
    sold(loader, "M-1", purchase_date=now - 2 * DAY, latest_ship_date=now - 1 * DAY)
    [(hours,)] = loader.query("SELECT hours_late FROM feedamp.late_orders")
    assert 23.9 < hours < 24.5
    assert loader.query("SELECT orders FROM feedamp.seller_scorecards WHERE window_days = 30") == [(1,)]


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        pytest.param({}, True, id="nothing shipped"),
        pytest.param({"units_shipped": 1, "units_pending": 1}, True, id="partly shipped"),
        pytest.param({"latest_ship_date": NOW}, False, id="due at this very moment"),
        pytest.param({"latest_ship_date": NOW - INSTANT}, True, id="due a moment ago"),
        pytest.param({"latest_ship_date": None}, False, id="no day to ship by"),
        pytest.param({"units_shipped": 2, "units_pending": 0}, False, id="wholly shipped, not closed yet"),
        pytest.param({"marketplace_state": "PENDING"}, False, id="not released"),
        pytest.param({"marketplace_state": "CANCELLED"}, False, id="cancelled by the marketplace"),
        pytest.param({"marketplace_state": None}, True, id="of unknown state"),
        pytest.param({"is_marketplace_fulfilled": True}, False, id="shipped by the marketplace"),
        pytest.param({"is_marketplace_fulfilled": None}, True, id="not seen yet"),
        pytest.param({"units_ordered": 0}, False, id="nothing ordered"),
    ],
)
def test_an_order_is_late_to_ship(loader: Loader, changes: dict[str, Any], late: bool) -> None:
    sold(loader, "M-1", **changes)
    assert [row["mp_order_number"] for row in ask(loader, LATE_ORDERS)] == ["M-1"] * late


def test_a_late_order_says_by_how_many_hours(loader: Loader) -> None:
    sold(loader, "M-1", latest_ship_date=NOW - timedelta(hours=36, minutes=30))
    [row] = ask(loader, LATE_ORDERS)
    assert (row["hours_late"], row["units_ordered"], row["units_pending"]) == (36.5, 2, 2)


@pytest.mark.parametrize(
    ("shipped", "changes", "first", "last"),
    [
        pytest.param([date(2026, 6, 13)], {}, 3, 3, id="one shipment"),
        pytest.param([date(2026, 6, 15), date(2026, 6, 12)], {}, 2, 5, id="two shipments"),
        pytest.param(
            [date(2026, 6, 12)], {"units_shipped": 1, "units_pending": 1}, 2, None, id="partly shipped"
        ),
        pytest.param([date(2026, 6, 12), None], {}, 2, None, id="one shipment without a date"),
        pytest.param([date(2026, 6, 9)], {}, -1, -1, id="dated before the purchase"),
        pytest.param(
            [date(2026, 6, 11)],
            {"purchase_date": datetime(2026, 6, 10, 23, 59, tzinfo=UTC)},
            1,
            1,
            id="bought just before midnight",
        ),
    ],
)
def test_days_from_purchase_to_shipment(
    loader: Loader, shipped: list[date], changes: dict[str, Any], first: int, last: int | None
) -> None:
    sold(loader, "M-1", *shipped, **changes)
    [row] = ask(loader, TIME_TO_SHIP)
    assert (row["days_to_first_shipment"], row["days_to_last_shipment"]) == (first, last)


def test_an_order_without_a_dated_shipment_has_no_time_to_ship(loader: Loader) -> None:
    sold(loader, "M-1")
    sold(loader, "M-2", None)
    sold(loader, "M-3", date(2026, 6, 12), is_marketplace_fulfilled=True)
    assert ask(loader, TIME_TO_SHIP) == []


@pytest.mark.parametrize(
    ("bought", "in_30", "in_60"),
    [
        pytest.param(NOW, 1, 1, id="this very moment"),
        pytest.param(NOW + INSTANT, 0, 0, id="in the future"),
        pytest.param(NOW - 30 * DAY, 1, 1, id="exactly 30 days ago"),
        pytest.param(NOW - 30 * DAY - INSTANT, 0, 1, id="a moment more than 30 days ago"),
        pytest.param(NOW - 60 * DAY, 0, 1, id="exactly 60 days ago"),
        pytest.param(NOW - 60 * DAY - INSTANT, 0, 0, id="a moment more than 60 days ago"),
    ],
)
def test_a_window_holds_what_was_bought_in_it(
    loader: Loader, bought: datetime, in_30: int, in_60: int
) -> None:
    sold(loader, "M-1", purchase_date=bought)
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


def test_a_rate_of_valid_tracking_leaves_out_what_nobody_can_judge(loader: Loader) -> None:
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


def test_open_findings_are_counted_by_age(loader: Loader) -> None:
    ages = [
        timedelta(0),
        DAY,
        DAY + INSTANT,
        7 * DAY,
        7 * DAY + INSTANT,
        30 * DAY,
        30 * DAY + INSTANT,
        90 * DAY,
    ]
    for n, age in enumerate(ages):
        put(
            loader,
            "findings",
            finding_id=f"f{n}",
            seller_id="S1",
            kind="invalid_tracking",
            severity="error",
            state=("held", "to_report", "reported")[n % 3],
            found_at=NOW - age,
        )
    for n, state in enumerate(("resolved", "waived")):
        put(loader, "findings", finding_id=f"o{n}", seller_id="S1", kind="k", severity="error", state=state)
    [row] = ask(loader, OPEN_FINDINGS_BY_AGE)
    counts = [row[name] for name in ("findings", "up_to_1_day", "up_to_7_days", "up_to_30_days", "older")]
    assert counts == [8, 2, 2, 2, 2]
    assert (row["kind"], row["severity"], row["oldest_found_at"]) == (
        "invalid_tracking",
        "error",
        NOW - 90 * DAY,
    )
