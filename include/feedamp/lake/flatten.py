"""PURE: turns orders into rows of the lake tables.

A row is a dict by column name; of two rows of one order, the one with the later `recorded_at` is newer.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from feedamp import carriers
from feedamp.codec import content_hash, encode
from feedamp.models import Order, OrderLine
from feedamp.money import fitted
from feedamp.rules.units import LineUnits, count_units
from feedamp.tables import ORDER_DISCOUNTS, ORDER_TAXES, ORDERS, RECORDED_AT, SNAPSHOT_HASH, Row, Rows

MOST_EXTRA_BYTES = 64 << 10
# Fields of an order that are columns of the same name.
_ORDER_COLUMNS = tuple(name for name in Order.__struct_fields__ if name in ORDERS.names and name != "extra")


def order_rows(seller_id: str, order: Order, *, read_at: datetime) -> Rows:
    """Rows of an order read from FeedAMP: orders and its children, and snapshots."""
    snapshot = order.snapshot()
    # Of the whole order: of two answers of one microsecond the same one then counts, whatever they differ in.
    snapshot_hash = content_hash(order)
    rows = _order_and_lines(seller_id, order, read_at, snapshot_hash)
    rows["orders"][0].update(extracted_at=read_at, snapshot_hash=snapshot_hash)
    key = {
        "seller_id": seller_id,
        "mp_order_number": order.mp_order_number,
        RECORDED_AT: read_at,
        SNAPSHOT_HASH: snapshot_hash,
    }
    shipments: list[Row] = []
    cancellations: list[Row] = []
    # A line may have two entries; the index continues, so that every row has a unique key.
    first: Counter[str] = Counter()
    first_cancelled: Counter[str] = Counter()
    for entry in order.fulfillments or ():
        line = {**key, "mp_line_number": entry.mp_line_number}
        for index, shipment in enumerate(entry.shipments, start=first[entry.mp_line_number]):
            verdict = carriers.check(shipment.carrier, shipment.tracking_number, url=shipment.tracking_url)
            shipments.append(
                {
                    **line,
                    **msgspec.structs.asdict(shipment),
                    "shipment_index": index,
                    "carrier_id": verdict.carrier_id,
                    "tracking_check": str(verdict.status),
                }
            )
        for index, cancellation in enumerate(
            entry.cancellations, start=first_cancelled[entry.mp_line_number]
        ):
            cancellations.append(
                {**line, **msgspec.structs.asdict(cancellation), "cancellation_index": index}
            )
        first[entry.mp_line_number] += len(entry.shipments)
        first_cancelled[entry.mp_line_number] += len(entry.cancellations)
    rows["shipments"] = shipments
    rows["cancellations"] = cancellations
    rows["snapshots"] = [
        {**key, SNAPSHOT_HASH: content_hash(snapshot), "snapshot": encode(snapshot).decode()}
    ]
    return rows


def placed_rows(seller_id: str, order: Order, *, placed_at: datetime) -> Rows:
    """Rows of an order that was placed and not yet read from FeedAMP; any snapshot replaces them."""
    return _order_and_lines(seller_id, order, placed_at, "")


def _order_and_lines(seller_id: str, order: Order, recorded_at: datetime, snapshot_hash: str) -> Rows:
    key = {"seller_id": seller_id, "mp_order_number": order.mp_order_number, RECORDED_AT: recorded_at}
    ordered = {line.mp_line_number: line.quantity or 0 for line in order.order_lines}
    units = count_units(ordered, order.fulfillments or ())
    lines = {line.mp_line_number: line for line in order.order_lines}
    row: Row = {
        **key,
        **{name: getattr(order, name) for name in _ORDER_COLUMNS},
        "units_ordered": sum(u.ordered for u in units.values()),
        "units_shipped": sum(u.shipped for u in units.values()),
        "units_cancelled": sum(u.cancelled for u in units.values()),
        "units_pending": sum(u.pending for u in units.values()),
        "units_over": sum(u.over for u in units.values()),
        "extra": _json(order.extra),
    }
    for prefix, part in (("customer", order.customer), ("shipping_address", order.shipping_address)):
        row.update({f"{prefix}_{name}": value for name, value in msgspec.structs.asdict(part).items()})
    key[SNAPSHOT_HASH] = snapshot_hash
    return {
        "orders": [row],
        "order_lines": [_line_row(key, number, lines.get(number), u) for number, u in units.items()],
        ORDER_TAXES.name: _amount_rows(key, lines, "taxes", "tax_index"),
        ORDER_DISCOUNTS.name: _amount_rows(key, lines, "discounts", "discount_index"),
    }


def _line_row(key: Row, number: str, line: OrderLine | None, units: LineUnits) -> Row:
    extra = dict(line.extra) if line else {}
    return {
        **key,
        "mp_line_number": number,
        "sku": line and line.sku,
        "product_name": line and line.product_name,
        "quantity": units.ordered,
        "unit_price": line and _money("unit_price", line.unit_price, extra),
        "shipping_price": line and _money("shipping_price", line.shipping_price, extra),
        "units_shipped": units.shipped,
        "units_cancelled": units.cancelled,
        "units_pending": units.pending,
        "extra": _json(extra),
    }


def _amount_rows(key: Row, lines: Mapping[str, OrderLine], member: str, index: str) -> list[Row]:
    """Rows of the taxes or discounts of all lines; what is not an object remains only in `extra` of its line."""
    rows: list[Row] = []
    for number, line in lines.items():
        items = line.extra.get(member)
        for place, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                extra = dict(item)
                named = next((n for n in ("name", "type") if isinstance(item.get(n), str) and item[n]), None)
                row = {"mp_line_number": number, index: place, "name": named and extra.pop(named)}
                amount = _decimal(item.get("amount"))
                if amount is not None:
                    row["amount"] = _money("amount", extra.pop("amount") and amount, extra)
                rows.append({**key, **row, "extra": _json(extra)})
    return rows


def _decimal(value: Any) -> Decimal | None:
    """The number that a JSON value means, as text too; None if it means none."""
    try:
        return (
            None if isinstance(value, bool) else Decimal(value.strip() if isinstance(value, str) else value)
        )
    except (InvalidOperation, TypeError, ValueError):
        return None


def _money(name: str, amount: Decimal | None, extra: dict[str, Any]) -> Decimal | None:
    """The amount as its column can hold it. If that is not exact, the original amount is stored in `extra`."""
    if amount is None:
        return None
    held = fitted(amount)
    if held is None or held != amount:
        extra.setdefault(name, amount if amount.is_finite() else str(amount))
    return held


def _json(value: Mapping[str, Any]) -> str | None:
    if not value:
        return None
    content = encode(value)
    if len(content) > MOST_EXTRA_BYTES:
        # One order with 700,000 unknown fields took all memory of a warehouse.
        content = encode({"left_out": f"{len(value)} fields of {len(content)} bytes"})
    return content.decode()
