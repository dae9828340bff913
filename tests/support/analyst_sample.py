"""The sample installation of docs/analyst-queries.md: two sellers, twelve orders of March 2025, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from manifests import Loader
from view_rows import put

from feedamp.lake.flatten import order_rows
from feedamp.models import Cancellation, LineFulfillment, Order, OrderLine, Shipment

UPS, BAD_UPS, USPS = "1Z999AA10123456784", "1Z999AA10123456785", "9400111206206406260787"
Amounts = tuple[tuple[str, str], ...]


def when(day: int, hour: int = 12, minute: int = 0) -> datetime:
    return datetime(2025, 3, day, hour, minute, tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    """One line, and how many units of it were shipped when, by whom and with which number."""

    sku: str
    quantity: int  # 0: the order does not have the line, but shipments of it
    unit_price: str | None
    shipping_price: str = "0"
    taxes: Amounts = ()
    discounts: Amounts = ()
    shipped: tuple[tuple[int, str, str | None, int], ...] = ()
    cancelled: int = 0


@dataclass(frozen=True)
class Sold:
    """One order of the sample."""

    seller_id: str
    number: str
    purchased: datetime
    state: str
    lines: tuple[Line, ...]
    first: tuple[Line, ...] = field(default=())  # as FeedAMP showed it a day before, if otherwise
    by_marketplace: bool = False  # is the marketplace the one that ships it


LAMP = Line("LAMP", 2, "25.50", "4.00", (("SALES", "4.08"), ("SHIPPING", "0.32")), (("SPRING", "5.00"),))
CUP = Line("CUP", 1, "9.99", taxes=(("SALES", "0.80"),))
SAMPLE = (
    Sold(
        "S1", "A-1", when(1, 23, 30), "SHIPPED", (Line(**LAMP.__dict__ | {"shipped": ((2, "UPS", UPS, 3),)}),)
    ),
    Sold(
        "S1",
        "A-2",
        when(2, 0, 10),
        "SHIPPED",
        (
            Line("CUP", 3, "10.10", taxes=(("SALES", "2.42"),), shipped=((2, "UPS", UPS, 5),), cancelled=1),
            Line("LAMP", 1, "25.50", "4.00", (("SALES", "2.04"),), cancelled=1),
        ),
    ),
    Sold("S1", "A-3", when(2), "AWAITING_SHIPMENT", (Line("CUP", 1, "10.10"),)),
    Sold("S1", "A-4", when(2), "CANCELLED", (LAMP,)),
    Sold(
        "S2",
        "B-1",
        when(2),
        "SHIPPED",
        (Line(**CUP.__dict__ | {"shipped": ((1, "USPS", USPS, 4),)}),),
        first=(Line(**CUP.__dict__ | {"shipped": ((1, "UPS", BAD_UPS, 4),)}),),
    ),
    Sold("S2", "B-2", when(3), "CANCELLED", (Line("CUP", 2, "9.99", cancelled=2),)),
    Sold(
        "S2", "B-3", when(3), "AWAITING_SHIPMENT", (Line("LAMP", 2, "25.00", shipped=((1, "UPS", None, 6),)),)
    ),
    Sold("S2", "B-4", when(3), "PENDING", (CUP,)),
    Sold(
        "S1",
        "A-7",
        when(4),
        "SHIPPED",
        (
            Line("CUP", 2, "10.10", shipped=((3, "UPS", UPS, 5),)),
            Line("", 0, "0", shipped=((1, "UPS", UPS, 5),)),
        ),
    ),
    Sold("S1", "A-8", when(4), "SHIPPED", (Line("MUG", 2, "7.00"),), by_marketplace=True),
    Sold("S2", "B-7", when(4), "CANCELLED", (Line("HAT", 3, "5.00", cancelled=1),)),
    Sold("S2", "B-6", when(4), "PENDING", (Line("HAT", 2, None, "3.00", (("SALES", "1.00"),)),)),
)
WAITING = (
    ("S1", "A-5", "to_place", "the seller is paused", 4),
    ("S1", "A-6", "to_place", "the seller is paused", 5),
    ("S2", "B-5", "held", "FeedAMP answered 409", 6),
)
GRANTS = {"S1": 10, "S2": 200, "S3": -3}  # days until they end
RECONCILED = {
    ("S1", 1): (0, 0),
    ("S1", 2): (0, 1),
    ("S2", 3): (0, 0),
    ("S1", 4): (0, 0),
    ("S2", 4): (0, 0),
}  # remaining and unread by seller and day
DIFFERENCES = (
    ("marketplace_state", (True,)),
    ("marketplace_state", (False,)),
    ("marketplace_state", (False, True)),
    ("units_shipped", (True, False)),
    ("warehouse", (True,)),
)  # each with whether it was repaired in the first run that found it, in the second and so on


def load_sample(loader: Loader, now: datetime) -> None:
    """Loads the sample; grants end as seen from `now`."""
    for sold in SAMPLE:
        for hours, lines in ((1, sold.first), (25, sold.lines)):
            if lines:
                read_at = sold.purchased + timedelta(days=5, hours=hours)
                loader.load(order_rows(sold.seller_id, _order(sold, lines), read_at=read_at))
    for seller_id, number, phase, reason, day in WAITING:
        key = {"seller_id": seller_id, "mp_order_number": number}
        put(loader, "waiting_orders", **key, ledger_phase=phase, reason=reason, since=when(day))
    for seller_id, days in GRANTS.items():
        ends_at = now + timedelta(days=days, hours=1)
        put(loader, "sellers", seller_id=seller_id, status="active", grant_ends_at=ends_at)
    for (seller_id, day), (remaining, unread) in RECONCILED.items():
        counts = {"remaining": remaining, "unread": unread}
        put(loader, "reconciliation_days", seller_id=seller_id, day=when(day).date(), **counts)
    for at, (kind, runs) in enumerate(DIFFERENCES):
        for run, is_repaired in enumerate(runs):
            key = {"run_id": f"r{run}", "seller_id": "S1", "mp_order_number": f"A-{at}", "field": kind}
            found_at = when(8 + run)
            repaired_at = when(8 + run, 13) if is_repaired else None
            put(loader, "reconciliations", **key, kind=kind, found_at=found_at, repaired_at=repaired_at)


def _order(sold: Sold, lines: tuple[Line, ...]) -> Order:
    def amounts(given: Amounts) -> list[dict[str, Any]]:
        return [{"type": name, "amount": Decimal(amount)} for name, amount in given]

    return Order(
        mp_order_number=sold.number,
        purchase_date=sold.purchased,
        currency="USD",
        marketplace_state=sold.state,
        is_marketplace_fulfilled=sold.by_marketplace,
        latest_ship_date=sold.purchased + timedelta(days=2),
        order_lines=tuple(
            OrderLine(
                mp_line_number=str(at),
                sku=line.sku,
                quantity=line.quantity,
                unit_price=None if line.unit_price is None else Decimal(line.unit_price),
                shipping_price=Decimal(line.shipping_price),
                extra={"taxes": amounts(line.taxes), "discounts": amounts(line.discounts)},
            )
            for at, line in enumerate(lines)
            if line.quantity
        ),
        fulfillments=tuple(
            LineFulfillment(
                mp_line_number=str(at),
                shipments=tuple(
                    Shipment(quantity=n, carrier=by, tracking_number=number, shipped_date=date(2025, 3, day))
                    for n, by, number, day in line.shipped
                ),
                cancellations=(Cancellation(quantity=line.cancelled),) if line.cancelled else (),
            )
            for at, line in enumerate(lines)
        ),
    )
