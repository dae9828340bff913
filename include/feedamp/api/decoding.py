"""Decodes FeedAMP's JSON tolerantly: unknown fields are stored, coercions are counted, wrong types are errors.

Implements promise 12. `read_order` returns an `Order` or raises `UnreadableError`, which names the field. Values
that have another type but a clear meaning are accepted and counted in `Coercions`: a number as a decimal string, a
date as a date-time, a time without zone (which the contract says is UTC in bodies).
"""

from __future__ import annotations

from typing import Any, TypeVar

from feedamp.api.json_fields import (
    Coercions,
    JsonObject,
    day_at,
    flag_at,
    list_at,
    moment_at,
    money_at,
    object_at,
    text_at,
    units_at,
    whole_at,
)
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


_ORDER_FIELDS = frozenset(Order.__struct_fields__) - {"extra"}
_LINE_FIELDS = frozenset(OrderLine.__struct_fields__) - {"extra"}
_SHIPMENT_FIELDS = frozenset(Shipment.__struct_fields__)
_CANCELLATION_FIELDS = frozenset(Cancellation.__struct_fields__)
_ERROR_FIELDS = frozenset(ListedError.__struct_fields__)
_FULFILLMENT_FIELDS = frozenset({"mp_line_number", "shipments", "cancellations", "status", "pending"})


def number_of(item: Any) -> str | None:
    """The order number of an item, which may otherwise be unreadable; None if it has none."""
    number = item.get("mp_order_number") if isinstance(item, dict) else None
    return number if isinstance(number, str) and number else None


def read_order(item: Any, coercions: Coercions) -> Order:
    """One item of GET /orders or the answer of GET /orders/{n}.

    Raises:
        UnreadableError: a known field has a type that cannot be converted.
    """
    fields = object_at(item, "order")
    number = text_at(fields, "mp_order_number")
    if not number:
        raise UnreadableError("The order has no number.", where="mp_order_number")
    extra = {key: value for key, value in fields.items() if key not in _ORDER_FIELDS}
    customer = _flat(fields, "customer", Customer, extra)
    address = _flat(fields, "shipping_address", Address, extra)
    lines = tuple(
        _read_line(object_at(line, f"order_lines[{i}]"), f"order_lines[{i}].", coercions)
        for i, line in enumerate(list_at(fields, "order_lines") or ())
    )
    return Order(
        mp_order_number=number,
        customer=customer,
        shipping_address=address,
        order_lines=lines,
        fulfillments=_if_readable(fields.get("fulfillments"), coercions, extra),
        errors=_read_errors(fields, extra),
        extra=extra,
        sales_channel=text_at(fields, "sales_channel"),
        currency=text_at(fields, "currency"),
        status=text_at(fields, "status"),
        marketplace_state=text_at(fields, "marketplace_state"),
        delivery_notes=text_at(fields, "delivery_notes"),
        acknowledged=flag_at(fields, "acknowledged"),
        is_marketplace_fulfilled=flag_at(fields, "is_marketplace_fulfilled"),
        purchase_date=moment_at(fields, "purchase_date", coercions),
        earliest_ship_date=moment_at(fields, "earliest_ship_date", coercions),
        latest_ship_date=moment_at(fields, "latest_ship_date", coercions),
        earliest_delivery_date=moment_at(fields, "earliest_delivery_date", coercions),
        latest_delivery_date=moment_at(fields, "latest_delivery_date", coercions),
    )


def read_fulfillments(
    body: Any, coercions: Coercions
) -> tuple[tuple[LineFulfillment, ...], bool | None, JsonObject]:
    """GET /orders/{n}/fulfillments (contract 3.4): fulfillments, is_marketplace_fulfilled, unknown fields.

    Raises:
        UnreadableError: the answer is not of the documented shape.
    """
    fields = object_at(body, "fulfillments answer")
    extra: JsonObject = {
        f"fulfillments_answer.{key}": value
        for key, value in fields.items()
        if key not in ("status", "is_marketplace_fulfilled", "fulfillments")
    }
    items = list_at(fields, "fulfillments") or []
    return (
        _read_line_fulfillments(items, coercions, extra),
        flag_at(fields, "is_marketplace_fulfilled"),
        extra,
    )


def _if_readable(value: Any, coercions: Coercions, extra: JsonObject) -> tuple[LineFulfillment, ...] | None:
    """The fulfillments of a list answer; None if they cannot be read, so that the caller requests them separately."""
    found_coercions, found_extra = Coercions(), JsonObject()
    try:
        read = _embedded_fulfillments(value, found_coercions, found_extra)
    except UnreadableError:
        return None
    coercions.update(found_coercions)
    extra.update(found_extra)
    return read


