"""PURE: how much of an order's body the ledger stores, and what remains of a redacted one.

- `FULL`: the body as it was delivered.
- `OBSERVED`: the fields that FeedAMP shows of an adopted order; used for checks and comparisons, and never sent.
- `REDACTED`: only order number, purchase date, and number, SKU and quantity of each line, for an order that has ended.

Which orders are redacted, and when: `state/retention.py`.
"""

from collections.abc import Mapping
from typing import Any

from feedamp.models import Order
from feedamp.order_body import Reason
from feedamp.rules.failure_summary import counted
from feedamp.rules.shared_tracking import RECIPIENT

# The values are those that the state stores.
FULL = "whole"
OBSERVED = "seen"
REDACTED = "reduced"

Body = dict[str, Any]
_LINE = ("mp_line_number", "sku", "quantity")
_ORDER = ("mp_order_number", "purchase_date")


def observed_body(order: Order) -> Body:
    """The order as FeedAMP shows it, in the shape of a PUT body; fields that it does not show are left out."""
    shown: Body = {
        "mp_order_number": order.mp_order_number,
        "sales_channel": order.sales_channel,
        "purchase_date": f"{order.purchase_date:%Y-%m-%dT%H:%M:%SZ}" if order.purchase_date else None,
        "currency": order.currency,
        # Only the recipient, for `shared_tracking`; other address fields are not needed.
        "shipping_address": _filled({name: getattr(order.shipping_address, name) for name in RECIPIENT}),
        "order_lines": [_filled({name: getattr(line, name) for name in _LINE}) for line in order.order_lines],
    }
    return _filled(shown)


def redacted_body(body: Mapping[str, Any]) -> Body:
    """The body without customer fields: order number, purchase date, and number, SKU and quantity of each line."""
    lines = [{name: line[name] for name in _LINE if name in line} for line in body["order_lines"]]
    return {**{name: body[name] for name in _ORDER if name in body}, "order_lines": lines}


def contradictions(seen: Mapping[str, Any], body: Mapping[str, Any]) -> list[Reason]:
    """Where a delivered body differs from the order that FeedAMP shows, so that it cannot be the body of that order."""
    found = [
        _differs(name)
        for name in ("sales_channel", "purchase_date", "currency")
        if name in seen and seen[name] != body.get(name)
    ]
    there = {line["mp_line_number"]: line["quantity"] for line in seen["order_lines"]}
    for index, line in enumerate(body["order_lines"]):
        number = line["mp_line_number"]
        if number not in there:
            found.append(_differs(f"order_lines[{index}].mp_line_number"))
        elif there.pop(number) != line["quantity"]:
            found.append(_differs(f"order_lines[{index}].quantity"))
    if there:
        message = (
            f"lacks {counted(len(there), 'line')} that FeedAMP shows; deliver the order as it was placed"
        )
        found.append(Reason("order_lines", "body_changed", message))
    return found


def _differs(field: str) -> Reason:
    return Reason(
        field, "body_changed", "differs from what FeedAMP shows; deliver the order as it was placed"
    )


def _filled(values: Body) -> Body:
    return {name: value for name, value in values.items() if value is not None}
