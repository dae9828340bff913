"""PURE: counts the units of each line that were ordered, shipped or cancelled, are still open, or are too many."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from feedamp.models import Cancellation, LineFulfillment, Shipment


class LineUnits(NamedTuple):
    """Units of one line; shipped + cancelled + pending - over = ordered."""

    ordered: int
    shipped: int = 0
    cancelled: int = 0

    @property
    def pending(self) -> int:
        """Ordered units that are neither shipped nor cancelled, never below 0."""
        return max(0, self.ordered - self.shipped - self.cancelled)

    @property
    def over(self) -> int:
        """Units shipped or cancelled beyond what was ordered."""
        return max(0, self.shipped + self.cancelled - self.ordered)

    @property
    def settled(self) -> bool:
        """Shipped and cancelled units add up to exactly the ordered units."""
        return self.shipped + self.cancelled == self.ordered


def shipped_and_cancelled(fulfillments: Iterable[LineFulfillment]) -> tuple[dict[str, int], dict[str, int]]:
    """Shipped units by line, with each line that has an entry, and cancelled units by line.

    Only whole quantities above zero are counted; any other quantity is a `bad_quantity` finding.
    """
    shipped: dict[str, int] = {}
    cancelled: dict[str, int] = {}
    for entry in fulfillments:
        line = entry.mp_line_number
        shipped[line] = shipped.get(line, 0) + _counted(entry.shipments)
        if entry.cancellations:
            cancelled[line] = cancelled.get(line, 0) + _counted(entry.cancellations)
    return shipped, cancelled


def added_up(lines: int, of: Iterable[int], parts: Iterable[Shipment | Cancellation]) -> list[int]:
    """What `shipped_and_cancelled` counts for each of so many lines; `of` has the position of the line of each part."""
    units = [0] * lines
    for line, part in zip(of, parts, strict=True):
        if part.quantity is not None and part.quantity > 0:
            units[line] += part.quantity
    return units


def count_units(ordered: Mapping[str, int], fulfillments: Iterable[LineFulfillment]) -> dict[str, LineUnits]:
    """Units by line, in the order of `ordered`, then lines that were fulfilled without being ordered."""
    shipped, cancelled = shipped_and_cancelled(fulfillments)
    units = {
        line: LineUnits(count, shipped.get(line, 0), cancelled.get(line, 0))
        for line, count in ordered.items()
    }
    for line, count in shipped.items():
        if line not in units:
            units[line] = LineUnits(0, count, cancelled.get(line, 0))
    return units


def _counted(parts: Iterable[Shipment | Cancellation]) -> int:
    units = 0
    for part in parts:
        if part.quantity is not None and part.quantity > 0:
            units += part.quantity
    return units


def units_shipped(fulfillments: Iterable[LineFulfillment]) -> int:
    """Shipped units over all lines."""
    return sum(_counted(entry.shipments) for entry in fulfillments)
