"""Reads FeedAMP's JSON tolerantly: unknown things are kept, slips are counted, wrong types are errors.

Promise 12 in code. `read_order` returns an `Order` or raises `UnreadableError` naming the field. What is
read as meant although it is not to the letter (a number as a decimal string, a date as a date-time, a time
without zone, which the contract says is UTC in bodies) is counted in `Slips`.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec

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

Slips = Counter[str]
JsonObject = dict[str, Any]
_Flat = TypeVar("_Flat", Customer, Address)


def _exact(digits: str) -> Decimal:
    """The fraction to the letter; infinite where not even `Decimal` can hold it, so that one field is refused."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("Infinity")


_DECODER = msgspec.json.Decoder(float_hook=_exact)
_DECIMAL_TEXT = re.compile(r"[+-]?\d{1,18}(\.\d{1,9})?")

_ORDER_FIELDS = frozenset(Order.__struct_fields__) - {"extra"}
_LINE_FIELDS = frozenset(OrderLine.__struct_fields__) - {"extra"}
_SHIPMENT_FIELDS = frozenset(Shipment.__struct_fields__)
_CANCELLATION_FIELDS = frozenset(Cancellation.__struct_fields__)
_ERROR_FIELDS = frozenset(ListedError.__struct_fields__)
_FULFILLMENT_FIELDS = frozenset({"mp_line_number", "shipments", "cancellations", "status", "pending"})


def decode_json(body: bytes) -> Any:
    """The body as Python values, fractions as exact `Decimal`.

    Raises:
        UnreadableError: the body is no JSON.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError("FeedAMP answered with something that is no JSON.") from error


def number_of(item: Any) -> str | None:
    """The order number inside an item that may be unreadable otherwise."""
    number = item.get("mp_order_number") if isinstance(item, dict) else None
    return number if isinstance(number, str) and number else None


def read_order(item: Any, slips: Slips) -> Order:
    """One item of GET /orders or the answer of GET /orders/{n}.

    Raises:
        UnreadableError: a known field has a type that cannot be read as meant.
    """
    fields = _object(item, "order")
    number = _text(fields, "mp_order_number")
    if not number:
        raise UnreadableError("The order has no number.", where="mp_order_number")
    extra = {key: value for key, value in fields.items() if key not in _ORDER_FIELDS}
    customer = _flat(fields, "customer", Customer, extra)
    address = _flat(fields, "shipping_address", Address, extra)
    lines = tuple(
        _read_line(_object(line, f"order_lines[{i}]"), f"order_lines[{i}].", slips)
        for i, line in enumerate(_list(fields, "order_lines") or ())
    )
    return Order(
        mp_order_number=number,
        customer=customer,
        shipping_address=address,
        order_lines=lines,
        fulfillments=_if_readable(fields.get("fulfillments"), slips, extra),
        errors=_read_errors(fields, extra),
        extra=extra,
        sales_channel=_text(fields, "sales_channel"),
        currency=_text(fields, "currency"),
        status=_text(fields, "status"),
        marketplace_state=_text(fields, "marketplace_state"),
        delivery_notes=_text(fields, "delivery_notes"),
        acknowledged=_flag(fields, "acknowledged"),
        is_marketplace_fulfilled=_flag(fields, "is_marketplace_fulfilled"),
        purchase_date=_moment(fields, "purchase_date", slips),
        earliest_ship_date=_moment(fields, "earliest_ship_date", slips),
        latest_ship_date=_moment(fields, "latest_ship_date", slips),
        earliest_delivery_date=_moment(fields, "earliest_delivery_date", slips),
        latest_delivery_date=_moment(fields, "latest_delivery_date", slips),
    )


def read_fulfillments(body: Any, slips: Slips) -> tuple[tuple[LineFulfillment, ...], bool | None, JsonObject]:
    """GET /orders/{n}/fulfillments (contract 3.4): fulfillments, is_marketplace_fulfilled, unknown fields.

    Raises:
        UnreadableError: the answer is not of the documented shape.
    """
    fields = _object(body, "fulfillments answer")
    extra: JsonObject = {
        f"fulfillments_answer.{key}": value
        for key, value in fields.items()
        if key not in ("status", "is_marketplace_fulfilled", "fulfillments")
    }
    items = _list(fields, "fulfillments") or []
    return _read_line_fulfillments(items, slips, extra), _flag(fields, "is_marketplace_fulfilled"), extra


def _if_readable(value: Any, slips: Slips, extra: JsonObject) -> tuple[LineFulfillment, ...] | None:
    """The fulfillments of a list answer; None where they cannot be read, so that they are asked for by themselves."""
    own_slips, own_extra = Slips(), JsonObject()
    try:
        read = _embedded_fulfillments(value, own_slips, own_extra)
    except UnreadableError:
        return None
    slips.update(own_slips)
    extra.update(own_extra)
    return read


def _embedded_fulfillments(value: Any, slips: Slips, extra: JsonObject) -> tuple[LineFulfillment, ...] | None:
    """The `fulfillments` of a list answer, or None where their inferred shape does not fit.

    An entry fits when it names its line and carries at least one member of the documented entry; the members
    of a shipment lying flat on the entry mean another shape.
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
    return _read_line_fulfillments(value, slips, extra)


