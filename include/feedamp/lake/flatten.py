"""PURE: turns orders into rows of the lake tables.

Rows are made as tuples, which become columns without a dict in between; `rows_of` makes dicts by column name of them. Of
two rows of one order, the one with the later `recorded_at` is newer.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from operator import attrgetter
from typing import Any

from feedamp import carriers
from feedamp.codec import content_hash, encode, encoded_hash
from feedamp.models import Address, Cancellation, Customer, LineFulfillment, Order, OrderLine, Shipment
from feedamp.money import fitted
from feedamp.rules.units import count_units
from feedamp.tables import (
    CANCELLATIONS,
    ORDER_DISCOUNTS,
    ORDER_LINES,
    ORDER_TAXES,
    ORDERS,
    RECORDED_AT,
    SHIPMENTS,
    SNAPSHOT_HASH,
    SNAPSHOTS,
    Rows,
)

MOST_EXTRA_BYTES = 64 << 10
Values = dict[str, list[tuple[Any, ...]]]
"""Rows by table, each as a tuple in the order of `VALUE_COLUMNS`."""

# Fields of an order that are columns of the same name.
_ORDER_COLUMNS = tuple(
    name
    for name in Order.__struct_fields__
    if name in ORDERS.names and name not in ("mp_order_number", "extra")
)
_KEY = ("seller_id", "mp_order_number", RECORDED_AT, SNAPSHOT_HASH)
_LINE = (*_KEY, "mp_line_number")
VALUE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    ORDERS.name: (
        *(*_KEY, "extracted_at", "extra"),
        *("units_ordered", "units_shipped", "units_cancelled", "units_pending", "units_over"),
        *_ORDER_COLUMNS,
        *(f"customer_{name}" for name in Customer.__struct_fields__),
        *(f"shipping_address_{name}" for name in Address.__struct_fields__),
    ),
    ORDER_LINES.name: (
        *(*_LINE, "sku", "product_name", "quantity", "unit_price", "shipping_price"),
        *("units_shipped", "units_cancelled", "units_pending", "extra"),
    ),
    ORDER_TAXES.name: (*_LINE, "tax_index", "name", "amount", "extra"),
    ORDER_DISCOUNTS.name: (*_LINE, "discount_index", "name", "amount", "extra"),
    SHIPMENTS.name: (*_LINE, "shipment_index", "carrier_id", "tracking_check", *Shipment.__struct_fields__),
    CANCELLATIONS.name: (*_LINE, "cancellation_index", *Cancellation.__struct_fields__),
    SNAPSHOTS.name: (*_KEY, "snapshot"),
}
_of_order = attrgetter(*_ORDER_COLUMNS)
_of_customer = attrgetter(*Customer.__struct_fields__)
_of_address = attrgetter(*Address.__struct_fields__)
_of_shipment = attrgetter(*Shipment.__struct_fields__)
_of_cancellation = attrgetter(*Cancellation.__struct_fields__)


def order_values(seller_id: str, order: Order, *, read_at: datetime) -> Values:
    """Rows of an order read from FeedAMP: orders and its children, and snapshots."""
    # Of the whole order: of two answers of one microsecond the same one then counts, whatever they differ in.
    snapshot_hash = content_hash(order)
    values = _order_and_lines(seller_id, order, read_at, snapshot_hash, extracted_at=read_at)
    number, fulfillments = order.mp_order_number, order.fulfillments or ()
    key = (seller_id, number, read_at, snapshot_hash)
    values[SHIPMENTS.name] = _shipments(key, fulfillments)
    values[CANCELLATIONS.name] = _cancellations(key, fulfillments)
    snapshot = encode(order.snapshot())
    values[SNAPSHOTS.name] = [(seller_id, number, read_at, encoded_hash(snapshot), snapshot.decode())]
    return values


def order_rows(seller_id: str, order: Order, *, read_at: datetime) -> Rows:
    """As `order_values`, each row a dict by column name."""
    return rows_of(order_values(seller_id, order, read_at=read_at))


def placed_rows(seller_id: str, order: Order, *, placed_at: datetime) -> Rows:
    """Rows of an order that was placed and not yet read from FeedAMP; any snapshot replaces them."""
    rows = rows_of(_order_and_lines(seller_id, order, placed_at, "", extracted_at=None))
    for row in rows[ORDERS.name]:
        del row["extracted_at"], row[SNAPSHOT_HASH]  # the merge knows by their absence that nothing was read
    return rows


def rows_of(values: Values) -> Rows:
    """The same rows as dicts by column name."""
    return {
        table: [dict(zip(VALUE_COLUMNS[table], row, strict=True)) for row in rows]
        for table, rows in values.items()
    }


def joined(orders: Iterable[Values]) -> Values:
    """The rows of several orders."""
    all_values: Values = {table: [] for table in VALUE_COLUMNS}
    for values in orders:
        for table, rows in values.items():
            all_values[table] += rows
    return all_values


def _shipments(key: tuple[Any, ...], fulfillments: Iterable[LineFulfillment]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    first: dict[str, int] = {}
    for entry in fulfillments:
        number = entry.mp_line_number
        # A line may have two entries; the index continues, so that every row has a unique key.
        index = first.get(number, 0)
        for shipment in entry.shipments:
            verdict = carriers.check(shipment.carrier, shipment.tracking_number, url=shipment.tracking_url)
            # `_value_` is what `str` gives, which takes ten times as long.
            rows.append(
                (*key, number, index, verdict.carrier_id, verdict.status._value_, *_of_shipment(shipment))
            )
            index += 1
        first[number] = index
    return rows


def _cancellations(key: tuple[Any, ...], fulfillments: Iterable[LineFulfillment]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    first: dict[str, int] = {}
    for entry in fulfillments:
        if entry.cancellations:
            number = entry.mp_line_number
            start = first.get(number, 0)
            rows += [
                (*key, number, index, *_of_cancellation(cancellation))
                for index, cancellation in enumerate(entry.cancellations, start)
            ]
            first[number] = start + len(entry.cancellations)
    return rows


def _order_and_lines(
    seller_id: str,
    order: Order,
    recorded_at: datetime,
    snapshot_hash: str,
    *,
    extracted_at: datetime | None,
) -> Values:
    key = (seller_id, order.mp_order_number, recorded_at, snapshot_hash)
    lines = {line.mp_line_number: line for line in order.order_lines}
    units = count_units(
        {number: line.quantity or 0 for number, line in lines.items()}, order.fulfillments or ()
    )
    totals = [0] * 5
    of_lines: list[tuple[Any, ...]] = []
    for number, of_line in units.items():
        ordered, shipped, cancelled = of_line
        left = ordered - shipped - cancelled
        pending = max(0, left)
        totals[0] += ordered
        totals[1] += shipped
        totals[2] += cancelled
        totals[3] += pending
        totals[4] += pending - left
        counts = (shipped, cancelled, pending)
        line = lines.get(number)
        if line is None:
            of_lines.append((*key, number, None, None, ordered, None, None, *counts, None))
            continue
        extra = dict(line.extra) if line.extra else {}
        unit_price = _money("unit_price", line.unit_price, extra)
        shipping_price = _money("shipping_price", line.shipping_price, extra)
        of_lines.append(
            (
                *(*key, number, line.sku, line.product_name, ordered, unit_price, shipping_price),
                *(*counts, _json(extra)),
            )
        )
    row = (
        *(*key, extracted_at, _json(order.extra)),
        *totals,
        *_of_order(order),
        *_of_customer(order.customer),
        *_of_address(order.shipping_address),
    )
    further = {number: line for number, line in lines.items() if line.extra}
    return {
        ORDERS.name: [row],
        ORDER_LINES.name: of_lines,
        ORDER_TAXES.name: list(_amounts(key, further, "taxes")) if further else [],
        ORDER_DISCOUNTS.name: list(_amounts(key, further, "discounts")) if further else [],
    }


def _amounts(key: tuple[Any, ...], lines: Mapping[str, OrderLine], member: str) -> Iterator[tuple[Any, ...]]:
    """Rows of the taxes or discounts of all lines; what is not an object remains only in `extra` of its line."""
    for number, line in lines.items():
        items = line.extra.get(member)
        for place, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                extra = dict(item)
                named = next((n for n in ("name", "type") if isinstance(item.get(n), str) and item[n]), None)
                name, amount = named and extra.pop(named), _decimal(item.get("amount"))
                if amount is not None:
                    del extra["amount"]
                    amount = _money("amount", amount, extra)
                yield (*key, number, place, name, amount, _json(extra))


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
    if held is not amount and (held is None or held != amount):
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
