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
from feedamp.rules.units import added_up
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
    Row,
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
_OF_ORDERED = ("units_ordered", "units_pending", "units_over")
_PRICES = ("unit_price", "shipping_price")
_AMOUNTS = {"taxes": (ORDER_TAXES.name, "tax_index"), "discounts": (ORDER_DISCOUNTS.name, "discount_index")}
_PARTS = {SHIPMENTS.name: Shipment, CANCELLATIONS.name: Cancellation}
_NOT_ORDERED = OrderLine(mp_line_number="")
_Line = tuple[int, str]  # the position of its order, and its number
_Parts = tuple[Sequence[_Line], Sequence[Any]]


@dataclass(frozen=True)
class OrderColumns:
    """Rows of orders, by column.

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
    parts = {table: _parts_of(orders, table) for table in _PARTS}
    found = _orders_and_lines(seller_id, orders, read_at, hashes, parts)
    found.tables[ORDERS.name]["extracted_at"] = read_at
    for table, (keys, of_table) in parts.items():
        _add_parts(found, table, keys, of_table)
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
    [rows] = rows_of_placed([(seller_id, order, placed_at)])
    by_table: Rows = {
        table: [] for table in (ORDERS.name, ORDER_LINES.name, ORDER_TAXES.name, ORDER_DISCOUNTS.name)
    }
    for table, row in rows:
        by_table[table].append(row)
    return by_table


def rows_of_placed(placed: Sequence[tuple[str, Order, datetime]]) -> list[list[tuple[str, Row]]]:
    """As `placed_rows`, of orders of any sellers at once: the rows of each order, with the names of their tables."""
    if not placed:
        return []
    sellers, orders, placed_at = zip(*placed, strict=True)
    parts = {table: _parts_of(orders, table) for table in _PARTS}
    found = _orders_and_lines("", orders, placed_at, ("",) * len(placed), parts)
    found.key["seller_id"] = sellers
    of_each: list[list[tuple[str, Row]]] = [[] for _ in placed]
    for table, rows in rows_of(found).items():
        for at, row in zip(found.orders_of.get(table, range(len(placed))), rows, strict=True):
            if table == ORDERS.name:
                del row[SNAPSHOT_HASH]  # absent here, but empty of its lines: nothing was read
            of_each[at].append((table, row))
    return of_each


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
    seller_id: str,
    orders: Sequence[Order],
    recorded_at: Sequence[datetime],
    hashes: Sequence[str],
    parts: Mapping[str, _Parts],
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
    of_orders |= _add_lines(found, orders, parts)
    return found


def _fields(names: Sequence[str], values: Sequence[Any], prefix: str = "") -> Columns:
    """A column for each of the fields."""
    return {f"{prefix}{name}": list(map(attrgetter(name), values)) for name in names}


def _turned(rows: Iterable[tuple[Any, ...]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _parts_of(orders: Sequence[Order], table: str) -> _Parts:
    """The shipments or cancellations of all orders, as the table is named, behind the line of each."""
    of_entry = attrgetter(table)
    found = [
        ((position, entry.mp_line_number), part)
        for position, order in enumerate(orders)
        for entry in order.fulfillments or ()
        for part in of_entry(entry)
    ]
    lines, parts = _turned(found, 2)
    return lines, parts


def _add_lines(found: OrderColumns, orders: Sequence[Order], parts: Mapping[str, _Parts]) -> Columns:
    """Adds the lines, those that were never ordered last; returns columns with the units of the orders."""
    by_key: dict[_Line, OrderLine] = {}
    ends = [0]
    for position, order in enumerate(orders):
        for line in order.order_lines:
            by_key[position, line.mp_line_number] = line
        for entry in order.fulfillments or ():
            by_key.setdefault((position, entry.mp_line_number), _NOT_ORDERED)
        ends.append(len(by_key))
    lines = list(by_key.values())
    of, numbers = _turned(by_key, 2)
    ordered = [line.quantity or 0 for line in lines]
    shipped, cancelled = (
        list(added_up(dict.fromkeys(by_key, 0), *parts[table]).values())
        for table in (SHIPMENTS.name, CANCELLATIONS.name)
    )
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
    sums: Columns = {
        name: _sums(units, ends)
        for name, units in zip(_UNITS, (ordered, shipped, cancelled, pending, over), strict=True)
    }
    if all(order.order_lines for order in orders):
        return sums
    # Of an order that shows no lines, it is unknown what was ordered.
    unknown = {
        name: [units if order.order_lines else None for units, order in zip(sums[name], orders, strict=True)]
        for name in _OF_ORDERED
    }
    return sums | unknown


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


def _add_parts(found: OrderColumns, table: str, lines: Sequence[_Line], parts: Sequence[Any]) -> None:
    """Adds the shipments or cancellations, each with its position within its line."""
    kind = _PARTS[table]
    found.orders_of[table], numbers = _turned(lines, 2)
    found.tables[table] = {
        "mp_line_number": numbers,
        f"{table.removesuffix('s')}_index": _indexes(lines),
        **_fields(kind.__struct_fields__, parts),
    }
    if kind is Shipment:
        verdicts = [
            carriers.check(part.carrier, part.tracking_number, url=part.tracking_url) for part in parts
        ]
        found.tables[table] |= {
            "carrier_id": [verdict.carrier_id for verdict in verdicts],
            # `_value_` is what `str` gives, which takes ten times as long.
            "tracking_check": [verdict.status._value_ for verdict in verdicts],
        }


def _indexes(lines: Sequence[_Line]) -> list[int]:
    """How many rows of its line are before each row. A line may have two entries; the count continues."""
    if len(set(lines)) == len(lines):
        return [0] * len(lines)
    before: Counter[_Line] = Counter()
    indexes = []
    for line in lines:
        indexes.append(before[line])
        before[line] += 1
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
