"""PURE: adopts an order that is at FeedAMP but was never placed from this ledger (contract 7.4, Q27)."""

from datetime import datetime

from feedamp.models import MarketplaceState, Order
from feedamp.rules.closing import final_state
from feedamp.rules.order import AWAITING_SHIPMENT, PENDING, LedgerOrder, Phase
from feedamp.rules.stored_body import OBSERVED, REDACTED, observed_body, redacted_body

ADOPTED = "adopted"  # the source of an order that did not come from an inbox row
# Used where FeedAMP shows no marketplace_state (Q12). A seller's actions never close an order (contract 7.1), so each of
# these statuses means an open order.
_STATE_OF_STATUS = {
    "PENDING": PENDING,
    **dict.fromkeys(("ORDERED", "IN_PROGRESS", "FULFILLED", "CANCELLED"), AWAITING_SHIPMENT),
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
    is_final = order.is_final
    state = final_state(order.snapshot()) if is_final else _open_state(order)
    if state is None:
        return "FeedAMP shows no marketplace_state that is known"
    body = observed_body(order)
    return LedgerOrder(
        seller_id=seller_id,
        mp_order_number=order.mp_order_number,
        phase=Phase.CLOSED if is_final else Phase.SETTLED,
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


def _open_state(order: Order) -> MarketplaceState | None:
    if order.marketplace_state is None:
        return _STATE_OF_STATUS.get(order.status or "")
    return (
        MarketplaceState(order.marketplace_state)
        if order.marketplace_state in (PENDING, AWAITING_SHIPMENT)
        else None
    )
