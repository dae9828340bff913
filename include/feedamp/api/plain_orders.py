"""Reads an order at once if its values have the types of the contract, as nearly all have; `decoding` reads the others.

Gives exactly what `decoding.read_tolerantly` gives, or None: members without a field of their own are kept in `extra`, an
amount sent as text and a time without zone are read as meant and counted.
"""

from collections.abc import Set as AbstractSet
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from feedamp.api.json_fields import (
    LARGEST_WHOLE,
    LONGEST_IDENTIFIER,
    Coercions,
    JsonObject,
    decimal_in,
    is_too_deep,
    moment_in,
)
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
from feedamp.money import fitted

ORDER_FIELDS = frozenset(Order.__struct_fields__) - {"extra"}
LINE_FIELDS = frozenset(OrderLine.__struct_fields__) - {"extra"}
SHIPMENT_FIELDS = frozenset(Shipment.__struct_fields__)
CANCELLATION_FIELDS = frozenset(Cancellation.__struct_fields__)
FULFILLMENT_FIELDS = frozenset({"mp_line_number", "shipments", "cancellations", "status", "pending"})
_MEMBERS = FULFILLMENT_FIELDS - {"mp_line_number"}
_MISPLACED = (SHIPMENT_FIELDS | CANCELLATION_FIELDS) - FULFILLMENT_FIELDS
_CUSTOMER_FIELDS = frozenset(Customer.__struct_fields__)
_ADDRESS_FIELDS = frozenset(Address.__struct_fields__)
_ERROR_FIELDS = frozenset(ListedError.__struct_fields__)
_PENDING_FIELDS = frozenset({"quantity"})
_Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_IDENTIFIER)]


class _Entry(msgspec.Struct):
    mp_line_number: _Identifier
    shipments: tuple[Shipment, ...] | None = None
    cancellations: tuple[Cancellation, ...] | None = None


class _PlainOrder(msgspec.Struct):
    """An order as the contract shows it; every member may be null, and times are still text."""

    mp_order_number: _Identifier
    sales_channel: str | None = None
    customer: Customer | None = None
    purchase_date: str | None = None
    currency: str | None = None
    shipping_address: Address | None = None
    order_lines: tuple[OrderLine, ...] | None = None
    fulfillments: tuple[_Entry, ...] | None = None
    acknowledged: bool | None = None
    status: str | None = None
    is_marketplace_fulfilled: bool | None = None
    marketplace_state: str | None = None
    delivery_notes: str | None = None
    earliest_ship_date: str | None = None
    latest_ship_date: str | None = None
    earliest_delivery_date: str | None = None
    latest_delivery_date: str | None = None
    errors: tuple[ListedError, ...] | None = None


class _NotPlainError(Exception):
    """The order has a value that only the tolerant reader reads."""


def read_plain_order(item: Any, coercions: Coercions) -> Order | None:
    """The order; None, with nothing counted, if it has a value that only the tolerant reader reads or refuses."""
    try:
        plain = msgspec.convert(item, _PlainOrder)
        reading = _Reading()
        order = reading.order(plain, item)
    except (_NotPlainError, msgspec.ValidationError, ValueError, OverflowError):
        return None
    if reading.amounts_as_text:
        coercions["number_as_text"] += reading.amounts_as_text
    if reading.times_without_zone:
        coercions["time_without_zone"] += reading.times_without_zone
    return order


