"""PURE: ledger, FeedAMP and warehouse side by side, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feedamp.models import Order
from feedamp.state.ledger import LedgerOrder
from feedamp.units import count_units


@dataclass(frozen=True)
class Difference:
    """One field on which those who have an opinion disagree; None: no opinion."""

    field: str
    ledger: str | None
    feedamp: str | None
    warehouse: str | None


def compare(ours: LedgerOrder, shown: Order | None, warehouse: Mapping[str, str]) -> list[Difference]:
    """Every difference of one order; `shown` is None when FeedAMP does not know it.

    `warehouse` maps the same field names to values; an order that is not there is an empty mapping.
    """
    ledger = ledger_view(ours)
    feedamp = feedamp_view(shown)
    if shown is None or not warehouse:
        # One difference says it; every field of the missing side would say it again.
        return [
            Difference(
                "order",
                "present",
                "missing" if shown is None else "present",
                "present" if warehouse else "missing",
            )
        ]
    differences = []
    for field in dict.fromkeys((*ledger, *feedamp, *warehouse)):
        values = (ledger.get(field), feedamp.get(field), warehouse.get(field))
        if len({value for value in values if value is not None}) > 1:
            differences.append(Difference(field, *values))
    return differences


def ledger_view(ours: LedgerOrder) -> dict[str, str]:
    """What the ledger knows for certain: the state FeedAMP accepted, the units ordered."""
    view = {"order": "present"}
    if ours.accepted_state:
        view["marketplace_state"] = ours.accepted_state
    view.update({f"order_lines[{line}].quantity": str(units) for line, units in ours.ordered.items()})
    return view


def feedamp_view(shown: Order | None) -> dict[str, str]:
    """What FeedAMP shows."""
    if shown is None:
        return {}
    view = {"order": "present"}
    for name in ("marketplace_state", "status"):
        value = getattr(shown, name)
        if value is not None:
            view[name] = value
    ordered = {line.mp_line_number: line.quantity or 0 for line in shown.order_lines}
    for line, units in count_units(ordered, shown.fulfillments or ()).items():
        view[f"order_lines[{line}].quantity"] = str(units.ordered)
        view[f"order_lines[{line}].units_shipped"] = str(units.shipped)
        view[f"order_lines[{line}].units_cancelled"] = str(units.cancelled)
    return view
