"""PURE: which rows lake and warehouse must hold for what the ledger knows, and which rows a repair writes.

The ledger keeps the first moment that FeedAMP accepted an order, the state that it accepted last, and the closing;
states in between, and which run sent them, stand in `placements` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from feedamp.rules.order import AWAITING_SHIPMENT, PENDING
from feedamp.tables import CLOSURES, ORDERS, PLACEMENTS, Row

_OPEN_STATES = (PENDING, AWAITING_SHIPMENT)
_OPEN_PHASES = ("to_place", "settled", "held")


@dataclass(frozen=True)
class Difference:
    """One thing that one store knows and another lacks.

    `key` names it within its table: seller and order number, an id, or the path of a manifest.
    """

    table: str
    seller_id: str | None
    key: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class Expected:
    """A row that a table must hold, by the columns that it is looked for with."""

    table: str
    row: Row


@dataclass(frozen=True, slots=True)
class LedgerFact:
    """What the state knows of one order without its body; `read_at` is that of its snapshot."""

    seller_id: str
    mp_order_number: str
    phase: str
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
        """Its seller and number, as columns."""
        return {"seller_id": self.seller_id, "mp_order_number": self.mp_order_number}

    @property
    def is_open(self) -> bool:
        """Snapshots of it are kept in the state."""
        return self.phase in _OPEN_PHASES and self.first_put_at is not None

    @property
    def was_placed(self) -> bool:
        """An answer of FeedAMP to our PUT is on record.

        Not so if it was adopted, or if a reconciliation found it open that had never got an answer: that one counts as
        placed since its first PUT or its intake.
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
        """The state that FeedAMP accepted last was sent by `place`; a reconciliation may have taken it over since."""
        if self.closed_at is not None:
            return not self.closed_by_us
        return self.was_placed and self.phase != "closed" and self.accepted_state in _OPEN_STATES


def expected_rows(fact: LedgerFact) -> Iterator[Expected]:
    """Rows of `placements`, `closures` and `orders` that an order must have, by its ledger row.

    The row of `orders` is looked for with `extracted_at` where the state tells what it must be: that of the snapshot,
    or null for an open order without one.
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
    """Rows of `placements` as far as the ledger knows them; only the last state if the order has any row already.

    `placed_at` is the moment of the first acceptance, which for a later open state is only the earliest it can have
    been; so nothing that is there gives way to it.
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
