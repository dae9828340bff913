"""The last lines of a reconciliation's log: the first differences, and a table that counts all of them by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from feedamp.rules.comparison import Difference
from feedamp.rules.failure_summary import counted

ROWS_SHOWN = 50
# Sellers type these in, so they are stored but not logged.
_NOT_FOR_THE_LOG = ("tracking_number", "carrier", "reason")


class DifferenceTable:
    """Counts differences by kind and keeps the first 50; its memory does not grow with their number."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()
        self.compared = 0
        self.changed = 0
        self.not_extracted = 0
        self._first: list[str] = []

    def add(self, seller_id: str, mp_order_number: str, differences: Iterable[Difference]) -> None:
        """Counts the differences of an order."""
        for difference in differences:
            self.found[difference.kind] += 1
            if len(self._first) < ROWS_SHOWN:
                self._first.append(_line(seller_id, mp_order_number, difference))

    def mark_repaired(self, differences: Iterable[Difference]) -> None:
        """Counts differences that were added before as repaired."""
        self.repaired.update(difference.kind for difference in differences)

    def lines(self) -> list[str]:
        """Lines for the end of the log."""
        if not self.found:
            return [f"{counted(self.compared, 'order')} compared, no difference{self._left_out()}"]
        width = max(len(kind) for kind in (*self.found, "all"))
        rows = [
            (kind, self.found[kind], self.repaired[kind], self.found[kind] - self.repaired[kind])
            for kind in sorted(self.found)
        ]
        all_found, all_repaired = self.found.total(), self.repaired.total()
        rows.append(("all", all_found, all_repaired, all_found - all_repaired))
        return [
            *self._first,
            f"{counted(self.compared, 'order')} compared{self._left_out()}",
            f"{'field':<{width}}  {'found':>8}  {'repaired':>8}  {'left':>8}",
            *(
                f"{kind:<{width}}  {found:>8}  {repaired:>8}  {left:>8}"
                for kind, found, repaired, left in rows
            ),
        ]

    def _left_out(self) -> str:
        changed = f", {self.changed} left out because they changed meanwhile" if self.changed else ""
        if not self.not_extracted:
            return changed
        return f"{changed}, {self.not_extracted} not extracted yet: their sellers changed them after the last extraction"


def _line(seller_id: str, mp_order_number: str, difference: Difference) -> str:
    hidden = difference.path[-1] in _NOT_FOR_THE_LOG
    values = [
        "(not shown)" if hidden and value else value
        for value in (difference.ledger, difference.feedamp, difference.warehouse)
    ]
    ledger, feedamp, warehouse = values
    return (
        f"{seller_id} {mp_order_number} {difference.field}: "
        f"ledger {ledger}, FeedAMP {feedamp}, warehouse {warehouse}"
    )
