"""What the views answer: rows put in by hand, answers worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from manifests import T0, Loader, order, snapshot
from view_rows import DAY, INSTANT, NOW, ask, put, sold

from feedamp.column_types import Type
from feedamp.models import LineFulfillment, Shipment
from feedamp.tables import Rows
from feedamp.warehouse.views import LATE_ORDERS, OPEN_FINDINGS_BY_AGE, TIME_TO_SHIP, VIEWS, View


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_is_there_with_its_columns_and_types(loader: Loader, view: View) -> None:
    wanted = {column.name: loader.engine.types[column.type] for column in view.columns}
    with loader.engine.transaction():
        found = loader.engine.relations("feedamp")[view.name]
    assert found == wanted
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
            id="purchased just before midnight",
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


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin"])
def test_no_view_depends_on_the_zone_of_the_session(loader: Loader, zone: str) -> None:
    # Before and after both zones have begun summer time.
    sold(
        loader,
        "M-1",
        purchase_date=datetime(2026, 3, 1, 4, tzinfo=UTC),
        latest_ship_date=datetime(2026, 3, 2, 5, tzinfo=UTC),
    )
    sold(loader, "M-2", NOW.date(), purchase_date=NOW - 30 * DAY)
    answers = []
    for name in ("UTC", zone):
        with loader.engine.transaction():
            loader.engine.execute(f"SET TimeZone = '{name}'")
        answers.append([ask(loader, view) for view in VIEWS])
    with loader.engine.transaction():
        loader.engine.execute("SET TimeZone = 'UTC'")
    assert answers[0] == answers[1]
    assert answers[0][0]


def test_tracking_is_counted_as_first_reported_and_as_it_is_now(loader: Loader) -> None:
    def reported(hours: float, *numbers: str | None) -> Rows:
        shipments = tuple(Shipment(quantity=1, carrier="UPS", tracking_number=number) for number in numbers)
        entry = LineFulfillment(mp_line_number="A", shipments=shipments)
        return snapshot(order(fulfillments=(entry,)), hours)

    first = reported(1, "1Z999AA10123456785", None, "1Z999AA10123456784", "1Z999AA10123456785")
    repaired = reported(30, "1Z999AA10123456784", "1Z999AA10123456784", "1Z999AA10123456784")
    loader.load(repaired, first)  # the older one comes late
    checks = "SELECT first_check, check_now FROM feedamp.shipment_reports ORDER BY shipment_index"
    assert loader.query(checks) == [
        ("invalid", "valid"),
        ("missing", "valid"),
        ("valid", "valid"),
        ("invalid", None),
    ]
    counts = "reported_on, shipments, judged_first, valid_first, valid_rate_first, judged_now, valid_now"
    day = loader.query(f"SELECT {counts}, valid_rate_now FROM feedamp.tracking_quality")
    assert day == [(T0.date(), 4, 4, 1, 0.25, 3, 3, 1.0)]
    loader.session.replace_all(loader.lake)
    assert loader.query(f"SELECT {counts}, valid_rate_now FROM feedamp.tracking_quality") == day
