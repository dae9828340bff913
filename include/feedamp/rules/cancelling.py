"""PURE: whether a delivered CANCELLED may be sent, and how fresh the read must be that allows it (contract 7.1).

`place` asks just before it sends; a delivered CANCELLED is held at once if the stored snapshot shows shipped units
(`rules/intake.py`). What happens if the order cannot be read: `steps/place_orders/seller_batch.py`.
Whether an order is closed as CANCELLED: `rules/closing.py`; that it is read alone once more before that:
`steps/process_fulfillments/close.py`.
"""

from datetime import datetime

from feedamp.models import Snapshot
from feedamp.rules.order import CANCELLED, SHIPPED
from feedamp.rules.units import units_shipped

# Longest time between reading an order and sending a change that a seller's update in between would make wrong.
STILL_FRESH_S = 10.0
# If the rate limit delays CANCELLED too long, the order is read again, this often in total.
READS_BEFORE_CANCELLED = 3


def is_fresh(read_at: datetime, *, sent_at: datetime) -> bool:
    """Whether a change that was decided on a read at `read_at` may be sent at `sent_at`."""
    return (sent_at - read_at).total_seconds() <= STILL_FRESH_S


def units_against_cancelling(snapshot: Snapshot) -> int | None:
    """Shipped units if the order must be held because the seller has shipped it; None if CANCELLED may be sent.

    0 if FeedAMP shows the order as SHIPPED without units.
    """
    if snapshot.marketplace_state == CANCELLED:
        return None  # an earlier PUT got no answer; repeating it records the state
    shipped = units_shipped(snapshot.fulfillments)
    return shipped if shipped or snapshot.marketplace_state == SHIPPED else None
