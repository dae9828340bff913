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
from feedamp.codec import content_hashes, encode, encoded_hash
from feedamp.lake.made_by import made_by
from feedamp.models import Address, Cancellation, Customer, Order, OrderLine, ReadOrder, Shipment
from feedamp.money import fitted
from feedamp.rules.units import added_up
from feedamp.tables import (
    CANCELLATIONS,
    MADE_BY,
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
_NOT_ORDERED = OrderLine(mp_line_number="")
_MADE_BY = made_by()


@dataclass(frozen=True)
class OrderColumns:
    """Rows of orders, by column.

    `key` has a value for each order, which its rows of all tables share; `tables` has the further columns of each table.
    `orders_of` has the position of its order for each row of a table; orders and snapshots have one row an order.
    """

    key: Columns
    tables: dict[str, Columns]
    orders_of: dict[str, Sequence[int]]


class _Lines:
    """The lines of orders, each once, and of an order those last that were never ordered.

    `numbers` has the number of each, `of` the position of its order, and `ends` where the lines of each order end, behind a
    zero. Behind each of the `shipments` and `cancellations`, as their tables are named, is the position of its line.
    """

    def __init__(self, orders: Sequence[Order]) -> None:
        self.lines: list[OrderLine] = []
        self.numbers: list[str] = []
        self.of: list[int] = []
        self.ends = [0]
        self.shipments: list[Shipment] = []
        self.cancellations: list[Cancellation] = []
        self.of_parts: dict[str, list[int]] = {SHIPMENTS.name: [], CANCELLATIONS.name: []}
        lines, numbers, of, ends = self.lines, self.numbers, self.of, self.ends
        shipments, cancellations = self.shipments, self.cancellations
        of_shipments, of_cancellations = self.of_parts.values()
        for position, order in enumerate(orders):
            place_of: dict[str, int] = {}
            for line in order.order_lines:
                number = line.mp_line_number
                if number in place_of:
                    lines[place_of[number]] = line
                else:
                    place_of[number] = len(lines)
                    lines.append(line)
                    numbers.append(number)
                    of.append(position)
            for entry in order.fulfillments or ():
                number = entry.mp_line_number
                if number not in place_of:
                    place_of[number] = len(lines)
                    lines.append(_NOT_ORDERED)
                    numbers.append(number)
                    of.append(position)
                for shipment in entry.shipments:
                    shipments.append(shipment)
                    of_shipments.append(place_of[number])
                for cancellation in entry.cancellations:
                    cancellations.append(cancellation)
                    of_cancellations.append(place_of[number])
            ends.append(len(lines))


def order_columns(sellers: Sequence[str], read: Sequence[ReadOrder]) -> OrderColumns:
    """Rows of orders read from FeedAMP, each with its seller's id: orders and their children, and snapshots."""
    orders, read_at = [one.order for one in read], [one.read_at for one in read]
    lines = _Lines(orders)
    # Of the whole order: of two answers of one microsecond the same one then counts, whatever they differ in.
    hashes = content_hashes(orders)
    found = _orders_and_lines(sellers, orders, read_at, hashes, lines)
    found.tables[ORDERS.name] |= {"extracted_at": read_at, MADE_BY: [_MADE_BY] * len(orders)}
    _add_parts(found, CANCELLATIONS.name, lines, lines.cancellations, Cancellation)
    _add_parts(found, SHIPMENTS.name, lines, lines.shipments, Shipment)
    found.tables[SHIPMENTS.name] |= _verdicts(found.tables[SHIPMENTS.name])
    snapshots = [encode(order.snapshot()) for order in orders]
    found.tables[SNAPSHOTS.name] = {
        SNAPSHOT_HASH: list(map(encoded_hash, snapshots)),
        "snapshot": [snapshot.decode() for snapshot in snapshots],
    }
    return found


def order_rows(seller_id: str, order: Order, *, read_at: datetime, is_repair: bool = False) -> Rows:
    """The rows of one order, each a dict by column name.

    Those of a repair do not say what code made them, so that a load writes all of them even if the order is unchanged.
    """
    rows = rows_of(order_columns([seller_id], [ReadOrder(order, read_at)]))
    if is_repair:
        del rows[ORDERS.name][0][MADE_BY]
    return rows


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
    found = _orders_and_lines(sellers, orders, placed_at, ("",) * len(placed), _Lines(orders))
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
    sellers: Sequence[str],
    orders: Sequence[Order],
    recorded_at: Sequence[datetime],
    hashes: Sequence[str],
    lines: _Lines,
) -> OrderColumns:
    key: Columns = {
        "seller_id": sellers,
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
    of_orders |= _add_lines(found, orders, lines)
    return found


def _fields(names: Sequence[str], values: Sequence[Any], prefix: str = "") -> Columns:
    """A column for each of the fields."""
    return {f"{prefix}{name}": list(map(attrgetter(name), values)) for name in names}


def _turned(rows: Iterable[tuple[Any, ...]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _add_lines(found: OrderColumns, orders: Sequence[Order], of_orders: _Lines) -> Columns:
    """Adds the lines; returns columns with the units of the orders."""
    lines = of_orders.lines
    ordered = [line.quantity or 0 for line in lines]
    shipped = added_up(len(lines), of_orders.of_parts[SHIPMENTS.name], of_orders.shipments)
    cancelled = added_up(len(lines), of_orders.of_parts[CANCELLATIONS.name], of_orders.cancellations)
    pending = over = left = [a - s - c for a, s, c in zip(ordered, shipped, cancelled, strict=True)]
    if any(left):
        pending = [max(0, units) for units in left]
        over = [units - more for units, more in zip(pending, left, strict=True)]
    prices, extras = _prices(lines)
    found.tables[ORDER_LINES.name] = {
        "mp_line_number": of_orders.numbers,
        **_fields(("sku", "product_name"), lines),
        "quantity": ordered,
        **prices,
        "units_shipped": shipped,
        "units_cancelled": cancelled,
        "units_pending": pending,
        "extra": [_json(extra) if extra else None for extra in extras],
    }
    found.orders_of[ORDER_LINES.name] = of_orders.of
    _add_amounts(found, of_orders.of, lines)
    sums: Columns = {
        name: _sums(units, of_orders.ends)
        for name, units in zip(_UNITS, (ordered, shipped, cancelled, pending, over), strict=True)
    }
    if all(order.order_lines for order in orders):
        return sums
    # Of an order that shows no lines, it is unknown what was ordered, also of the lines that its fulfillments name.
    unknown = [not order.order_lines for order in orders]
    of_lines = found.tables[ORDER_LINES.name]
    of_lines |= _without(of_lines, ("quantity", "units_pending"), [unknown[at] for at in of_orders.of])
    return sums | _without(sums, _OF_ORDERED, unknown)


def _without(columns: Columns, names: Sequence[str], unknown: Sequence[bool]) -> Columns:
    """The columns with null in the rows that are unknown."""
    return {
        name: [
            None if is_unknown else value for value, is_unknown in zip(columns[name], unknown, strict=True)
        ]
        for name in names
    }


def _sums(units: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The sum of the units of each order, whose lines end before `ends`."""
    if not any(units):
        return [0] * (len(ends) - 1)
    sums = [0, *accumulate(units)]
    return [sums[end] - sums[start] for start, end in pairwise(ends)]


def _prices(lines: Sequence[OrderLine]) -> tuple[Columns, list[dict[str, Any]]]:
    """The prices as their columns can hold them, and what is stored as `extra` of each line."""
    prices, extras = _fields(_PRICES, lines), [line.extra for line in lines]
    # Of one object each: nearly all lines share their amounts with others.
    amounts: dict[int, Decimal | None] = {}
    for column in prices.values():
        amounts.update(zip(map(id, column), column, strict=True))
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


def _add_parts(
    found: OrderColumns, table: str, lines: _Lines, parts: Sequence[Any], kind: type[Shipment | Cancellation]
) -> None:
    """Adds the shipments or cancellations, each with its position within its line."""
    places = lines.of_parts[table]
    found.orders_of[table] = [lines.of[place] for place in places]
    found.tables[table] = {
        "mp_line_number": [lines.numbers[place] for place in places],
        f"{table.removesuffix('s')}_index": _indexes(places),
        **_fields(kind.__struct_fields__, parts),
    }


def _verdicts(shipments: Columns) -> Columns:
    stated, numbers, links = (shipments[name] for name in ("carrier", "tracking_number", "tracking_url"))
    verdicts = carriers.check_all(stated, numbers, links)
    return {
        "carrier_id": [verdict.carrier_id for verdict in verdicts],
        # `_value_` is what `str` gives, which takes ten times as long.
        "tracking_check": [verdict.status._value_ for verdict in verdicts],
    }


def _indexes(lines: Sequence[int]) -> list[int]:
    """How many rows of its line are before each row. A line may have two entries; the count continues."""
    if len(set(lines)) == len(lines):
        return [0] * len(lines)
    before: Counter[int] = Counter()
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
