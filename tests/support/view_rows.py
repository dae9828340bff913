"""Orders put into a warehouse by hand, and what its views answer as of one moment."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from manifests import Loader

from feedamp.warehouse.views import View

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
SHOWN_NOW = "TIMESTAMP WITH TIME ZONE '2026-06-30 12:00:00+00'"
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
LIMIT = datetime(2026, 6, 20, 18, tzinfo=UTC)


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
