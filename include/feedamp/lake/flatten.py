"""PURE: turns orders into rows of the lake tables, by column.

Of many orders each column is one list, and no object is made for a row; `rows_of` makes rows as dicts of them. Of two rows
of one order, the one with the later `recorded_at` is newer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import Any

from feedamp import carriers
from feedamp.codec import content_hash, encode, encoded_hash
from feedamp.models import Address, Cancellation, Customer, Order, OrderLine, ReadOrder, Shipment
from feedamp.money import fitted
from feedamp.rules.units import shipped_and_cancelled
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
Columns = dict[str, Sequence[Any]]

# Fields of an order that are columns of the same name.
_ORDER_COLUMNS = tuple(
    name
    for name in Order.__struct_fields__
    if name in ORDERS.names and name not in ("mp_order_number", "extra")
)
_UNITS = ("units_ordered", "units_shipped", "units_cancelled", "units_pending", "units_over")
_PRICES = ("unit_price", "shipping_price")
_AMOUNTS = {"taxes": (ORDER_TAXES.name, "tax_index"), "discounts": (ORDER_DISCOUNTS.name, "discount_index")}
_PARTS = {SHIPMENTS.name: Shipment, CANCELLATIONS.name: Cancellation}
_NOT_ORDERED = OrderLine(mp_line_number="")


@dataclass(frozen=True)
class OrderColumns:
    """Rows of orders of one seller, by column.

    `key` has a value for each order, which its rows of all tables share; `tables` has the further columns of each table.
    `orders_of` has the position of its order for each row of a table; orders and snapshots have one row an order.
    """

    key: Columns
    tables: dict[str, Columns]
    orders_of: dict[str, Sequence[int]]


def order_columns(seller_id: str, read: Sequence[ReadOrder]) -> OrderColumns:
    """Rows of orders read from FeedAMP: orders and their children, and snapshots."""
    orders, read_at = [one.order for one in read], [one.read_at for one in read]
    # Of the whole order: of two answers of one microsecond the same one then counts, whatever they differ in.
    hashes = list(map(content_hash, orders))
    found = _orders_and_lines(seller_id, orders, read_at, hashes)
    found.tables[ORDERS.name]["extracted_at"] = read_at
    for table in _PARTS:
        _add_parts(found, orders, table)
    snapshots = [encode(order.snapshot()) for order in orders]
    found.tables[SNAPSHOTS.name] = {
        SNAPSHOT_HASH: list(map(encoded_hash, snapshots)),
        "snapshot": [snapshot.decode() for snapshot in snapshots],
    }
    return found


def order_rows(seller_id: str, order: Order, *, read_at: datetime) -> Rows:
    """The rows of one order, each a dict by column name."""
    return rows_of(order_columns(seller_id, [ReadOrder(order, read_at)]))


def placed_rows(seller_id: str, order: Order, *, placed_at: datetime) -> Rows:
    """Rows of an order that was placed and not yet read from FeedAMP; any snapshot replaces them."""
    rows = rows_of(_orders_and_lines(seller_id, [order], [placed_at], [""]))
    for row in rows[ORDERS.name]:
        del row[SNAPSHOT_HASH]  # the merge knows by its absence that nothing was read
    return rows


def rows_of(found: OrderColumns) -> Rows:
    """The same rows as dicts by column name."""
    rows: Rows = {}
    for table, columns in found.tables.items():
        of = found.orders_of.get(table)
        key = (
            found.key
            if of is None
            else {name: [values[at] for at in of] for name, values in found.key.items()}
        )
        every = key | columns
        rows[table] = [dict(zip(every, row, strict=True)) for row in zip(*every.values(), strict=True)]
    return rows


def _orders_and_lines(
    seller_id: str, orders: Sequence[Order], recorded_at: Sequence[datetime], hashes: Sequence[str]
) -> OrderColumns:
    key: Columns = {
        "seller_id": [seller_id] * len(orders),
        "mp_order_number": [order.mp_order_number for order in orders],
        RECORDED_AT: recorded_at,
        SNAPSHOT_HASH: hashes,
    }
    of_orders: Columns = {
        "extra": [_json(order.extra) if order.extra else None for order in orders],
        **_fields(_ORDER_COLUMNS, orders),
        **_fields(Customer.__struct_fields__, [order.customer for order in orders], "customer_"),
        **_fields(
            Address.__struct_fields__, [order.shipping_address for order in orders], "shipping_address_"
        ),
    }
    found = OrderColumns(key, {ORDERS.name: of_orders}, {})
    of_orders |= _add_lines(found, orders)
    return found


def _fields(names: Sequence[str], values: Iterable[Any], prefix: str = "") -> Columns:
    """A column for each of the fields."""
    columns = _turned(map(attrgetter(*names), values), len(names))
    return {f"{prefix}{name}": column for name, column in zip(names, columns, strict=True)}


def _turned(rows: Iterable[tuple[Any, ...]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _add_lines(found: OrderColumns, orders: Sequence[Order]) -> Columns:
    """Adds the lines, those that were never ordered last; returns columns with the units of the orders."""
    of, numbers, lines = list[int](), list[str](), list[OrderLine]()
    shipped, cancelled, ends = list[int](), list[int](), [0]
    for position, order in enumerate(orders):
        sent, not_sent = shipped_and_cancelled(order.fulfillments or ())
        by_number = {line.mp_line_number: line for line in order.order_lines}
        if not sent.keys() <= by_number.keys():
            by_number |= {number: _NOT_ORDERED for number in sent if number not in by_number}
        of += [position] * len(by_number)
        numbers += by_number
        lines += by_number.values()
        shipped += [sent.get(number, 0) for number in by_number]
        cancelled += [not_sent.get(number, 0) for number in by_number]
        ends.append(len(lines))
    ordered = [line.quantity or 0 for line in lines]
    left = [all_ - gone - lost for all_, gone, lost in zip(ordered, shipped, cancelled, strict=True)]
    pending = [max(0, units) for units in left]
    over = [units - more for units, more in zip(pending, left, strict=True)]
    prices, extras = _prices(lines)
    found.tables[ORDER_LINES.name] = {
        "mp_line_number": numbers,
        **_fields(("sku", "product_name"), lines),
        "quantity": ordered,
        **prices,
        "units_shipped": shipped,
        "units_cancelled": cancelled,
        "units_pending": pending,
        "extra": [_json(extra) if extra else None for extra in extras],
    }
    found.orders_of[ORDER_LINES.name] = of
    _add_amounts(found, of, lines)
    return {
        name: _sums(units, ends)
        for name, units in zip(_UNITS, (ordered, shipped, cancelled, pending, over), strict=True)
    }


def _sums(units: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The sum of the units of each order, whose lines end before `ends`."""
    sums = [0, *accumulate(units)]
    return [sums[end] - sums[start] for start, end in pairwise(ends)]


