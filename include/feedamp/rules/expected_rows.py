"""PURE: derives from the ledger which rows lake and warehouse must hold, and which rows a repair writes.

The ledger stores when FeedAMP first accepted an order, which state it accepted last, and the closing. The states in
between, and the runs that sent them, are stored only in `placements`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from feedamp.rules.order import AWAITING_SHIPMENT, OPEN_PHASES, PENDING, Phase
from feedamp.tables import CLOSURES, ORDERS, PLACEMENTS, Row

_OPEN_STATES = (PENDING, AWAITING_SHIPMENT)


@dataclass(frozen=True)
class Difference:
    """One row or file that one store has and another lacks.

    `key` names it within its table: seller and order number, an id, or the path of a manifest.
    """

    table: str
    seller_id: str | None
    key: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class Expected:
    """A row that a table must hold, given by the columns to search for."""

    table: str
    row: Row


@dataclass(frozen=True, slots=True)
class LedgerFact:
    """One order of the ledger without its body; `read_at` is when its snapshot was read."""

    seller_id: str
    mp_order_number: str
    phase: Phase
    accepted_state: str | None
    placed_at: datetime | None
    first_put_at: datetime | None
    taken_at: datetime
    adopted_at: datetime | None
    closing_state: str | None
    closed_at: datetime | None
    read_at: datetime | None

    @property
    def key(self) -> Row:
        return {"seller_id": self.seller_id, "mp_order_number": self.mp_order_number}

    @property
    def is_open(self) -> bool:
        """The order is open, so the state stores its snapshots."""
        return self.phase in OPEN_PHASES and self.first_put_at is not None

    @property
    def was_placed(self) -> bool:
        """The ledger has recorded that FeedAMP accepted a PUT of this order.

        False for an adopted order. Also False if the PUT was never answered and a reconciliation found the order at
        FeedAMP: then `placed_at` is the moment of the first PUT or of the intake.
        """
        return (
            self.placed_at is not None
            and self.adopted_at is None
            and self.placed_at not in (self.first_put_at, self.taken_at)
        )

    @property
    def closed_by_us(self) -> bool:
        """`close` sent the final state."""
        return self.closed_at is not None and self.closing_state == self.accepted_state

    @property
    def accepted_by_put(self) -> bool:
        """`place` sent the state that FeedAMP accepted last, even if a reconciliation has recorded it since."""
        if self.closed_at is not None:
            return not self.closed_by_us
        return self.was_placed and self.phase != Phase.CLOSED and self.accepted_state in _OPEN_STATES


def expected_rows(fact: LedgerFact) -> Iterator[Expected]:
    """The rows of `placements`, `closures` and `orders` that must exist for an order of the ledger.

    The row of `orders` includes `extracted_at` for an open order: the time of its snapshot, or null without one.
    """
    if fact.accepted_by_put:
        yield Expected(PLACEMENTS.name, {**fact.key, "marketplace_state": fact.accepted_state})
    elif fact.was_placed:
        yield Expected(PLACEMENTS.name, fact.key)
    if fact.closed_by_us:
        yield Expected(CLOSURES.name, fact.key)
    if fact.is_open and (fact.read_at is not None or fact.placed_at is not None):
        yield Expected(ORDERS.name, {**fact.key, "extracted_at": fact.read_at})
    elif fact.placed_at is not None:
        yield Expected(ORDERS.name, fact.key)


def placements_to_restore(fact: LedgerFact, *, has_any: bool) -> list[Row]:
    """The rows of `placements` that the ledger can restore; only the last state if the order already has a row.

    `placed_at` is when FeedAMP first accepted the order. For a later open state that is only a lower bound, so a
    restored row must not replace an existing one.
    """
    rows: list[Row] = []
    if fact.was_placed and not has_any:
        is_open = fact.accepted_state in _OPEN_STATES
        first = fact.accepted_state if is_open else str(AWAITING_SHIPMENT)
        rows.append({**fact.key, "marketplace_state": first, "placed_at": fact.placed_at})
    if fact.accepted_by_put and all(row["marketplace_state"] != fact.accepted_state for row in rows):
        moment = fact.closed_at or fact.placed_at
        rows.append({**fact.key, "marketplace_state": fact.accepted_state, "placed_at": moment})
    return rows
