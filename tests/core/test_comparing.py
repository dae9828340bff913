"""Ledger, FeedAMP and warehouse side by side."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from feedamp.comparing import Difference, compare, feedamp_view, ledger_view
from feedamp.models import Cancellation, LineFulfillment, Order, OrderLine, Shipment
from feedamp.state.ledger import LedgerOrder

MOMENT = datetime(2026, 3, 2, tzinfo=UTC)


def ours(**changes: Any) -> LedgerOrder:
    fields: dict[str, Any] = {
        "seller_id": "S1",
        "mp_order_number": "M-1",
        "phase": "settled",
        "body": {"order_lines": [{"mp_line_number": "A", "quantity": 2}]},
        "body_hash": "h",
        "desired_state": "AWAITING_SHIPMENT",
        "accepted_state": "AWAITING_SHIPMENT",
        "delivered": (),
        "purchase_date": MOMENT,
        "source": "a.jsonl",
        "source_row": 1,
        "row_hash": "h",
        "taken_at": MOMENT,
    }
    return LedgerOrder(**fields | changes)


def shown(quantity: int = 2, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "mp_order_number": "M-1",
        "marketplace_state": "AWAITING_SHIPMENT",
        "status": "IN_PROGRESS",
        "order_lines": (OrderLine(mp_line_number="A", quantity=quantity),),
        "fulfillments": (LineFulfillment(mp_line_number="A", shipments=(Shipment(quantity=1),)),),
    }
    return Order(**fields | changes)


def stored(**changes: str) -> dict[str, str]:
    """The warehouse's view when all three agree; keywords with `_of_A` are fields of line A."""
    view = dict(feedamp_view(shown()))
    for name, value in changes.items():
        view[f"order_lines[A].{name[:-5]}" if name.endswith("_of_A") else name] = value
    return view


@pytest.mark.parametrize(
    ("ledger", "feedamp", "warehouse", "expected"),
    [
        pytest.param(ours(), shown(), stored(), [], id="all three agree"),
        pytest.param(
            ours(accepted_state=None), shown(), stored(), [], id="a ledger without opinion on the state"
        ),
        pytest.param(
            ours(),
            None,
            stored(),
            [Difference("order", "present", "missing", "present")],
            id="FeedAMP does not know it",
        ),
        pytest.param(
            ours(),
            shown(),
            {},
            [Difference("order", "present", "present", "missing")],
            id="the warehouse does not know it",
        ),
        pytest.param(
            ours(),
            None,
            {},
            [Difference("order", "present", "missing", "missing")],
            id="only the ledger knows it",
        ),
        pytest.param(
            ours(accepted_state="SHIPPED"),
            shown(),
            stored(),
            [Difference("marketplace_state", "SHIPPED", "AWAITING_SHIPMENT", "AWAITING_SHIPMENT")],
            id="the ledger holds another state",
        ),
        pytest.param(
            ours(),
            shown(marketplace_state="SHIPPED"),
            stored(),
            [Difference("marketplace_state", "AWAITING_SHIPMENT", "SHIPPED", "AWAITING_SHIPMENT")],
            id="FeedAMP shows another state",
        ),
        pytest.param(
            ours(),
            shown(),
            stored(status="ORDERED"),
            [Difference("status", None, "IN_PROGRESS", "ORDERED")],
            id="the warehouse holds another status",
        ),
        pytest.param(
            ours(),
            shown(),
            stored(units_shipped_of_A="0"),
            [Difference("order_lines[A].units_shipped", None, "1", "0")],
            id="the warehouse misses a shipped unit",
        ),
        pytest.param(
            ours(),
            shown(quantity=3),
            stored(),
            [Difference("order_lines[A].quantity", "2", "3", "2")],
            id="FeedAMP shows another quantity",
        ),
        pytest.param(
            ours(),
            shown(status=None, marketplace_state=None),
            stored(),
            [],
            id="FeedAMP says nothing of states",
        ),
    ],
)
def test_a_difference_names_all_three_values(
    ledger: LedgerOrder, feedamp: Order | None, warehouse: dict[str, str], expected: list[Difference]
) -> None:
    assert compare(ledger, feedamp, warehouse) == expected


def test_cancelled_units_are_compared_too() -> None:
    line = LineFulfillment(mp_line_number="A", cancellations=(Cancellation(quantity=1),))
    [difference, _] = compare(ours(), shown(fulfillments=(line,)), stored())
    assert (difference.field, difference.feedamp) == ("order_lines[A].units_shipped", "0")


def test_the_ledger_speaks_only_of_what_it_knows_for_certain() -> None:
    assert ledger_view(ours(accepted_state=None)) == {"order": "present", "order_lines[A].quantity": "2"}
