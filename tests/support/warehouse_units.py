"""What the warehouse must say about units: they add up, and in quiet times they are what FeedAMP shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from closing_oracle import line_units
from house import House

FINAL = ("SHIPPED", "CANCELLED")


def units_add_up(house: House) -> None:
    """shipped + cancelled + pending - over = ordered, by line and by order, and pending is never below 0."""
    per_line = house.rows(
        "SELECT mp_order_number, quantity, units_shipped, units_cancelled, units_pending FROM order_lines"
    )
    for _, ordered, shipped, cancelled, pending in per_line:
        over = max(0, shipped + cancelled - ordered)
        assert pending >= 0
        assert shipped + cancelled + pending - over == ordered
    for number, ordered, shipped, cancelled, pending, over in house.rows(
        "SELECT mp_order_number, units_ordered, units_shipped, units_cancelled, units_pending, units_over FROM orders"
    ):
        assert shipped + cancelled + pending - over == ordered
        lines = [row[1:] for row in per_line if row[0] == number]
        assert (ordered, shipped, cancelled, pending) == tuple(map(sum, zip(*lines, strict=True)))


def shows_the_truth(house: House, truth: Mapping[str, Any]) -> None:
    """Every line with the units and the state that FeedAMP holds."""
    found = house.rows(
        "SELECT mp_order_number, mp_line_number, quantity, l.units_shipped, l.units_cancelled, "
        "marketplace_state, closed_at IS NOT NULL FROM order_lines l JOIN orders USING (seller_id, mp_order_number)"
    )
    expected = [
        (number, line, *counts, order["marketplace_state"], order["marketplace_state"] in FINAL)
        for number, order in truth.items()
        for line, counts in line_units(order).items()
    ]
    assert sorted(found) == sorted(expected)