def _prices(lines: Sequence[OrderLine]) -> tuple[Columns, list[dict[str, Any]]]:
    """The prices as their columns can hold them, and what is stored as `extra` of each line."""
    prices, extras = _fields(_PRICES, lines), [line.extra for line in lines]
    # Of one object each: nearly all lines share their amounts with others.
    amounts = {id(amount): amount for column in prices.values() for amount in column}
    odd = {key for key, amount in amounts.items() if amount is not None and _is_inexact(amount)}
    for name, column in prices.items() if odd else ():
        for at, amount in enumerate(column):
            if id(amount) in odd:
                extras[at] = dict(extras[at])
                _money(name, amount, extras[at])
        prices[name] = [_money(name, amount, {}) for amount in column]
    return prices, extras


def _add_amounts(found: OrderColumns, of: Sequence[int], lines: Sequence[OrderLine]) -> None:
    """Adds the taxes and discounts of all lines; what is not an object remains only in `extra` of its line."""
    further = [(position, line) for position, line in zip(of, lines, strict=True) if line.extra]
    for member, (table, index) in _AMOUNTS.items():
        rows = list(_amounts(further, member))
        names = ("mp_line_number", index, "name", "amount", "extra")
        found.orders_of[table], *columns = _turned(rows, 1 + len(names))
        found.tables[table] = dict(zip(names, columns, strict=True))