def _embedded_fulfillments(
    value: Any, coercions: Coercions, extra: JsonObject
) -> tuple[LineFulfillment, ...] | None:
    """The `fulfillments` of a list answer, or None if they do not have the inferred shape.

    An entry has that shape if it names its line, has at least one other member of the documented entry, and does not
    carry members of a shipment or cancellation directly.
    """
    if not isinstance(value, list):
        return None
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("mp_line_number"), str):
            return None
        members = item.keys() & (_FULFILLMENT_FIELDS - {"mp_line_number"})
        if not members or item.keys() & ((_SHIPMENT_FIELDS | _CANCELLATION_FIELDS) - _FULFILLMENT_FIELDS):
            return None
        for key in ("shipments", "cancellations"):
            entries = item.get(key)
            if entries is not None and not (
                isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
            ):
                return None
    return _read_line_fulfillments(value, coercions, extra)


def _read_line_fulfillments(
    items: list[Any], coercions: Coercions, extra: JsonObject
) -> tuple[LineFulfillment, ...]:
    read = []
    for i, item in enumerate(items):
        where = f"fulfillments[{i}]"
        fields = object_at(item, where)
        number = text_at(fields, "mp_line_number", f"{where}.")
        if not number:
            raise UnreadableError("A fulfillment names no line.", where=f"{where}.mp_line_number")
        _keep_unknown(fields, _FULFILLMENT_FIELDS, f"{where}.", extra)
        if isinstance(pending := fields.get("pending"), dict):
            _keep_unknown(pending, frozenset({"quantity"}), f"{where}.pending.", extra)
        shipments = []
        for j, entry in enumerate(list_at(fields, "shipments", f"{where}.") or ()):
            inside = f"{where}.shipments[{j}]."
            shipment = object_at(entry, inside)
            _keep_unknown(shipment, _SHIPMENT_FIELDS, inside, extra)
            shipments.append(
                Shipment(
                    quantity=units_at(shipment, "quantity", inside, coercions, extra),
                    carrier=text_at(shipment, "carrier", inside),
                    tracking_number=text_at(shipment, "tracking_number", inside),
                    shipped_date=day_at(shipment, "shipped_date", inside, coercions),
                    tracking_url=text_at(shipment, "tracking_url", inside),
                )
            )
        cancellations = []
        for j, entry in enumerate(list_at(fields, "cancellations", f"{where}.") or ()):
            inside = f"{where}.cancellations[{j}]."
            cancellation = object_at(entry, inside)
            _keep_unknown(cancellation, _CANCELLATION_FIELDS, inside, extra)
            cancellations.append(
                Cancellation(
                    quantity=units_at(cancellation, "quantity", inside, coercions, extra),
                    reason=text_at(cancellation, "reason", inside),
                )
            )
        read.append(
            LineFulfillment(
                mp_line_number=number, shipments=tuple(shipments), cancellations=tuple(cancellations)
            )
        )
    return tuple(read)


def _read_line(fields: JsonObject, where: str, coercions: Coercions) -> OrderLine:
    number = text_at(fields, "mp_line_number", where)
    if not number:
        raise UnreadableError("An order line has no number.", where=f"{where}mp_line_number")
    extra = {key: value for key, value in fields.items() if key not in _LINE_FIELDS}
    return OrderLine(
        mp_line_number=number,
        sku=text_at(fields, "sku", where),
        product_name=text_at(fields, "product_name", where),
        quantity=whole_at(fields, "quantity", where, coercions),
        unit_price=money_at(fields, "unit_price", where, coercions, extra),
        shipping_price=money_at(fields, "shipping_price", where, coercions, extra),
        extra=extra,
    )


def _read_errors(fields: JsonObject, extra: JsonObject) -> tuple[ListedError, ...] | None:
    """`errors` is only assumed to exist (Q12): absent or null gives None, so that it is not mistaken for an empty list."""
    items = list_at(fields, "errors")
    if items is None:
        return None
    read = []
    for i, item in enumerate(items):
        error = object_at(item, f"errors[{i}]")
        _keep_unknown(error, _ERROR_FIELDS, f"errors[{i}].", extra)
        read.append(
            ListedError(
                code=text_at(error, "code", f"errors[{i}].") or "",
                message=text_at(error, "message", f"errors[{i}].") or "",
                mp_line_number=text_at(error, "mp_line_number", f"errors[{i}]."),
            )
        )
    return tuple(read)


def _flat(fields: JsonObject, key: str, model: type[_Flat], extra: JsonObject) -> _Flat:
    value = fields.get(key)
    if value is None:
        return model()
    inner = object_at(value, key)
    known = model.__struct_fields__
    _keep_unknown(inner, frozenset(known), f"{key}.", extra)
    return model(**{name: text_at(inner, name, f"{key}.") for name in known})


def _keep_unknown(fields: JsonObject, known: frozenset[str], where: str, extra: JsonObject) -> None:
    for key in fields.keys() - known:
        extra[where + key] = fields[key]
