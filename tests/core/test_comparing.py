"""Ledger, FeedAMP and warehouse side by side."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from feedamp.lake.flatten import order_rows
from feedamp.models import Cancellation, LineFulfillment, Order, OrderLine, Shipment
from feedamp.rules.comparison import (
    COMPARED,
    Difference,
    Path,
    compare,
    feedamp_side,
    ledger_side,
    may_be_an_update,
    rows_side,
)
from feedamp.rules.order import LedgerOrder
from feedamp.tables import TABLES

MOMENT = datetime(2026, 3, 2, tzinfo=UTC)
PARCEL = Shipment(quantity=1, carrier="UPS", tracking_number="1Z", shipped_date=date(2026, 3, 9))


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


def shown(*shipments: Shipment, quantity: int = 2, cancelled: int = 0, **changes: Any) -> Order:
    """M-1 with one parcel, unless others are named."""
    cancellations = (Cancellation(quantity=cancelled, reason="damaged"),) if cancelled else ()
    fields: dict[str, Any] = {
        "mp_order_number": "M-1",
        "marketplace_state": "AWAITING_SHIPMENT",
        "status": "IN_PROGRESS",
        "order_lines": (OrderLine(mp_line_number="A", quantity=quantity),),
        "fulfillments": (
            LineFulfillment(
                mp_line_number="A", shipments=shipments or (PARCEL,), cancellations=cancellations
            ),
        ),
    }
    return Order(**fields | changes)


def of(order: Order) -> dict[Path, str]:
    return feedamp_side(order, order_rows("S1", order, read_at=MOMENT))


def stored(order: Order | None = None, *without: str, **columns: Any) -> dict[Path, str]:
    """The warehouse row of an order; without the rows of the tables in `without`, with other values in `columns`."""
    rows = order_rows("S1", order or shown(), read_at=MOMENT)
    kept = {table: found for table, found in rows.items() if table not in without}
    for found in kept.values():
        for row in found:
            row.update({name: value for name, value in columns.items() if name in row})
    return rows_side(kept)


def found(
    ledger: LedgerOrder | None, feedamp: Order | None, warehouse: dict[Path, str] | None
) -> list[tuple[str, str | None, str | None, str | None]]:
    differences = compare(ledger_side(ledger), of(feedamp) if feedamp else {}, warehouse)
    return [(d.field, d.ledger, d.feedamp, d.warehouse) for d in differences]


SECOND = "order_lines[A].shipments[1]"
UNITS = "order_lines[A].units_shipped"


@pytest.mark.parametrize(
    ("ledger", "feedamp", "warehouse", "expected"),
    [
        pytest.param(ours(), shown(), stored(), [], id="all three agree"),
        pytest.param(
            ours(),
            None,
            stored(),
            [("order", "present", "missing", "present")],
            id="FeedAMP does not know it",
        ),
        pytest.param(
            ours(),
            shown(),
            {},
            [("order", "present", "present", "missing")],
            id="the warehouse does not know it",
        ),
        pytest.param(
            ours(), None, {}, [("order", "present", "missing", "missing")], id="only the ledger knows it"
        ),
        pytest.param(
            ours(accepted_state="PENDING"),
            shown(),
            {},
            [
                ("order", "present", "present", "missing"),
                ("marketplace_state", "PENDING", "AWAITING_SHIPMENT", None),
            ],
            id="missing in the warehouse does not hide that the ledger is wrong",
        ),
        pytest.param(
            None,
            shown(),
            {},
            [("order", None, "present", "missing")],
            id="not in the ledger, not in the warehouse",
        ),
        pytest.param(None, shown(), stored(), [], id="not in the ledger, and right in the warehouse"),
        pytest.param(
            ours(phase="to_place", accepted_state=None), None, {}, [], id="not placed yet, missing everywhere"
        ),
        pytest.param(
            ours(phase="refused", accepted_state=None), None, {}, [], id="refused, missing everywhere"
        ),
        pytest.param(
            ours(phase="never_placed", accepted_state=None),
            shown(),
            stored(),
            [("order", "missing", "present", "present")],
            id="never placed, but FeedAMP has it",
        ),
        pytest.param(
            ours(accepted_state="PENDING"),
            shown(),
            stored(),
            [("marketplace_state", "PENDING", "AWAITING_SHIPMENT", "AWAITING_SHIPMENT")],
            id="the ledger holds another state",
        ),
        pytest.param(
            ours(phase="closed", accepted_state="SHIPPED"),
            shown(),
            stored(),
            [("marketplace_state", "SHIPPED", "AWAITING_SHIPMENT", "AWAITING_SHIPMENT")],
            id="closed here but not there is said once",
        ),
        pytest.param(
            ours(accepted_state="SHIPPED"),
            shown(marketplace_state="SHIPPED"),
            stored(shown(marketplace_state="SHIPPED")),
            [("closed", "no", "yes", None)],
            id="closed there, and the ledger knows the state but not the closing",
        ),
        pytest.param(
            ours(),
            shown(marketplace_state=None, status="COMPLETE"),
            stored(shown(marketplace_state=None, status="COMPLETE")),
            [("closed", "no", "yes", None)],
            id="closed there by status alone",
        ),
        pytest.param(
            ours(phase="closed", accepted_state="SHIPPED"),
            shown(status="COMPLETE"),
            stored(shown(status="COMPLETE")),
            [],
            id="complete, with a state that lags",
        ),
        pytest.param(
            ours(),
            shown(),
            stored(status="ORDERED"),
            [("status", None, "IN_PROGRESS", "ORDERED")],
            id="the warehouse holds another status",
        ),
        pytest.param(ours(), shown(), stored(status=None), [], id="the warehouse holds no status yet"),
        pytest.param(
            ours(), shown(status=None, marketplace_state=None), stored(), [], id="FeedAMP says no state"
        ),
        pytest.param(ours(), shown(), None, [], id="the warehouse is not asked"),
        pytest.param(
            ours(),
            shown(quantity=3),
            stored(shown(quantity=3)),
            [("order_lines[A].quantity", "2", "3", "3")],
            id="FeedAMP holds another quantity than was placed",
        ),
        pytest.param(
            ours(body={"order_lines": [{"mp_line_number": n, "quantity": 2} for n in "AB"]}),
            shown(),
            stored(),
            [("order_lines[B]", "present", "missing", "missing")],
            id="FeedAMP lacks a line",
        ),
        pytest.param(
            ours(),
            shown(),
            stored(None, "order_lines", "shipments"),
            [("order_lines[A]", "present", "present", "missing")],
            id="the warehouse lacks a line",
        ),
        pytest.param(
            ours(),
            shown(),
            stored(None, "shipments"),
            [("order_lines[A].shipments[0]", None, "present", "missing")],
            id="the warehouse lacks a shipment",
        ),
        pytest.param(
            ours(),
            shown(),
            stored(shown(PARCEL, PARCEL)),
            [(UNITS, None, "1", "2"), (SECOND, None, "missing", "present")],
            id="a shipment has vanished",
        ),
        pytest.param(
            ours(),
            shown(),
            stored(carrier="DHL", tracking_number=None, shipped_date=None),
            [
                ("order_lines[A].shipments[0].carrier", None, "UPS", "DHL"),
                ("order_lines[A].shipments[0].tracking_number", None, "1Z", ""),
                ("order_lines[A].shipments[0].shipped_date", None, "2026-03-09", ""),
            ],
            id="a shipment was corrected",
        ),
        pytest.param(
            ours(),
            shown(cancelled=1),
            stored(shown(cancelled=1), reason="other"),
            [("order_lines[A].cancellations[0].reason", None, "damaged", "other")],
            id="a cancellation has another reason",
        ),
    ],
)
def test_a_difference_names_all_three_values(
    ledger: LedgerOrder | None, feedamp: Order | None, warehouse: dict[Path, str] | None, expected: Any
) -> None:
    assert found(ledger, feedamp, warehouse) == expected


def test_what_was_ordered_is_not_compared_where_feedamp_does_not_show_it() -> None:
    order = shown(order_lines=())
    differences = compare(ledger_side(ours(), with_lines=False), of(order), stored(order))
    assert differences == []


def test_lines_and_places_are_one_kind() -> None:
    paths = [
        ("order_lines", "A", "shipments", "0", "carrier"),
        ("order_lines", "[]", "shipments", "9", "carrier"),
    ]
    kinds = {Difference(path, None, "x", "y").kind for path in paths}
    assert kinds == {"order_lines[].shipments[].carrier"}


@pytest.mark.parametrize("table", COMPARED)
def test_nothing_that_a_mask_hides_is_compared(table: str) -> None:
    personal = {column.name for column in TABLES[table].columns if column.personal}
    assert not personal & set(COMPARED[table])


LINE = ("order_lines", "A")


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        pytest.param(Difference(("status",), None, "FULFILLED", "ORDERED"), True, id="the status follows"),
        pytest.param(Difference(("status",), None, "COMPLETE", "FULFILLED"), False, id="it was closed"),
        pytest.param(Difference(("status",), None, "FULFILLED", "COMPLETE"), False, id="it was opened again"),
        pytest.param(Difference((*LINE, "units_shipped"), None, "2", "1"), True, id="more is shipped"),
        pytest.param(Difference((*LINE, "units_cancelled"), None, "1", "0"), True, id="more is cancelled"),
        pytest.param(Difference((*LINE, "shipments", "0"), None, "present", "missing"), True, id="a parcel"),
        pytest.param(
            Difference((*LINE, "shipments", "0", "carrier"), None, "UPS", "DHL"), True, id="a carrier"
        ),
        pytest.param(
            Difference((*LINE, "cancellations", "0"), None, "missing", "present"), True, id="taken back"
        ),
        pytest.param(Difference((*LINE, "quantity"), "2", "2", "3"), False, id="what was ordered"),
        pytest.param(Difference(LINE, None, "present", "missing"), False, id="an ordered line is lost"),
        pytest.param(
            Difference(("order_lines", "Z"), None, "present", "missing"),
            True,
            id="units of a line not ordered",
        ),
        pytest.param(Difference(("order",), "present", "present", "missing"), False, id="the row is lost"),
        pytest.param(
            Difference(("marketplace_state",), None, "CANCELLED", "PENDING"),
            False,
            id="the marketplace's state",
        ),
        pytest.param(Difference(("closed",), "no", "yes", None), False, id="the ledger is wrong"),
    ],
)
def test_what_an_update_by_the_seller_explains(difference: Difference, expected: bool) -> None:
    parcel = Difference((*LINE, "shipments", "1"), None, "present", "missing")
    assert may_be_an_update([parcel, difference], {"A"}) is expected
