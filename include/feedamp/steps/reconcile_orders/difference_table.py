"""The last lines of a reconciliation's log: the first differences, a table that counts all by kind, and one line of sums."""

from __future__ import annotations

from collections.abc import Iterable

from feedamp.rules.comparison import Difference
from feedamp.rules.reconciled_days import Counts
from feedamp.steps.step_log import aligned

ROWS_SHOWN = 50
# Sellers type these in, as they do the numbers of lines, so they are stored but not logged.
_NOT_FOR_THE_LOG = ("tracking_number", "carrier", "reason")


class DifferenceTable:
    """Counts differences by kind and keeps the first 50; its memory does not grow with their number."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.changed = 0
        self._first: list[str] = []

    def show(self, seller_id: str, mp_order_number: str, differences: Iterable[Difference]) -> None:
        """Adds the differences of an order to the first ones; `counts` is up to the caller."""
        for difference in differences:
            if len(self._first) < ROWS_SHOWN:
                self._first.append(_line(seller_id, mp_order_number, difference))

    def lines(self) -> list[str]:
        """Lines for the end of the log."""
        found, repaired, left = self.counts.differences, self.counts.repaired, self.counts.left
        changed = f", {self.changed} of them because they changed meanwhile" if self.changed else ""
        line = self.counts.line() + changed
        if not found:
            return [line]
        rows = [(kind, (found[kind], repaired[kind], left[kind])) for kind in sorted(found)]
        rows.append(("all", (found.total(), repaired.total(), left.total())))
        return [*self._first, *aligned(("field", "found", "repaired", "left"), rows), line]


def _line(seller_id: str, mp_order_number: str, difference: Difference) -> str:
    hidden = difference.path[-1] in _NOT_FOR_THE_LOG
    values = [
        "(not shown)" if hidden and value else value
        for value in (difference.ledger, difference.feedamp, difference.warehouse)
    ]
    ledger, feedamp, warehouse = values
    return (
        f"{seller_id} {mp_order_number} {difference.kind}: "
        f"ledger {ledger}, FeedAMP {feedamp}, warehouse {warehouse}"
    )
