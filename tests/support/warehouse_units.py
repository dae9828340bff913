"""What the warehouse must say about units: they add up, and in quiet times they are what FeedAMP shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from closing_oracle import line_units
from env import Env

FINAL = ("SHIPPED", "CANCELLED")


def units_add_up(env: Env) -> None:
    """shipped + cancelled + pending - over = ordered, by line and by order, and pending is never below 0."""
    per_line = env.rows(
        "SELECT mp_order_number, quantity, units_shipped, units_cancelled, units_pending FROM order_lines"
    )
    for _, ordered, shipped, cancelled, pending in per_line:
        over = max(0, shipped + cancelled - ordered)
        assert pending >= 0
        assert shipped + cancelled + pending - over == ordered
    for number, ordered, shipped, cancelled, pending, over in env.rows(
        "SELECT mp_order_number, units_ordered, units_shipped, units_cancelled, units_pending, units_over FROM orders"
    ):
        assert shipped + cancelled + pending - over == ordered
        lines = [row[1:] for row in per_line if row[0] == number]
        assert (ordered, shipped, cancelled, pending) == tuple(map(sum, zip(*lines, strict=True)))
    parts = env.rows(
        """SELECT mp_order_number, mp_line_number, sum(shipped), sum(cancelled) FROM (
            SELECT mp_order_number, mp_line_number, quantity AS shipped, 0 AS cancelled FROM shipments
            UNION ALL SELECT mp_order_number, mp_line_number, 0, quantity FROM cancellations
        ) WHERE shipped > 0 OR cancelled > 0 GROUP BY ALL"""
    )
    counted = env.rows(
        "SELECT mp_order_number, mp_line_number, units_shipped, units_cancelled FROM order_lines "
        "WHERE units_shipped + units_cancelled > 0"
    )
    assert sorted(parts) == sorted(counted), "the rows of its parcels are not what a line counts"


def shows_the_truth(env: Env, truth: Mapping[str, Any]) -> None:
    """Every line with the units and the state that FeedAMP holds, every parcel and every cancellation."""
    found = env.rows(
        "SELECT mp_order_number, mp_line_number, quantity, order_lines.units_shipped, order_lines.units_cancelled, "
        "marketplace_state, closed_at IS NOT NULL FROM order_lines JOIN orders USING (seller_id, mp_order_number)"
    )
    expected = [
        (number, line, *counts, order["marketplace_state"], order["marketplace_state"] in FINAL)
        for number, order in truth.items()
        for line, counts in line_units(order).items()
    ]
    assert sorted(found) == sorted(expected)
    for table, name in (("shipments", "carrier"), ("cancellations", "reason")):
        rows = env.rows(f"SELECT mp_order_number, mp_line_number, quantity, {name} FROM {table}")
        entries = [
            (number, entry["mp_line_number"], _whole(part["quantity"]), part[name])
            for number, order in truth.items()
            for entry in order["fulfillments"]
            for part in entry[table]
        ]
        assert sorted(map(repr, rows)) == sorted(map(repr, entries))


def _whole(quantity: Any) -> int | None:
    return quantity if isinstance(quantity, int) else None
