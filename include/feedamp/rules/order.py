"""PURE: an order of the ledger, and the legal changes of its `marketplace_state` (contract 7.1).

Phases: `to_place` (a PUT is due), `settled` (accepted = desired), `held` (a conflict, action required), `refused`
(FeedAMP refused it; waits for new input), `never_placed` (cancelled before the first PUT), `closed`.

`next_try_at`: when `place` may try again; if nothing is to be sent, when the order is to be read by number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from feedamp.models import MarketplaceState
from feedamp.rules.stored_body import FULL

PENDING = MarketplaceState.PENDING
AWAITING_SHIPMENT = MarketplaceState.AWAITING_SHIPMENT
SHIPPED = MarketplaceState.SHIPPED
CANCELLED = MarketplaceState.CANCELLED
COMPLETE = "COMPLETE"  # FeedAMP's own word for closed (contract 7.1)

# Contract Q25: which other changes FeedAMP permits is unknown, so none of them is requested.
LEGAL = frozenset(
    {
        (PENDING, AWAITING_SHIPMENT),
        (PENDING, CANCELLED),
        (AWAITING_SHIPMENT, SHIPPED),
        (AWAITING_SHIPMENT, CANCELLED),
    }
)


def may_follow(before: str, after: str) -> bool:
    """Whether the change from one state to another is legal. PENDING reaches SHIPPED only through AWAITING_SHIPMENT."""
    return (before, after) in LEGAL


@dataclass(frozen=True)
class LedgerOrder:
    """One order of the ledger, placed from here or adopted from FeedAMP.

    `body` is the PUT body without `marketplace_state`; it holds customer fields. If `body_kind` is not `FULL`, `body`
    holds only part of it. `body_hash` is always the hash of the full body, and empty if none was ever delivered.
    `placed_at` is when FeedAMP first accepted the order; for an adopted order it equals `adopted_at`.
    `closed_units` holds line -> (shipped, cancelled) from the newest snapshot of a closed order; None if unknown.
    """

    seller_id: str
    mp_order_number: str
    phase: str
    body: dict[str, Any] = field(repr=False)
    body_hash: str
    desired_state: str
    accepted_state: str | None
    delivered: tuple[str, ...]
    purchase_date: datetime
    source: str
    source_row: int
    row_hash: str
    taken_at: datetime
    reason: str | None = None
    conflicting_state: str | None = None
    next_try_at: datetime | None = None
    attempts: int = 0
    first_put_at: datetime | None = None
    placed_at: datetime | None = None
    closing_state: str | None = None
    closing_at: datetime | None = None
    closed_at: datetime | None = None
    body_kind: str = FULL
    adopted_at: datetime | None = None
    ended_at: datetime | None = None
    missing_since: datetime | None = None
    closed_units: Mapping[str, tuple[int, int]] | None = None
    closed_units_shipped: int | None = None
    closed_units_at: datetime | None = None
    acknowledged_shipped: int | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    acknowledge_reason: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """(seller_id, mp_order_number)."""
        return self.seller_id, self.mp_order_number

    @property
    def ordered(self) -> dict[str, int]:
        """Ordered units by line, from the placed body or, for an order adopted without one, as FeedAMP shows them."""
        return {line["mp_line_number"]: int(line["quantity"]) for line in self.body["order_lines"]}

    @property
    def has_body(self) -> bool:
        """The full body is stored, so it can be sent."""
        return self.body_kind == FULL

    @property
    def shipped_though_cancelled(self) -> int:
        """Units that the seller shipped although the order was closed as CANCELLED, acknowledged or not."""
        # Does not count an order that another system had closed before it was adopted.
        was_closed_here = self.closed_at is not None or self.adopted_at is None
        is_cancelled = self.phase == "closed" and self.accepted_state == MarketplaceState.CANCELLED
        return (self.closed_units_shipped or 0) if was_closed_here and is_cancelled else 0

    @property
    def next_state(self) -> str:
        """The state to send next. An order that FeedAMP has as PENDING is sent as AWAITING_SHIPMENT before SHIPPED."""
        is_released = self.accepted_state not in (None, PENDING)
        return (
            str(AWAITING_SHIPMENT)
            if self.desired_state == SHIPPED and not is_released
            else self.desired_state
        )

    def is_missing(self, now: datetime) -> bool:
        """Whether FeedAMP did not have the order when last asked, and the order waits for a PUT or its next read."""
        if self.missing_since is None:
            return False
        return self.phase == "to_place" or self.next_try_at is None or self.next_try_at > now

    def put_body(self, marketplace_state: str) -> dict[str, Any]:
        """The first accepted body with only the state replaced (contract 7.4).

        Raises:
            ValueError: the full body is not stored; an incomplete one must never be sent.
        """
        if not self.has_body:
            raise ValueError(f"order {self.mp_order_number} has no body that could be sent")
        return {**self.body, "marketplace_state": str(marketplace_state)}

    def but(self, **changes: Any) -> LedgerOrder:
        """The same order with some fields changed."""
        return replace(self, **changes)
