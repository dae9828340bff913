"""PURE: ledger, FeedAMP and warehouse side by side, field by field.

A side maps the path of a field to its value as text; what it does not name it has no opinion on. The paths of an
order, a line, a shipment and a cancellation themselves say that it is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from feedamp.models import FINAL_STATES, Order
from feedamp.rules.order import COMPLETE, LedgerOrder
from feedamp.tables import CANCELLATIONS, ORDER_LINES, ORDERS, SHIPMENTS, Rows

Path = tuple[str, ...]
Side = Mapping[Path, str]

PRESENT, MISSING = "present", "missing"
ORDER: Path = ("order",)
STATE: Path = ("marketplace_state",)
STATUS: Path = ("status",)
CLOSED: Path = ("closed",)
# What is compared of each table; none of it is personal, so `pii = mask` hides none of it.
COMPARED: Mapping[str, tuple[str, ...]] = {
    ORDERS.name: ("marketplace_state", "status"),
    ORDER_LINES.name: ("quantity", "units_shipped", "units_cancelled"),
    SHIPMENTS.name: ("quantity", "carrier", "tracking_number", "shipped_date"),
    CANCELLATIONS.name: ("quantity", "reason"),
}
_BY_SELLERS = (SHIPMENTS.name, CANCELLATIONS.name, "units_shipped", "units_cancelled")
INDEXES = {SHIPMENTS.name: "shipment_index", CANCELLATIONS.name: "cancellation_index"}


@dataclass(frozen=True)
class Difference:
    """One field on which those who have an opinion disagree; None: no opinion."""

    path: Path
    ledger: str | None
    feedamp: str | None
    warehouse: str | None

    @property
    def field(self) -> str:
        """As `reconciliations` names it, e.g. `order_lines[L-1].shipments[0].carrier`."""
        return _written(self.path, self.path[1::2])

    @property
    def kind(self) -> str:
        """The field whatever line and place, e.g. `order_lines[].shipments[].carrier`."""
        return _written(self.path, [""] * len(self.path[1::2]))


def compare(ledger: Side, feedamp: Side, warehouse: Side | None) -> list[Difference]:
    """Every difference of one order; an empty side does not have the order, None has no opinion at all.

    What FeedAMP says nothing of is not compared: there is no truth to bring the others to. Below a line or shipment
    that FeedAMP does not show, one difference says it all.
    """
    found: dict[Path, Difference] = {}
    for path in dict.fromkeys((ORDER, *ledger, *feedamp, *(warehouse or ()))):
        ours, shown, stored = ledger.get(path), _opinion(feedamp, path), _opinion(warehouse, path)
        if shown is not None and (ours not in (None, shown) or stored not in (None, shown)):
            found[path] = Difference(path, ours, shown, stored)
    state = found.get(STATE)
    if state is not None and state.ledger not in (None, state.feedamp):
        found.pop(CLOSED, None)  # the state says it
    return list(found.values())


def ledger_side(ours: LedgerOrder | None, *, with_lines: bool = True) -> dict[Path, str]:
    """What the ledger knows for certain: the state FeedAMP accepted, closed or not, the units ordered.

    `with_lines` is false where FeedAMP does not show what was ordered.
    """
    if ours is None or (ours.phase == "to_place" and ours.accepted_state is None):
        return {}
    if ours.phase in ("refused", "never_placed"):
        return {ORDER: MISSING}
    side: dict[Path, str] = {ORDER: PRESENT, CLOSED: _yes(ours.phase == "closed")}
    if ours.accepted_state:
        side[STATE] = ours.accepted_state
    for line, units in ours.ordered.items() if with_lines else ():
        side[ORDER_LINES.name, line] = PRESENT
        side[ORDER_LINES.name, line, "quantity"] = str(units)
    return side


def feedamp_side(shown: Order, rows: Rows) -> dict[Path, str]:
    """What FeedAMP shows, given with the rows that `flatten` makes of it."""
    side = rows_side(rows)
    final = is_final(shown)
    if final and shown.marketplace_state not in FINAL_STATES:
        side.pop(STATE, None)  # closed as what, it does not say
    if final or shown.marketplace_state is not None:
        side[CLOSED] = _yes(final)
    return side


def rows_side(rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[Path, str]:
    """What rows of one order say, be they from the warehouse or as FeedAMP's answer would be stored."""
    side: dict[Path, str] = {}
    for row in rows.get(ORDERS.name, ()):
        side[ORDER] = PRESENT
        side.update({(name,): row[name] for name in COMPARED[ORDERS.name] if row[name] is not None})
    if not side:
        return {}
    for table in (ORDER_LINES.name, *INDEXES):
        for row in rows.get(table, ()):
            path: Path = (ORDER_LINES.name, row["mp_line_number"])
            if table in INDEXES:
                path = (*path, table, str(row[INDEXES[table]]))
            side[path] = PRESENT
            side.update({(*path, name): _text(row[name]) for name in COMPARED[table]})
    return side


def may_be_an_update(differences: Iterable[Difference], ordered_lines: Collection[str]) -> bool:
    """Whether an update by the seller alone explains them: FeedAMP and warehouse differ in nothing but what the seller
    shipped and cancelled and the status that follows from it, and the ledger contradicts nothing.

    `ordered_lines`: numbers of the lines that FeedAMP shows as ordered; units of other lines are the seller's as well.
    """
    return all(_may_be_an_update(difference, ordered_lines) for difference in differences)


def _may_be_an_update(difference: Difference, ordered_lines: Collection[str]) -> bool:
    path = difference.path
    if difference.ledger not in (None, difference.feedamp):
        return False
    if path == STATUS:
        return COMPLETE not in (difference.feedamp, difference.warehouse)  # closing is the marketplace's
    if len(path) == 2:
        return path[1] not in ordered_lines
    return len(path) > 2 and path[2] in _BY_SELLERS


def is_final(shown: Order) -> bool:
    """Closed at FeedAMP: by the marketplace's state, or by FeedAMP's own word for it (contract 7.1)."""
    return shown.marketplace_state in FINAL_STATES or shown.status == COMPLETE


def _opinion(side: Side | None, path: Path) -> str | None:
    """What a side says of a field; that a thing is missing it can say only of parts of what it has."""
    if side is None or path in side:
        return None if side is None else side[path]
    is_thing = path == ORDER or len(path) in (2, 4)
    has_whole = path == ORDER or (path[:-2] or ORDER) in side
    return MISSING if is_thing and has_whole else None


def _written(path: Path, places: Iterable[str]) -> str:
    return ".".join(
        name if place is None else f"{name}[{place}]" for name, place in zip_longest(path[::2], places)
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _text(value: object) -> str:
    return "" if value is None else str(value)
