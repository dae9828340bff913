"""Decodes FeedAMP's JSON tolerantly: unknown fields are stored, coercions are counted, wrong types are errors.

Implements promise 12. `read_order` returns an `Order` or raises `UnreadableError`, which names the field. An order whose
values all have the types of the contract is read at once (`plain_orders`), any other one value by value. Values that have another type but a clear meaning are accepted and counted in `Coercions`: a number as a decimal string, a
date as a date-time, a time without zone (which the contract says is UTC in bodies).
"""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from feedamp.api.json_fields import Coercions, Fields, JsonObject, cursor_in
from feedamp.api.pages import UNREADABLE_CURSOR
from feedamp.api.plain_orders import (
    CANCELLATION_FIELDS,
    FULFILLMENT_FIELDS,
    LINE_FIELDS,
    ORDER_FIELDS,
    SHIPMENT_FIELDS,
    PlainOrders,
)
from feedamp.codec import decode_json, decoder_of, has_nul
from feedamp.errors import UnreadableError
from feedamp.models import (
    Address,
    Cancellation,
    Customer,
    LineFulfillment,
    ListedError,
    Order,
    OrderLine,
    Shipment,
)

_Flat = TypeVar("_Flat", Customer, Address)


_ANSWER_FIELDS = frozenset({"status", "is_marketplace_fulfilled", "fulfillments"})
_ORDER_TEXTS = ("sales_channel", "currency", "status", "marketplace_state", "delivery_notes")
_ORDER_FLAGS = ("acknowledged", "is_marketplace_fulfilled")
_ORDER_MOMENTS = tuple(name for name in Order.__struct_fields__ if name.endswith("_date"))


# A member of a page in its text; the first character of its value is no letter of a longer word.
_VALUE = rb'\s*:\s*("(?:[^"\\]|\\.)*+"|-?\d+|null)'
_NUMBER, _CURSOR = re.compile(rb'"mp_order_number"' + _VALUE), re.compile(rb'"next_cursor"' + _VALUE)


def number_of(item: Any) -> str | None:
    """The order number of an item, which may otherwise be unreadable; None if it has none."""
    if isinstance(item, Order):
        return item.mp_order_number
    try:
        if isinstance(item, msgspec.Raw):
            item = decode_json(bytes(item))
        return Fields(item, "order", "", "", Coercions(), {}).identifier("mp_order_number", "No number.")
    except UnreadableError:
        return None


class _Page(msgspec.Struct):
    orders: list[msgspec.Raw] | None
    next_cursor: str | None = None


class _Ends(msgspec.Struct):
    orders: msgspec.Raw
    next_cursor: str | None = None


_PLAIN_PAGE, _ENDS = decoder_of(_Page), decoder_of(_Ends)
_PLAIN = PlainOrders()


def read_page(body: bytes, coercions: Coercions) -> tuple[Sequence[Any] | None, str | None]:
    """The items of a page of GET /orders as `read_order` takes them, None if they are null, and its next cursor, if any.

    That is `UNREADABLE_CURSOR` if its shape is unknown.

    Raises:
        UnreadableError: the body is not a page.
    """
    if not has_nul(body):
        read = _PLAIN.read_page(body, coercions)
        if read is not None:
            return read
        try:
            page = _PLAIN_PAGE.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # another type, or JSON that must be read as it is meant
        else:
            return page.orders, cursor_in(page.next_cursor)
    fields = Fields(decode_json(body, coercions), "page", "", "", coercions, {})
    if "orders" not in fields.values:
        raise UnreadableError("The page has no orders.", where="orders")
    return fields.items("orders", {"mp_order_number"}), _next_cursor(fields)


def _next_cursor(fields: Fields) -> str | None:
    match fields.values.get("next_cursor"):
        case [(str() | None) as only]:
            fields.coercions["list_for_text"] += 1
            return cursor_in(only)
    try:
        return cursor_in(fields.text("next_cursor"))
    except UnreadableError:
        return UNREADABLE_CURSOR  # the orders of the page are read all the same


def cursor_of(body: bytes) -> str | None:
    """The next cursor of a page without its orders being decoded; None if it has none, or no orders, or is not plain."""
    try:
        ends = _ENDS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return cursor_in(ends.next_cursor) if bytes(memoryview(ends.orders)[:1]) == b"[" else None


def salvage_page(body: bytes) -> tuple[list[str], str | None]:
    """The order numbers and the next cursor in the text of a page that is not JSON, or too large to be decoded.

    Raises:
        UnreadableError: it names no next cursor, or may be cut off.
    """
    cursors, numbers = list(_CURSOR.finditer(body)), list(_NUMBER.finditer(body))
    if not cursors:
        raise UnreadableError("The page has no end.", where="next_cursor")
    is_cursor_last = not numbers or cursors[-1].start() > numbers[-1].start()
    if not is_cursor_last and any(body.count(a) != body.count(b) for a, b in (b"{}", b"[]")):
        raise UnreadableError("The page may be cut off.", where="orders")
    found = dict.fromkeys(_text_of(number[1]) for number in numbers)
    return list(filter(None, found)), cursor_in(_text_of(cursors[-1][1]))


def _text_of(scanned: bytes) -> str | None:
    """The text of a JSON text or number; None for null, and for one that is not JSON."""
    try:
        value = decode_json(scanned)
    except UnreadableError:
        return None
    return None if value is None else str(value)