def _amounts(lines: Iterable[tuple[int, OrderLine]], member: str) -> Iterator[tuple[Any, ...]]:
    for position, line in lines:
        items = line.extra.get(member)
        for place, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                extra = dict(item)
                named = next((n for n in ("name", "type") if isinstance(item.get(n), str) and item[n]), None)
                name, amount = named and extra.pop(named), _decimal(item.get("amount"))
                if amount is not None:
                    del extra["amount"]
                    amount = _money("amount", amount, extra)
                yield position, line.mp_line_number, place, name, amount, _json(extra)


def _add_parts(found: OrderColumns, orders: Sequence[Order], table: str) -> None:
    """Adds the shipments or cancellations, as the table is named, each with its position within its line."""
    of_entry = attrgetter(table)
    entries = [
        (position, entry.mp_line_number, parts)
        for position, order in enumerate(orders)
        for entry in order.fulfillments or ()
        if (parts := of_entry(entry))
    ]
    of = [position for position, _, parts in entries for _ in parts]
    numbers = [number for _, number, parts in entries for _ in parts]
    all_parts = [part for _, _, parts in entries for part in parts]
    kind = _PARTS[table]
    found.orders_of[table] = of
    found.tables[table] = {
        "mp_line_number": numbers,
        f"{table.removesuffix('s')}_index": _indexes(of, numbers),
        **_fields(kind.__struct_fields__, all_parts),
    }
    if kind is Shipment:
        verdicts = [
            carriers.check(part.carrier, part.tracking_number, url=part.tracking_url) for part in all_parts
        ]
        found.tables[table] |= {
            "carrier_id": [verdict.carrier_id for verdict in verdicts],
            # `_value_` is what `str` gives, which takes ten times as long.
            "tracking_check": [verdict.status._value_ for verdict in verdicts],
        }


def _indexes(of: Sequence[int], numbers: Sequence[str]) -> list[int]:
    """How many rows of its line are before each row. A line may have two entries; the count continues."""
    keys = list(zip(of, numbers, strict=True))
    if len(set(keys)) == len(keys):
        return [0] * len(keys)
    before: Counter[tuple[int, str]] = Counter()
    indexes = []
    for key in keys:
        indexes.append(before[key])
        before[key] += 1
    return indexes


def _decimal(value: Any) -> Decimal | None:
    """The number that a JSON value means, as text too; None if it means none."""
    try:
        return (
            None if isinstance(value, bool) else Decimal(value.strip() if isinstance(value, str) else value)
        )
    except (InvalidOperation, TypeError, ValueError):
        return None


def _is_inexact(amount: Decimal) -> bool:
    held = fitted(amount)
    return held is not amount and (held is None or held != amount)


def _money(name: str, amount: Decimal | None, extra: dict[str, Any]) -> Decimal | None:
    """The amount as its column can hold it. If that is not exact, the original amount is stored in `extra`."""
    if amount is None:
        return None
    if _is_inexact(amount):
        extra.setdefault(name, amount if amount.is_finite() else str(amount))
    return fitted(amount)


def _json(value: Mapping[str, Any]) -> str | None:
    if not value:
        return None
    content = encode(value)
    if len(content) > MOST_EXTRA_BYTES:
        # One order with 700,000 unknown fields took all memory of a warehouse.
        content = encode({"left_out": f"{len(value)} fields of {len(content)} bytes"})
    return content.decode()