def _read_line_fulfillments(items: list[Any], slips: Slips, extra: JsonObject) -> tuple[LineFulfillment, ...]:
    read = []
    for i, item in enumerate(items):
        where = f"fulfillments[{i}]"
        fields = _object(item, where)
        number = _text(fields, "mp_line_number", f"{where}.")
        if not number:
            raise UnreadableError("A fulfillment names no line.", where=f"{where}.mp_line_number")
        _keep_unknown(fields, _FULFILLMENT_FIELDS, f"{where}.", extra)
        if isinstance(pending := fields.get("pending"), dict):
            _keep_unknown(pending, frozenset({"quantity"}), f"{where}.pending.", extra)
        shipments = []
        for j, entry in enumerate(_list(fields, "shipments", f"{where}.") or ()):
            inside = f"{where}.shipments[{j}]."
            shipment = _object(entry, inside)
            _keep_unknown(shipment, _SHIPMENT_FIELDS, inside, extra)
            shipments.append(
                Shipment(
                    quantity=_units(shipment, "quantity", inside, slips, extra),
                    carrier=_text(shipment, "carrier", inside),
                    tracking_number=_text(shipment, "tracking_number", inside),
                    shipped_date=_day(shipment, "shipped_date", inside, slips),
                    tracking_url=_text(shipment, "tracking_url", inside),
                )
            )
        cancellations = []
        for j, entry in enumerate(_list(fields, "cancellations", f"{where}.") or ()):
            inside = f"{where}.cancellations[{j}]."
            cancellation = _object(entry, inside)
            _keep_unknown(cancellation, _CANCELLATION_FIELDS, inside, extra)
            cancellations.append(
                Cancellation(
                    quantity=_units(cancellation, "quantity", inside, slips, extra),
                    reason=_text(cancellation, "reason", inside),
                )
            )
        read.append(
            LineFulfillment(
                mp_line_number=number, shipments=tuple(shipments), cancellations=tuple(cancellations)
            )
        )
    return tuple(read)


def _read_line(fields: JsonObject, where: str, slips: Slips) -> OrderLine:
    number = _text(fields, "mp_line_number", where)
    if not number:
        raise UnreadableError("An order line has no number.", where=f"{where}mp_line_number")
    return OrderLine(
        mp_line_number=number,
        sku=_text(fields, "sku", where),
        product_name=_text(fields, "product_name", where),
        quantity=_whole(fields, "quantity", where, slips),
        unit_price=_decimal(fields, "unit_price", where, slips),
        shipping_price=_decimal(fields, "shipping_price", where, slips),
        extra={key: value for key, value in fields.items() if key not in _LINE_FIELDS},
    )