class _Reading:
    """What the types of `_PlainOrder` do not say about an order."""

    def __init__(self) -> None:
        self.extra: JsonObject = {}
        self.amounts_as_text = self.times_without_zone = 0

    def order(self, plain: _PlainOrder, item: JsonObject) -> Order:
        if not item.keys() <= ORDER_FIELDS:
            self._keep("", item, ORDER_FIELDS)
        if plain.customer is not None and not item["customer"].keys() <= _CUSTOMER_FIELDS:
            self._keep("customer.", item["customer"], _CUSTOMER_FIELDS)
        if plain.shipping_address is not None and not item["shipping_address"].keys() <= _ADDRESS_FIELDS:
            self._keep("shipping_address.", item["shipping_address"], _ADDRESS_FIELDS)
        if plain.order_lines:
            for line, values in zip(plain.order_lines, item["order_lines"], strict=True):
                self._check_line(line, values)
        for index, values in enumerate(item["errors"] if plain.errors else ()):
            self._keep(f"errors[{index}].", values, _ERROR_FIELDS)
        return Order(
            mp_order_number=plain.mp_order_number,
            sales_channel=plain.sales_channel,
            customer=plain.customer or Customer(),
            purchase_date=self._moment(plain.purchase_date),
            currency=plain.currency,
            shipping_address=plain.shipping_address or Address(),
            order_lines=plain.order_lines or (),
            fulfillments=self._fulfillments(plain, item),
            acknowledged=plain.acknowledged,
            status=plain.status,
            is_marketplace_fulfilled=plain.is_marketplace_fulfilled,
            marketplace_state=plain.marketplace_state,
            delivery_notes=plain.delivery_notes,
            earliest_ship_date=self._moment(plain.earliest_ship_date),
            latest_ship_date=self._moment(plain.latest_ship_date),
            earliest_delivery_date=self._moment(plain.earliest_delivery_date),
            latest_delivery_date=self._moment(plain.latest_delivery_date),
            errors=plain.errors,
            extra=self.extra,
        )

    def _keep(self, path: str, values: JsonObject, known: AbstractSet[str]) -> None:
        for name in values.keys() - known:
            self.extra[path + name] = _kept(values[name])

    def _check_line(self, line: OrderLine, values: JsonObject) -> None:
        if not values.keys() <= LINE_FIELDS:
            extra = {name: _kept(values[name]) for name in values.keys() - LINE_FIELDS}
            msgspec.structs.force_setattr(line, "extra", extra)
        if not 0 < len(line.mp_line_number) <= LONGEST_IDENTIFIER:
            raise _NotPlainError
        _check_whole(line.quantity)
        if line.unit_price is not None:
            self._check_amount(line, "unit_price", line.unit_price, values)
        if line.shipping_price is not None:
            self._check_amount(line, "shipping_price", line.shipping_price, values)

    def _check_amount(self, line: OrderLine, name: str, amount: Decimal, values: JsonObject) -> None:
        if type(values[name]) is str:
            if decimal_in(values[name]) is None:
                raise _NotPlainError
            self.amounts_as_text += 1
        held = fitted(amount)
        if held is not amount:
            if held is None or held != amount:
                raise _NotPlainError  # it is rounded, and kept as it was sent
            msgspec.structs.force_setattr(line, name, held)

    def _fulfillments(self, plain: _PlainOrder, item: JsonObject) -> tuple[LineFulfillment, ...] | None:
        if plain.fulfillments is None:
            return None
        read = []
        for index, (entry, values) in enumerate(zip(plain.fulfillments, item["fulfillments"], strict=True)):
            members = values.keys()
            if not members <= FULFILLMENT_FIELDS:
                self._keep(f"fulfillments[{index}].", values, FULFILLMENT_FIELDS)
            if members.isdisjoint(_MEMBERS) or not members.isdisjoint(_MISPLACED):
                raise _NotPlainError  # not the inferred shape
            if isinstance(values.get("pending"), dict):
                self._keep(f"fulfillments[{index}].pending.", values["pending"], _PENDING_FIELDS)
            shipments, cancellations = entry.shipments or (), entry.cancellations or ()
            for at, shipment in enumerate(shipments):
                _check_whole(shipment.quantity)
                if not values["shipments"][at].keys() <= SHIPMENT_FIELDS:
                    path = f"fulfillments[{index}].shipments[{at}]."
                    self._keep(path, values["shipments"][at], SHIPMENT_FIELDS)
            for at, cancellation in enumerate(cancellations):
                _check_whole(cancellation.quantity)
                if not values["cancellations"][at].keys() <= CANCELLATION_FIELDS:
                    path = f"fulfillments[{index}].cancellations[{at}]."
                    self._keep(path, values["cancellations"][at], CANCELLATION_FIELDS)
            read.append(
                LineFulfillment(
                    mp_line_number=entry.mp_line_number, shipments=shipments, cancellations=cancellations
                )
            )
        return tuple(read)

    def _moment(self, text: str | None) -> datetime | None:
        if text is None:
            return None
        moment, has_zone = moment_in(text.strip())
        self.times_without_zone += not has_zone
        return moment


def _kept(value: Any) -> Any:
    if is_too_deep(value):
        raise _NotPlainError  # the tolerant reader names its field
    return value


def _check_whole(number: int | None) -> None:
    if number is not None and not -LARGEST_WHOLE <= number <= LARGEST_WHOLE:
        raise _NotPlainError
