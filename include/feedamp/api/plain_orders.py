"""Reads a page at once if its values have the types of the contract, as nearly all have; `decoding` reads the others.

Gives exactly what `decoding.read_tolerantly` gives, or None: members without a field of their own are kept in `extra`, an
amount sent as text and a time without zone are read as meant and counted.

The types into which an order is decoded refuse a member that they do not have, since msgspec would drop it. Which further
members FeedAMP sends is learned from the first order that has them; from then on the types have them, too.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from feedamp.api.json_fields import (
    LARGEST_WHOLE,
    LONGEST_IDENTIFIER,
    Coercions,
    JsonObject,
    decimal_in,
    is_too_deep,
    moment_in,
)
from feedamp.codec import decode_json, decoder_of, encode, remembers_short
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
from feedamp.money import fitted

ORDER_FIELDS = frozenset(Order.__struct_fields__) - {"extra"}
LINE_FIELDS = frozenset(OrderLine.__struct_fields__) - {"extra"}
SHIPMENT_FIELDS = frozenset(Shipment.__struct_fields__)
CANCELLATION_FIELDS = frozenset(Cancellation.__struct_fields__)
FULFILLMENT_FIELDS = frozenset({"mp_line_number", "shipments", "cancellations", "status", "pending"})
# What only a shipment or a cancellation has: an entry with it does not have the inferred shape.
_MISPLACED = (SHIPMENT_FIELDS | CANCELLATION_FIELDS) - FULFILLMENT_FIELDS
_PENDING_FIELDS = frozenset({"quantity"})
# FeedAMP may send names without end, and new ones cost new types.
MOST_LEARNED, LONGEST_LEARNED = 200, 100
_UNNAMEABLE = re.compile(r"""[\x00-\x1f"\\\ud800-\udfff]""")  # msgspec has no field with such a name
_Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_IDENTIFIER)]
_Whole = Annotated[int, msgspec.Meta(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]

_ABSENT = msgspec.Raw(b"null")


class _Line(msgspec.Struct, gc=False):
    mp_line_number: _Identifier
    sku: str | None = None
    product_name: str | None = None
    quantity: _Whole | None = None
    unit_price: msgspec.Raw = _ABSENT
    shipping_price: msgspec.Raw = _ABSENT


class _Entry(msgspec.Struct, gc=False):
    mp_line_number: _Identifier
    shipments: tuple[Shipment, ...] | UnsetType | None = UNSET
    cancellations: tuple[Cancellation, ...] | UnsetType | None = UNSET
    status: Any = UNSET
    pending: Any = UNSET


class _Order(msgspec.Struct, gc=False):
    """An order as the contract shows it; every member may be null, and times and amounts are still text."""

    mp_order_number: _Identifier
    sales_channel: str | None = None
    customer: Customer | None = None
    purchase_date: str | None = None
    currency: str | None = None
    shipping_address: Address | None = None
    order_lines: tuple[_Line, ...] | None = None
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


_KNOWN: dict[type[msgspec.Struct], frozenset[str]] = {
    _Order: ORDER_FIELDS,
    Customer: frozenset(Customer.__struct_fields__),
    Address: frozenset(Address.__struct_fields__),
    _Line: LINE_FIELDS,
    ListedError: frozenset(ListedError.__struct_fields__),
    _Entry: FULFILLMENT_FIELDS | _MISPLACED,
    Shipment: SHIPMENT_FIELDS,
    Cancellation: CANCELLATION_FIELDS,
}
_Names = frozenset[tuple[type[msgspec.Struct], str]]


class _NotPlainError(Exception):
    """The order has a value that only the tolerant reader reads."""


_REASONS = (_NotPlainError, msgspec.DecodeError, UnreadableError, ValueError, OverflowError, RecursionError)


class PlainOrders:
    """Reads orders at once, and learns from those that it cannot read."""

    def __init__(self) -> None:
        self._learned: _Names = frozenset()
        self._form = _form(self._learned)

    def read_page(
        self, body: bytes, coercions: Coercions
    ) -> tuple[Sequence[Order] | None, str | None] | None:
        """The orders and the next cursor of a page without `codec.NUL`; None, with nothing counted, if it cannot be read at once."""
        form = self._form
        try:
            page = form.page_decoder.decode(body)
            orders = page.orders
            return orders and form.orders(orders, coercions), page.next_cursor or None
        except _REASONS:
            return None

    def read_text(self, text: bytes | msgspec.Raw, coercions: Coercions) -> Order | None:
        """The order of a JSON text without `codec.NUL`; None, with nothing counted, if `decoding` must read it."""
        form = self._form
        try:
            [order] = form.orders([form.decoder.decode(text)], coercions)
        except _REASONS:
            return None
        return order

    def read(self, item: Any, coercions: Coercions) -> Order | None:
        """As `read_text`, of a value that `decode_json` has decoded; learns its members."""
        self._learn_from(item)
        try:
            return self.read_text(encode(item), coercions)
        except (ValueError, OverflowError, RecursionError):
            return None

    def _learn_from(self, item: Any) -> None:
        new = self._learned.union(_further_members(item))
        if len(self._learned) < len(new) <= MOST_LEARNED:
            self._form, self._learned = _form(new), new


def _further_members(item: Any) -> Iterator[tuple[type[msgspec.Struct], str]]:
    if not isinstance(item, dict):
        return
    entries = _objects(item.get("fulfillments"))
    found: dict[type[msgspec.Struct], list[JsonObject]] = {
        _Order: [item],
        Customer: _objects([item.get("customer")]),
        Address: _objects([item.get("shipping_address")]),
        _Line: _objects(item.get("order_lines")),
        ListedError: _objects(item.get("errors")),
        _Entry: entries,
        Shipment: [one for entry in entries for one in _objects(entry.get("shipments"))],
        Cancellation: [one for entry in entries for one in _objects(entry.get("cancellations"))],
    }
    for kind, objects in found.items():
        for values in objects:
            for name in values.keys() - _KNOWN[kind]:
                if len(name) <= LONGEST_LEARNED and not _UNNAMEABLE.search(name):
                    yield kind, name


def _objects(values: Any) -> list[JsonObject]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


class _Form:
    """The types of an order with the members that were learned, and what they do not say about it."""

    def __init__(self, learned: _Names) -> None:
        self._further: dict[type[msgspec.Struct], list[tuple[str, str]]] = {kind: [] for kind in _KNOWN}
        for kind, name in sorted(learned, key=lambda one: (one[0].__name__, one[1])):
            self._further[kind].append((f"further_{len(self._further[kind])}", name))
        shipment = self._grown(Shipment) if self._further[Shipment] else Shipment
        cancellation = self._grown(Cancellation) if self._further[Cancellation] else Cancellation
        entry = self._grown(
            _Entry,
            shipments=tuple[shipment, ...] | UnsetType | None,  # type: ignore[valid-type]
            cancellations=tuple[cancellation, ...] | UnsetType | None,  # type: ignore[valid-type]
        )
        kind = self._grown(
            _Order,
            customer=self._grown(Customer) | None if self._further[Customer] else Customer | None,
            shipping_address=self._grown(Address) | None if self._further[Address] else Address | None,
            order_lines=tuple[self._grown(_Line), ...] | None,  # type: ignore[misc]
            fulfillments=tuple[entry, ...] | None,  # type: ignore[valid-type]
            errors=tuple[self._grown(ListedError), ...] | None,  # type: ignore[misc]
        )
        self.decoder = decoder_of(kind)
        page = msgspec.defstruct(
            "_Page",
            [("orders", list[kind] | None), ("next_cursor", str | None, None)],  # type: ignore[valid-type]
            gc=False,
        )
        self.page_decoder = decoder_of(page)
        self._of_order, self._of_line = self._further[_Order], self._further[_Line]
        self._has_inner = any(names for kind, names in self._further.items() if kind not in (_Order, _Line))

    def _grown(self, kind: type[msgspec.Struct], **fields: Any) -> Any:
        """The type with other types of these fields, with what was learned, and with no further members."""
        absent = {field.name: field.default for field in msgspec.structs.fields(kind)}
        further = self._further[kind]
        return msgspec.defstruct(
            f"{kind.__name__}Plain",
            [
                *((name, type_, absent[name]) for name, type_ in fields.items()),
                *((attribute, Any, UNSET) for attribute, _ in further),
            ],
            bases=(kind,),
            rename=dict(further),
            forbid_unknown_fields=True,
            gc=False,
            frozen=issubclass(kind, Customer.__mro__[1]),
        )

    def orders(self, plain: Sequence[Any], coercions: Coercions) -> list[Order]:
        """The orders in the types of `models`; adds to `coercions` what was counted, if nothing is raised."""
        counted = _Counted()
        read = [self._order(one, counted) for one in plain]
        if counted.amounts_as_text:
            coercions["number_as_text"] += counted.amounts_as_text
        if counted.times_without_zone:
            coercions["time_without_zone"] += counted.times_without_zone
        return read

    def _order(self, plain: Any, counted: "_Counted") -> Order:
        extra: JsonObject = {}
        if self._of_order:
            _keep(extra, "", plain, self._of_order)
        if self._has_inner:
            self._keep_inner(extra, plain)
        amount, moment, of_line = counted.amount, counted.moment, self._of_line
        lines = [
            OrderLine(
                mp_line_number=line.mp_line_number,
                sku=line.sku,
                product_name=line.product_name,
                quantity=line.quantity,
                unit_price=amount(line.unit_price),
                shipping_price=amount(line.shipping_price),
                extra=_keep({}, "", line, of_line) if of_line else {},
            )
            for line in plain.order_lines or ()
        ]
        return Order(
            mp_order_number=plain.mp_order_number,
            sales_channel=plain.sales_channel,
            customer=_customer(plain.customer),
            purchase_date=moment(plain.purchase_date),
            currency=plain.currency,
            shipping_address=_address(plain.shipping_address),
            order_lines=tuple(lines),
            fulfillments=None if plain.fulfillments is None else _fulfillments(plain.fulfillments, extra),
            acknowledged=plain.acknowledged,
            status=plain.status,
            is_marketplace_fulfilled=plain.is_marketplace_fulfilled,
            marketplace_state=plain.marketplace_state,
            delivery_notes=plain.delivery_notes,
            earliest_ship_date=moment(plain.earliest_ship_date),
            latest_ship_date=moment(plain.latest_ship_date),
            earliest_delivery_date=moment(plain.earliest_delivery_date),
            latest_delivery_date=moment(plain.latest_delivery_date),
            errors=plain.errors and tuple(map(_error, plain.errors)),
            extra=extra,
        )

    def _keep_inner(self, extra: JsonObject, plain: Any) -> None:
        """Keeps members of what is inside of an order, except those of lines, which have an `extra` of their own."""
        further = self._further
        for path, values, kind in (
            ("customer.", plain.customer, Customer),
            ("shipping_address.", plain.shipping_address, Address),
        ):
            if values is not None:
                _keep(extra, path, values, further[kind])
        for index, error in enumerate(plain.errors or ()):
            _keep(extra, f"errors[{index}].", error, further[ListedError])
        for index, entry in enumerate(plain.fulfillments or ()):
            path = f"fulfillments[{index}]."
            _keep(extra, path, entry, further[_Entry])
            for at, shipment in enumerate(entry.shipments or ()):
                _keep(extra, f"{path}shipments[{at}].", shipment, further[Shipment])
            for at, cancellation in enumerate(entry.cancellations or ()):
                _keep(extra, f"{path}cancellations[{at}].", cancellation, further[Cancellation])


_form = lru_cache(maxsize=64)(_Form)


class _Counted:
    """Reads values that have another type than the contract says, but only one meaning."""

    def __init__(self) -> None:
        self.amounts_as_text = self.times_without_zone = 0

    def amount(self, text: msgspec.Raw) -> Decimal | None:
        if text is _ABSENT:
            return None
        amount, is_text = _amount_in(bytes(text))
        self.amounts_as_text += is_text
        return amount

    def moment(self, text: str | None) -> datetime | None:
        if text is None:
            return None
        moment, has_zone = _moment_in(text)
        self.times_without_zone += not has_zone
        return moment


# Of one page, most times and many amounts are equal.
@remembers_short(1024)
def _amount_in(text: bytes) -> tuple[Decimal | None, bool]:
    """The amount that a JSON value means, and whether it is text."""
    value = decode_json(text)
    if value is None:
        return None, False
    kind = type(value)
    amount = decimal_in(value) if kind is str else Decimal(value) if kind in (int, Decimal) else None
    if amount is None:
        raise _NotPlainError
    return _exactly(amount), kind is str


def _exactly(amount: Decimal) -> Decimal:
    held = fitted(amount)
    if held is None or (held is not amount and held != amount):
        raise _NotPlainError  # it is rounded, and kept as it was sent
    return held


@remembers_short(1024)
def _moment_in(text: str) -> tuple[datetime, bool]:
    return moment_in(text.strip())


def _customer(values: Customer | None) -> Customer:
    if type(values) is Customer:
        return values
    if values is None:
        return Customer()
    return Customer(full_name=values.full_name, email=values.email, phone=values.phone, vat=values.vat)


def _address(values: Address | None) -> Address:
    if type(values) is Address:
        return values
    if values is None:
        return Address()
    return Address(
        full_name=values.full_name,
        address1=values.address1,
        address2=values.address2,
        address3=values.address3,
        city=values.city,
        state=values.state,
        postal_code=values.postal_code,
        country_code=values.country_code,
        address_type=values.address_type,
        phone=values.phone,
    )


def _error(values: ListedError) -> ListedError:
    return ListedError(code=values.code, message=values.message, mp_line_number=values.mp_line_number)


def _fulfillments(entries: tuple[_Entry, ...], extra: JsonObject) -> tuple[LineFulfillment, ...]:
    read = []
    for index, entry in enumerate(entries):
        pending = entry.pending
        if pending is UNSET:
            if entry.shipments is UNSET and entry.cancellations is UNSET and entry.status is UNSET:
                raise _NotPlainError  # not the inferred shape
        elif isinstance(pending, dict):
            for name in pending.keys() - _PENDING_FIELDS:
                extra[f"fulfillments[{index}].pending.{name}"] = _kept(pending[name])
        read.append(
            LineFulfillment(
                mp_line_number=entry.mp_line_number,
                shipments=_shipments(entry.shipments) if entry.shipments else (),
                cancellations=_cancellations(entry.cancellations) if entry.cancellations else (),
            )
        )
    return tuple(read)


def _shipments(values: tuple[Shipment, ...]) -> tuple[Shipment, ...]:
    for one in values:
        _require_units(one.quantity)
    if type(values[0]) is Shipment:
        return values
    return tuple(
        Shipment(
            quantity=one.quantity,
            carrier=one.carrier,
            tracking_number=one.tracking_number,
            shipped_date=one.shipped_date,
            tracking_url=one.tracking_url,
        )
        for one in values
    )


def _cancellations(values: tuple[Cancellation, ...]) -> tuple[Cancellation, ...]:
    for one in values:
        _require_units(one.quantity)
    if type(values[0]) is Cancellation:
        return values
    return tuple(Cancellation(quantity=one.quantity, reason=one.reason) for one in values)


def _require_units(quantity: int | None) -> None:
    if quantity is not None and not -LARGEST_WHOLE <= quantity <= LARGEST_WHOLE:
        raise _NotPlainError


def _keep(extra: JsonObject, path: str, values: Any, further: list[tuple[str, str]]) -> JsonObject:
    for attribute, name in further:
        value = getattr(values, attribute)
        if value is not UNSET:
            extra[path + name] = _kept(value)
    return extra


def _kept(value: Any) -> Any:
    if isinstance(value, dict | list) and is_too_deep(value):
        raise _NotPlainError  # the tolerant reader names its field
    return value
