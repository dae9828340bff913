"""The sandbox's orders by seller, and the values computed from them (contract 7.1, 7.2)."""

from __future__ import annotations

import bisect
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from feedamp_sandbox.wire import Json, Refusal

CLOSED_STATES = ("SHIPPED", "CANCELLED")
CHANGES_KEPT = 8


@dataclass(slots=True)
class StoredOrder:
    """One order.

    `body` is the first accepted PUT. `fulfillments` has entries of lines with `shipments` and `cancellations`; simulated
    sellers write one for each line that they work on, a test may write any number.
    `sort_key` determines the position in lists, in an order that no client can rely on (Q11).
    `by_hand`: a test plays the seller.
    `past`: earlier versions of the order, each with the time until which it was current (exclusive), oldest first; at
    most the last 8.
    """

    sort_key: str
    body: Json
    marketplace_state: str
    imported_at: datetime
    seller_updated_at: datetime | None = None
    acknowledged: bool = False
    is_marketplace_fulfilled: bool = False
    fulfillments: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)
    rounds: int = 0
    moves_done: int = 0
    by_hand: bool = False
    past: list[tuple[datetime, StoredOrder]] = field(default_factory=list, repr=False)

    def remember(self, now: datetime) -> None:
        """Stores the current version of the order before it changes."""
        version = replace(self, errors=list(self.errors), past=[])
        self.past = [*self.past[1 - CHANGES_KEPT :], (now, version)]

    def as_of(self, moment: datetime) -> StoredOrder | None:
        """The order as it was at that moment; None if it was not imported yet."""
        if self.imported_at > moment:
            return None
        return next((version for until, version in self.past if until > moment), self)

    def updated_by_seller(self, now: datetime) -> None:
        """Records an update by the seller that changes no units; acknowledges the order."""
        self.remember(now)
        self.acknowledged, self.seller_updated_at = True, now

    @property
    def number(self) -> str:
        return str(self.body["mp_order_number"])

    @property
    def closed(self) -> bool:
        return self.marketplace_state in CLOSED_STATES

    @property
    def ordered(self) -> dict[str, int]:
        """Ordered units by line."""
        return {line["mp_line_number"]: line["quantity"] for line in self.body["order_lines"]}

    def units(self, part: str) -> dict[str, int]:
        """Units by line in `part`, which is `shipments` or `cancellations`; invalid quantities count as 0."""
        found: Counter[str] = Counter()
        for entry in self.fulfillments:
            found[entry["mp_line_number"]] += line_units(entry, part)
        return found

    @property
    def units_shipped(self) -> int:
        return sum(self.units("shipments").values())

    def pending(self) -> dict[str, int]:
        """Open units by ordered line; negative if more units were shipped and cancelled than ordered."""
        shipped, cancelled = self.units("shipments"), self.units("cancellations")
        return {n: q - shipped.get(n, 0) - cancelled.get(n, 0) for n, q in self.ordered.items()}

    @property
    def all_units_in(self) -> bool:
        return all(quantity <= 0 for quantity in self.pending().values())

    @property
    def status(self) -> str:
        """FeedAMP's status (7.1). An open error reopens a fulfilled order; this is an assumption (Q24)."""
        if self.closed:
            return "COMPLETE"
        if self.marketplace_state == "PENDING":
            return "PENDING"
        if self.all_units_in and not self.errors:
            return "FULFILLED" if self.units_shipped else "CANCELLED"
        return "IN_PROGRESS" if self.acknowledged else "ORDERED"

    def write_fulfillments(self, fulfillments: list[Json], now: datetime) -> None:
        """Replaces the snapshot as the seller would; errors of changed lines, and of the whole order, are removed."""
        self.remember(now)
        before, after = by_line(self.fulfillments), by_line(fulfillments)
        changed = {n for n in {*before, *after} if before.get(n) != after.get(n)}
        if changed:
            self.errors = [e for e in self.errors if e.get("mp_line_number") not in {*changed, None}]
        self.fulfillments, self.acknowledged, self.seller_updated_at = fulfillments, True, now


def by_line(fulfillments: Iterable[Json]) -> dict[str, list[Json]]:
    """Fulfillment entries by line number; a line may have several."""
    found: dict[str, list[Json]] = {}
    for entry in fulfillments:
        found.setdefault(entry["mp_line_number"], []).append(entry)
    return found


def line_units(entry: Json, part: str) -> int:
    """Units of one fulfillment entry; a quantity that is not a positive whole number counts as 0."""
    quantities = (item.get("quantity") for item in entry.get(part) or ())
    return sum(q for q in quantities if isinstance(q, int) and q > 0)


class Orders:
    """All orders of all sellers; a seller sees only its own. Not locked: the caller holds the sandbox's lock."""

    def __init__(self, seller_ids: Iterable[str], seed: int) -> None:
        self._seed = seed
        self._by_number: dict[str, dict[str, StoredOrder]] = {seller_id: {} for seller_id in seller_ids}
        self._sorted: dict[str, list[StoredOrder]] = {seller_id: [] for seller_id in self._by_number}

    @property
    def seller_ids(self) -> tuple[str, ...]:
        return tuple(self._by_number)

    def add(self, seller_id: str, body: Json, now: datetime) -> StoredOrder:
        number = body["mp_order_number"]
        sort_key = hashlib.sha256(f"{self._seed}:{number}".encode()).hexdigest()[:24]
        order = StoredOrder(sort_key, body, body["marketplace_state"], now)
        self._by_number[seller_id][number] = order
        bisect.insort(self._sorted[seller_id], order, key=lambda stored: stored.sort_key)
        return order

    def move(self, seller_id: str, order: StoredOrder, sort_key: str) -> None:
        stored = self._sorted[seller_id]
        del stored[next(at for at, other in enumerate(stored) if other is order)]
        order.sort_key = sort_key
        bisect.insort(stored, order, key=lambda other: other.sort_key)

    def find(self, seller_id: str, number: str) -> StoredOrder | None:
        return self._by_number[seller_id].get(number)

    def get(self, seller_id: str, number: str) -> StoredOrder:
        """The order; raises Refusal 404."""
        order = self.find(seller_id, number)
        if order is None:
            raise Refusal(404, ("NOT_FOUND", "this seller has no such order"))
        return order

    def of(self, seller_id: str, after: str = "") -> Iterator[StoredOrder]:
        """The seller's orders with a sort key above `after` (exclusive), sorted by it."""
        stored = self._sorted[seller_id]
        start = bisect.bisect_right(stored, after, key=lambda order: order.sort_key)
        for position in range(start, len(stored)):
            yield stored[position]
