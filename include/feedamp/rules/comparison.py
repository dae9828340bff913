"""PURE: compares ledger, FeedAMP and warehouse field by field.

A side is one order as ledger, FeedAMP or warehouse has it: it maps the path of each field to its value as text. A side
does not report the fields that it leaves out. For each order, line, shipment and cancellation that a side has, it also
contains the path of that object itself, with the value `present`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from feedamp.models import COMPLETE, FINAL_STATES, Order
from feedamp.rules.order import LedgerOrder, Phase
from feedamp.tables import CANCELLATIONS, ORDER_LINES, ORDERS, SHIPMENTS, Rows

Path = tuple[str, ...]
Side = Mapping[Path, str]

PRESENT, MISSING = "present", "missing"
ORDER: Path = ("order",)
STATE: Path = ("marketplace_state",)
STATUS: Path = ("status",)
CLOSED: Path = ("closed",)
PURCHASED: Path = (
    "purchase_date",
)  # only its UTC day, since an order is compared with the others of its day
# The compared columns of each table; none is personal, so `pii = mask` hides none of them.
COMPARED: Mapping[str, tuple[str, ...]] = {
    ORDERS.name: ("marketplace_state", "status", "purchase_date"),
    ORDER_LINES.name: ("quantity", "units_shipped", "units_cancelled"),
    SHIPMENTS.name: ("quantity", "carrier", "tracking_number", "shipped_date"),
    CANCELLATIONS.name: ("quantity", "reason"),
}
_BY_SELLERS = (SHIPMENTS.name, CANCELLATIONS.name, "units_shipped", "units_cancelled")
INDEXES = {SHIPMENTS.name: "shipment_index", CANCELLATIONS.name: "cancellation_index"}


@dataclass(frozen=True)
class Difference:
    """One field on which the sides that report it disagree; None: the side does not report the field."""

    path: Path
    ledger: str | None
    feedamp: str | None
    warehouse: str | None

    @property
    def field(self) -> str:
        """The field as named in `reconciliations`, e.g. `order_lines[L-1].shipments[0].carrier`."""
        return _written(self.path, self.path[1::2])

    @property
    def kind(self) -> str:
        """The field without line numbers and indexes, e.g. `order_lines[].shipments[].carrier`."""
        return _written(self.path, [""] * len(self.path[1::2]))


def compare(ledger: Side, feedamp: Side, warehouse: Side | None) -> list[Difference]:
    """Every difference of one order. An empty side means that the order is missing there; None reports nothing.

    Fields that FeedAMP does not report are not compared, because FeedAMP decides which value is right. A line or
    shipment that FeedAMP does not have gives one difference, not one for each of its fields.
    """
    found: dict[Path, Difference] = {}
    for path in dict.fromkeys((ORDER, *ledger, *feedamp, *(warehouse or ()))):
        ledger_value, remote_value = ledger.get(path), _reported(feedamp, path)
        stored_value = _reported(warehouse, path)
        others_agree = ledger_value in (None, remote_value) and stored_value in (None, remote_value)
        if remote_value is not None and not others_agree:
            found[path] = Difference(path, ledger_value, remote_value, stored_value)
    state = found.get(STATE)
    if state is not None and state.ledger not in (None, state.feedamp):
        found.pop(CLOSED, None)  # it follows from the state
    return list(found.values())


def ledger_side(ledger_order: LedgerOrder | None, *, with_lines: bool = True) -> dict[Path, str]:
    """The ledger's side, as far as it is certain: the state FeedAMP accepted, whether it is closed, the units ordered.

    `with_lines` is false where FeedAMP does not show the ordered lines.
    """
    if ledger_order is None or (ledger_order.phase == Phase.TO_PLACE and ledger_order.accepted_state is None):
        return {}
    if ledger_order.phase in (Phase.REFUSED, Phase.NEVER_PLACED):
        return {ORDER: MISSING}
    side: dict[Path, str] = {
        ORDER: PRESENT,
        CLOSED: _yes(ledger_order.phase == Phase.CLOSED),
        PURCHASED: _text(ledger_order.purchase_date),
    }
    if ledger_order.accepted_state:
        side[STATE] = ledger_order.accepted_state
    for line, units in ledger_order.ordered.items() if with_lines else ():
        side[ORDER_LINES.name, line] = PRESENT
        side[ORDER_LINES.name, line, "quantity"] = str(units)
    return side


def feedamp_side(remote_order: Order, rows: Rows) -> dict[Path, str]:
    """FeedAMP's side, from the order as it was read and the rows that `flatten` makes of it."""
    side = rows_side(rows)
    final = remote_order.is_final
    if final and remote_order.marketplace_state not in FINAL_STATES:
        side.pop(STATE, None)  # FeedAMP does not say in which final state it is closed
    if final or remote_order.marketplace_state is not None:
        side[CLOSED] = _yes(final)
    return side


def rows_side(rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[Path, str]:
    """The side for one order, from its rows as read from the warehouse or made from FeedAMP's answer."""
    side: dict[Path, str] = {}
    for row in rows.get(ORDERS.name, ()):
        side[ORDER] = PRESENT
        side.update({(name,): _text(row[name]) for name in COMPARED[ORDERS.name] if row[name] is not None})
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
    """Whether an update by the seller alone explains the differences.

    It does if FeedAMP and warehouse differ only in shipments, cancellations and the status that follows from them, and
    the ledger agrees with FeedAMP. `ordered_lines` are the numbers of the lines that FeedAMP shows as ordered; any other
    line exists only because of the seller's shipments or cancellations.
    """
    return all(_may_be_an_update(difference, ordered_lines) for difference in differences)


def _may_be_an_update(difference: Difference, ordered_lines: Collection[str]) -> bool:
    path = difference.path
    if difference.ledger not in (None, difference.feedamp):
        return False
    if path == STATUS:
        return COMPLETE not in (difference.feedamp, difference.warehouse)  # only the marketplace closes
    if len(path) == 2:
        return path[1] not in ordered_lines
    return len(path) > 2 and path[2] in _BY_SELLERS


def _reported(side: Side | None, path: Path) -> str | None:
    """The value that a side reports, or None.

    A side that lacks an order, line, shipment or cancellation reports it as missing, but only if it has the object that
    would contain it: a side without a line does not report the line's shipments as missing.
    """
    if side is None or path in side:
        return None if side is None else side[path]
    is_object = path == ORDER or len(path) in (2, 4)
    has_parent = path == ORDER or (path[:-2] or ORDER) in side
    return MISSING if is_object and has_parent else None


def _written(path: Path, places: Iterable[str]) -> str:
    return ".".join(
        name if place is None else f"{name}[{place}]" for name, place in zip_longest(path[::2], places)
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).date().isoformat()
    return "" if value is None else str(value)