def _read_errors(fields: JsonObject, extra: JsonObject) -> tuple[ListedError, ...] | None:
    """`errors` is only assumed to exist (Q12): absent or null is None, so that nobody takes it for 'none'."""
    items = _list(fields, "errors")
    if items is None:
        return None
    read = []
    for i, item in enumerate(items):
        error = _object(item, f"errors[{i}]")
        _keep_unknown(error, _ERROR_FIELDS, f"errors[{i}].", extra)
        read.append(
            ListedError(
                code=_text(error, "code", f"errors[{i}].") or "",
                message=_text(error, "message", f"errors[{i}].") or "",
                mp_line_number=_text(error, "mp_line_number", f"errors[{i}]."),
            )
        )
    return tuple(read)


def _flat(fields: JsonObject, key: str, model: type[_Flat], extra: JsonObject) -> _Flat:
    value = fields.get(key)
    if value is None:
        return model()
    inner = _object(value, key)
    known = model.__struct_fields__
    _keep_unknown(inner, frozenset(known), f"{key}.", extra)
    return model(**{name: _text(inner, name, f"{key}.") for name in known})


def _keep_unknown(fields: JsonObject, known: frozenset[str], where: str, extra: JsonObject) -> None:
    for key in fields.keys() - known:
        extra[where + key] = fields[key]


def _object(value: Any, where: str) -> JsonObject:
    if not isinstance(value, dict):
        raise UnreadableError("FeedAMP sent something else than an object.", where=where)
    return value


def _list(fields: JsonObject, key: str, where: str = "") -> list[Any] | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, list):
        raise UnreadableError("FeedAMP sent something else than a list.", where=where + key)
    return value


def _text(fields: JsonObject, key: str, where: str = "") -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise UnreadableError("FeedAMP sent something else than text.", where=where + key)
    return value


def _flag(fields: JsonObject, key: str) -> bool | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        raise UnreadableError("FeedAMP sent something else than true or false.", where=key)
    return value


def _decimal(fields: JsonObject, key: str, where: str, slips: Slips) -> Decimal | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value.strip()):
        slips["number_as_text"] += 1
        value = value.strip()
    elif isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise UnreadableError("FeedAMP sent something else than a number.", where=where + key)
    try:
        number = Decimal(value)
    except InvalidOperation as error:  # pragma: no cover - the pattern above admits only decimals
        raise UnreadableError("FeedAMP sent something else than a number.", where=where + key) from error
    if not number.is_finite() or abs(number) >= Decimal(10) ** 14:
        raise UnreadableError("FeedAMP sent a number beyond all bounds.", where=where + key)
    return number


def _whole(fields: JsonObject, key: str, where: str, slips: Slips) -> int | None:
    number = _decimal(fields, key, where, slips)
    if number is None:
        return None
    if number != int(number) or abs(number) > 2**31 - 1:
        raise UnreadableError("FeedAMP sent something else than a whole number.", where=where + key)
    return int(number)


def _units(fields: JsonObject, key: str, where: str, slips: Slips, extra: JsonObject) -> int | None:
    """Units of a shipment or cancellation; a fraction is the seller's slip (`bad_quantity`), kept in extra."""
    number = _decimal(fields, key, where, slips)
    if number is None:
        return None
    if number != int(number) or abs(number) > 2**31 - 1:
        extra[where + key] = fields[key]
        return None
    return int(number)


def _moment(fields: JsonObject, key: str, slips: Slips) -> datetime | None:
    text = _text(fields, key)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            slips["time_without_zone"] += 1
            return moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)  # overflows at both ends of the calendar
    except (ValueError, OverflowError) as error:
        raise UnreadableError("FeedAMP sent something else than a date-time.", where=key) from error


def _day(fields: JsonObject, key: str, where: str, slips: Slips) -> date | None:
    text = _text(fields, key, where)
    if not text:
        return None
    try:
        if len(text) > 10:
            slips["date_as_date_time"] += 1
            return datetime.fromisoformat(text).date()
        return date.fromisoformat(text)
    except ValueError as error:
        raise UnreadableError("FeedAMP sent something else than a date.", where=where + key) from error
