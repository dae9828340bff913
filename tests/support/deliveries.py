"""An order as it is delivered, as it came in, and as FeedAMP accepted it: what `rules/intake.py` is asked about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from order_samples import good_order

from feedamp.inbox import OrderRow
from feedamp.rules.intake import ObservedState, admit
from feedamp.rules.order import AWAITING_SHIPMENT, LedgerOrder

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
EARLIER = datetime(2026, 3, 9, tzinfo=UTC)
NOTHING_SEEN = ObservedState()
TWO_SHIPPED = ObservedState(units_shipped=2)


def row(state: str = AWAITING_SHIPMENT, *, source: str = "new.jsonl", **changes: Any) -> OrderRow:
    body = good_order(marketplace_state=str(state), **changes)
    return OrderRow(source, 7, 1, f"hash of {source}", "raw", "S1", "M-1", body)


def taken(state: str = AWAITING_SHIPMENT, **changes: Any) -> LedgerOrder:
    """An order that came in once as `state`, with these fields in the ledger since."""
    order = admit(row(state, source="old.jsonl"), None, NOTHING_SEEN, now=EARLIER).order
    assert order is not None
    return replace(order, **changes)


def placed(state: str = AWAITING_SHIPMENT, **changes: Any) -> LedgerOrder:
    """An order that FeedAMP has accepted as `state`."""
    return taken(
        state,
        **{"phase": "settled", "accepted_state": str(state), "first_put_at": EARLIER, "placed_at": EARLIER}
        | changes,
    )
