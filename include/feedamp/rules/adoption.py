"""PURE: adopts an order that is at FeedAMP but was never placed from this ledger (contract 7.4, Q27)."""

from __future__ import annotations

from datetime import datetime

from feedamp.models import FINAL_STATES, MarketplaceState, Order
from feedamp.rules.order import (
    AWAITING_SHIPMENT,
    COMPLETE,
    PENDING,
    LedgerOrder,
)
from feedamp.rules.stored_body import (
    OBSERVED,
    REDACTED,
    observed_body,
    redacted_body,
)
from feedamp.rules.units import count_units

ADOPTED = "adopted"  # the source of an order that did not come from an inbox row
# Used where FeedAMP shows no marketplace_state (Q12). A seller's actions never close an order (contract 7.1), so each of
# these statuses means an open order.
_STATE_OF_STATUS = {
    "PENDING": PENDING,
    "ORDERED": AWAITING_SHIPMENT,
    "IN_PROGRESS": AWAITING_SHIPMENT,
    "FULFILLED": AWAITING_SHIPMENT,
    "CANCELLED": AWAITING_SHIPMENT,
}


def adopt(seller_id: str, order: Order, *, now: datetime) -> LedgerOrder | str:
    """The ledger's row for the order, or the reason why it cannot be adopted.

    An open order becomes `settled` in the state that FeedAMP shows, without a body that could be sent. A final order
    becomes `closed`: otherwise an inbox row that delivers it later would place it again as open.
    """
    if order.purchase_date is None:
        return "FeedAMP shows no purchase_date"
    quantities = [line.quantity for line in order.order_lines]
    numbers = {line.mp_line_number for line in order.order_lines}
    if not quantities or len(numbers) < len(quantities) or any((units or 0) < 1 for units in quantities):
        return "FeedAMP does not show how many units of which line were ordered"
    is_final = order.marketplace_state in FINAL_STATES or order.status == COMPLETE
    state = _final_state(order) if is_final else _open_state(order)
    if state is None:
        return "FeedAMP shows no marketplace_state that is known"
    body = observed_body(order)
    return LedgerOrder(
        seller_id=seller_id,
        mp_order_number=order.mp_order_number,
        phase="closed" if is_final else "settled",
        body=redacted_body(body) if is_final else body,
        body_kind=REDACTED if is_final else OBSERVED,
        body_hash="",
        desired_state=str(state),
        accepted_state=str(state),
        delivered=(),
        purchase_date=order.purchase_date,
        source=ADOPTED,
        source_row=0,
        row_hash="",
        taken_at=now,
        reason="closed before it was adopted" if is_final else None,
        # When FeedAMP accepted the order is unknown, so the days that it has been open are counted from its adoption.
        first_put_at=now,
        placed_at=now,
        adopted_at=now,
        ended_at=now if is_final else None,
    )


def _final_state(order: Order) -> MarketplaceState:
    if order.marketplace_state in FINAL_STATES:
        return MarketplaceState(order.marketplace_state)
    units = count_units({}, order.fulfillments or ()).values()
    return MarketplaceState.SHIPPED if any(line.shipped for line in units) else MarketplaceState.CANCELLED


def _open_state(order: Order) -> MarketplaceState | None:
    if order.marketplace_state is None:
        return _STATE_OF_STATUS.get(order.status or "")
    return (
        MarketplaceState(order.marketplace_state)
        if order.marketplace_state in (PENDING, AWAITING_SHIPMENT)
        else None
    )
