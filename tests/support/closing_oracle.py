"""docs/rules.md, Findings and Closing, written once more from the text alone: what a test compares the product with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """An error of a seller; `value` tells it apart from others of its kind on the line."""

    kind: str
    line: str
    value: str

    def finding_id(self, seller: str, number: str) -> str:
        """The key of the table `findings`: it must stay as it is, or every finding would be reported again."""
        parts = f"{seller}\x1f{number}\x1f{self.line}\x1f{self.kind}\x1f{self.value}"
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


def ordered_units(order: Json) -> dict[str, int]:
    return {line["mp_line_number"]: line["quantity"] for line in order["order_lines"]}


def units(entries: Iterable[Json]) -> int:
    """Units that count: whole numbers above zero."""
    quantities = [entry.get("quantity") for entry in entries]
    return sum(q for q in quantities if isinstance(q, int) and q > 0)


def line_units(order: Json) -> dict[str, tuple[int, int, int]]:
    """(ordered, shipped, cancelled) by line, lines that were never ordered among them."""
    ordered = ordered_units(order)
    told = {entry["mp_line_number"]: entry for entry in order["fulfillments"]}
    return {
        line: (
            ordered.get(line, 0),
            units(told.get(line, {}).get("shipments", ())),
            units(told.get(line, {}).get("cancellations", ())),
        )
        for line in {**ordered, **told}
    }


def faults(order: Json, *, bad_numbers: Iterable[str]) -> list[Fault]:
    """Every error on an order, as FeedAMP shows it; warnings never block."""
    found = []
    for entry in order["fulfillments"]:
        line = entry["mp_line_number"]
        parts = [("shipment", i, s) for i, s in enumerate(entry["shipments"], 1)]
        parts += [("cancellation", i, c) for i, c in enumerate(entry["cancellations"], 1)]
        for part, index, item in parts:
            quantity = item["quantity"]
            if not isinstance(quantity, int):
                found.append(Fault("bad_quantity", line, f"{part} {index}: none"))
            elif quantity <= 0:
                found.append(Fault("bad_quantity", line, f"{part} {index}: {quantity}"))
            if part == "shipment" and not item["carrier"]:
                found.append(Fault("missing_carrier", line, f"{part} {index}"))
            if part == "shipment" and not item["tracking_number"]:
                found.append(Fault("missing_tracking", line, f"{part} {index}"))
            elif part == "shipment" and item["carrier"] and item["tracking_number"] in bad_numbers:
                found.append(Fault("invalid_tracking", line, f"{item['carrier']} {item['tracking_number']}"))
        ordered, shipped, cancelled = line_units(order)[line]
        if line not in ordered_units(
            order
        ):  # FeedAMP does not know it, so nothing can be told about it by its number
            found = [f if f.line != line else Fault(f.kind, "", f"{line}: {f.value}") for f in found]
            found.append(Fault("unknown_line", line, line))
        elif shipped + cancelled > ordered:
            found.append(Fault("over_fulfilled", line, f"{shipped}+{cancelled}>{ordered}"))
    return found


def closes_as(order: Json, blocking: Iterable[Fault]) -> str | None:
    """The state an order of ours is to be closed as now, None while it waits; `blocking` are faults not waived."""
    by_line = line_units(order)
    if (
        order["marketplace_state"] != "AWAITING_SHIPMENT"
        or order["is_marketplace_fulfilled"]
        or list(blocking)
    ):
        return None
    if any(shipped + cancelled != ordered for ordered, shipped, cancelled in by_line.values()):
        return None
    return "SHIPPED" if any(shipped for _, shipped, _ in by_line.values()) else "CANCELLED"