def read_order(item: Any, coercions: Coercions) -> Order:
    """One item of GET /orders or the answer of GET /orders/{n}: decoded, as `msgspec.Raw` its text, or read already.

    Raises:
        UnreadableError: a known field has a type that cannot be converted, or the conversion failed in any other way.
    """
    if isinstance(item, Order):
        return item
    if isinstance(item, msgspec.Raw):
        plain = _PLAIN.read_text(item, coercions)
        if plain is not None:
            return plain
        item = decode_json(bytes(item), coercions)
    plain = _PLAIN.read(item, coercions)
    return read_tolerantly(item, coercions) if plain is None else plain


def read_tolerantly(item: Any, coercions: Coercions) -> Order:
    """As `read_order`, value by value, whatever their types are."""
    try:
        return _read_order(item, coercions)
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError("The order cannot be converted.", where=type(error).__name__) from error


def _read_order(item: Any, coercions: Coercions) -> Order:
    fields = Fields(item, "order", "", "", coercions, {})
    number = fields.identifier("mp_order_number", "The order has no number.")
    fields.keep_unknown(ORDER_FIELDS)
    values: dict[str, Any] = {
        "customer": _flat(fields, "customer", Customer),
        "shipping_address": _flat(fields, "shipping_address", Address),
        "order_lines": tuple(
            _read_line(line) for line in fields.each("order_lines", LINE_FIELDS, apart=True)
        ),
        "fulfillments": _if_readable(fields),
        "errors": _read_errors(fields),
    }
    values |= {name: fields.text(name) for name in _ORDER_TEXTS}
    values |= {name: fields.flag(name) for name in _ORDER_FLAGS}
    values |= {name: fields.moment(name) for name in _ORDER_MOMENTS}
    return Order(mp_order_number=number, extra=fields.extra, **values)


def read_fulfillments(
    body: Any, coercions: Coercions
) -> tuple[tuple[LineFulfillment, ...], bool | None, JsonObject]:
    """GET /orders/{n}/fulfillments (contract 3.4): fulfillments, is_marketplace_fulfilled, unknown fields.

    Raises:
        UnreadableError: the answer is not of the documented shape.
    """
    fields = Fields(body, "fulfillments answer", "", "fulfillments_answer.", coercions, {})
    fields.keep_unknown(_ANSWER_FIELDS)
    return _read_line_fulfillments(fields), fields.flag("is_marketplace_fulfilled"), fields.extra


def _if_readable(fields: Fields) -> tuple[LineFulfillment, ...] | None:
    """The fulfillments of a list answer; None if they cannot be read, so that the caller requests them separately."""
    if not _has_inferred_shape(fields.values.get("fulfillments")):
        return None
    found = Fields(fields.values, "order", "", "", Coercions(), {})
    try:
        read = _read_line_fulfillments(found)
    except UnreadableError:
        return None
    fields.coercions.update(found.coercions)
    fields.extra.update(found.extra)
    return read


def _has_inferred_shape(value: Any) -> bool:
    """Whether the `fulfillments` of a list answer have the inferred shape.

    An entry has that shape if it names its line, has at least one other member of the documented entry, and does not
    carry members of a shipment or cancellation directly.
    """
    if not isinstance(value, list):
        return isinstance(value, dict) and not value  # an empty list, as some servers write it
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("mp_line_number"), str | int):
            return False
        members = item.keys() & (FULFILLMENT_FIELDS - {"mp_line_number"})
        if not members or item.keys() & ((SHIPMENT_FIELDS | CANCELLATION_FIELDS) - FULFILLMENT_FIELDS):
            return False
    return True


def _read_line_fulfillments(fields: Fields) -> tuple[LineFulfillment, ...]:
    read = []
    for entry in fields.each("fulfillments", FULFILLMENT_FIELDS):
        number = entry.identifier("mp_line_number", "A fulfillment names no line.")
        if isinstance(entry.values.get("pending"), dict):
            entry.inner("pending", {"quantity"})
        shipments = [
            Shipment(
                quantity=shipment.units("quantity"),
                carrier=shipment.text("carrier"),
                tracking_number=shipment.text("tracking_number"),
                shipped_date=shipment.day("shipped_date"),
                tracking_url=shipment.text("tracking_url"),
            )
            for shipment in entry.each("shipments", SHIPMENT_FIELDS)
        ]
        cancellations = [
            Cancellation(quantity=cancellation.units("quantity"), reason=cancellation.text("reason"))
            for cancellation in entry.each("cancellations", CANCELLATION_FIELDS)
        ]
        read.append(
            LineFulfillment(
                mp_line_number=number, shipments=tuple(shipments), cancellations=tuple(cancellations)
            )
        )
    return tuple(read)


def _read_line(fields: Fields) -> OrderLine:
    number = fields.identifier("mp_line_number", "An order line has no number.")
    return OrderLine(
        mp_line_number=number,
        sku=fields.text("sku"),
        product_name=fields.text("product_name"),
        quantity=fields.whole("quantity"),
        unit_price=fields.money("unit_price"),
        shipping_price=fields.money("shipping_price"),
        extra=fields.extra,
    )


def _read_errors(fields: Fields) -> tuple[ListedError, ...] | None:
    """`errors` is only assumed to exist (Q12): absent or null gives None, so that it is not mistaken for an empty list."""
    if fields.values.get("errors") is None:
        return None
    return tuple(
        ListedError(
            code=error.text("code") or "",
            message=error.text("message") or "",
            mp_line_number=error.text("mp_line_number"),
        )
        for error in fields.each("errors", ListedError.__struct_fields__, text_is="message")
    )


def _flat(fields: Fields, key: str, model: type[_Flat]) -> _Flat:
    known = model.__struct_fields__
    inner = fields.inner(key, known)
    return model() if inner is None else model(**{name: inner.text(name) for name in known})
