"""Reads a page at once if its values have the types of the contract, as nearly all have; `decoding` reads the others.

Gives exactly what `decoding.read_tolerantly` gives, or None: members without a field of their own are kept in `extra`, an
amount sent as text and a time without zone are read as meant and counted.

The types into which an order is decoded refuse a member that they do not have, since msgspec would drop it. Which further
members FeedAMP sends of an order and its lines is learned from the first order that has them; from then on the types have
them, too. Other parts of an order are not known to have any.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from feedamp.api.json_fields import (
    LONGEST_IDENTIFIER,
    Coercions,
    JsonObject,
    cursor_in,
    decimal_in,
    is_too_deep,
    moment_in,
)
from feedamp.codec import decoder_of, encode, remembers_short
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
    Units,
)
from feedamp.money import fitted

ORDER_FIELDS = frozenset(Order.__struct_fields__) - {"extra"}
LINE_FIELDS = frozenset(OrderLine.__struct_fields__) - {"extra"}
SHIPMENT_FIELDS = frozenset(Shipment.__struct_fields__)
CANCELLATION_FIELDS = frozenset(Cancellation.__struct_fields__)
FULFILLMENT_FIELDS = frozenset({"mp_line_number", "shipments", "cancellations", "status", "pending"})
_PENDING_FIELDS = frozenset({"quantity"})
# FeedAMP may send names without end, and new ones cost new types.
MOST_LEARNED, LONGEST_LEARNED = 200, 100
_UNNAMEABLE = re.compile(r"""[\x00-\x1f"\\\ud800-\udfff]""")  # msgspec has no field with such a name
_Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_IDENTIFIER)]


class _Line(msgspec.Struct, gc=False):
    mp_line_number: _Identifier
    sku: str | None = None
    product_name: str | None = None
    quantity: Units | None = None
    unit_price: Any = None
    shipping_price: Any = None


class _Entry(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    mp_line_number: _Identifier
    shipments: tuple[Shipment, ...] | UnsetType | None = UNSET
    cancellations: tuple[Cancellation, ...] | UnsetType | None = UNSET
    status: Any = UNSET
    pending: Any = UNSET


class _Order(msgspec.Struct, gc=False):
    """An order as the contract shows it; every member may be null, times are still text, and amounts as they were sent."""

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


_MOMENTS = tuple(field.name for field in msgspec.structs.fields(Order) if field.type == datetime | None)


class _NotPlainError(Exception):
    """The order has a value that only the tolerant reader reads."""


_REASONS = (_NotPlainError, msgspec.DecodeError, UnreadableError, ValueError, OverflowError, RecursionError)


class PlainOrders:
    """Reads orders at once, and learns from those that it cannot read."""

    def __init__(self) -> None:
        self._of_order: frozenset[str] = frozenset()
        self._of_line: frozenset[str] = frozenset()
        self._form = _form(self._of_order, self._of_line)

    def read_page(
        self, body: bytes, coercions: Coercions
    ) -> tuple[Sequence[Order] | None, str | None] | None:
        """The orders and the next cursor of a page without `codec.NUL`; None, with nothing counted, if it cannot be read at once."""
        form = self._form
        try:
            page = form.page_decoder.decode(body)
            orders = page.orders
            return orders and form.orders(orders, coercions), cursor_in(page.next_cursor)
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
        if not isinstance(item, dict):
            return
        lines = item.get("order_lines")
        of_order = self._of_order | _further([item], ORDER_FIELDS)
        of_line = self._of_line | _further(lines if isinstance(lines, list) else (), LINE_FIELDS)
        known = len(self._of_order) + len(self._of_line)
        if known < len(of_order) + len(of_line) <= MOST_LEARNED:
            self._form = _form(of_order, of_line)
            self._of_order, self._of_line = of_order, of_line


def _further(objects: Iterable[Any], known: frozenset[str]) -> frozenset[str]:
    """The names of members that are not known, and that a type can have."""
    names = {name for one in objects if isinstance(one, dict) for name in one.keys() - known}
    return frozenset(n for n in names if len(n) <= LONGEST_LEARNED and not _UNNAMEABLE.search(n))


class _Form:
    """The types of an order with the members that were learned, and what they do not say about it."""

    def __init__(self, of_order: frozenset[str], of_line: frozenset[str]) -> None:
        self._of_order, self._of_line = _named(of_order), _named(of_line)
        lines = ("order_lines", tuple[_grown(_Line, self._of_line), ...] | None, None)  # type: ignore[misc]
        kind = _grown(_Order, self._of_order, lines)
        self.decoder = decoder_of(kind)
        page = msgspec.defstruct(
            "_Page",
            [("orders", list[kind] | None), ("next_cursor", str | None, None)],  # type: ignore[valid-type]
            gc=False,
        )
        self.page_decoder = decoder_of(page)

    def orders(self, plain: Sequence[Any], coercions: Coercions) -> list[Order]:
        """The orders in the types of `models`; adds to `coercions` what was counted, if nothing is raised."""
        counted = _Counted(plain)
        read = [self._order(one, counted) for one in plain]
        if counted.amounts_as_text:
            coercions["number_as_text"] += counted.amounts_as_text
        if counted.moments.without_zone:
            coercions["time_without_zone"] += counted.times_without_zone()
        return read

    def _order(self, plain: Any, counted: "_Counted") -> Order:
        extra: JsonObject = {}
        if self._of_order:
            _keep(extra, plain, self._of_order)
        amounts, moments, of_line = counted.amounts, counted.moments, self._of_line
        lines = [
            OrderLine(
                line.mp_line_number,
                line.sku,
                line.product_name,
                line.quantity,
                amounts[id(line.unit_price)],
                amounts[id(line.shipping_price)],
                _keep({}, line, of_line) if of_line else {},
            )
            for line in plain.order_lines or ()
        ]
        # By position, here and below: by name takes a tenth longer for all of an order.
        return Order(
            plain.mp_order_number,
            plain.sales_channel,
            plain.customer or Customer(),
            moments[plain.purchase_date],
            plain.currency,
            plain.shipping_address or Address(),
            tuple(lines),
            None if plain.fulfillments is None else _fulfillments(plain.fulfillments, extra),
            plain.acknowledged,
            plain.status,
            plain.is_marketplace_fulfilled,
            plain.marketplace_state,
            plain.delivery_notes,
            moments[plain.earliest_ship_date],
            moments[plain.latest_ship_date],
            moments[plain.earliest_delivery_date],
            moments[plain.latest_delivery_date],
            plain.errors,
            extra,
        )


def _named(names: frozenset[str]) -> list[tuple[str, str]]:
    """The attribute of each member that was learned, and its name."""
    return [(f"further_{number}", name) for number, name in enumerate(sorted(names))]


def _grown(kind: type[msgspec.Struct], further: list[tuple[str, str]], *fields: tuple[str, Any, Any]) -> Any:
    """The type with these fields and what was learned, and with no further members."""
    learned = [(attribute, Any, UNSET) for attribute, _ in further]
    return msgspec.defstruct(
        f"{kind.__name__}Plain",
        [*fields, *learned],
        bases=(kind,),
        rename=dict(further),
        forbid_unknown_fields=True,
        gc=False,
    )


_form = lru_cache(maxsize=64)(_Form)


class _Counted:
    """Reads values that have another type than the contract says, but only one meaning."""

    def __init__(self, plain: Sequence[Any]) -> None:
        # Nearly all lines share their amounts with others: the decoder gives one object for each fraction.
        different: dict[int, Any] = {}
        lines = [line for one in plain for line in one.order_lines or ()]
        for line in lines:
            price, shipping = line.unit_price, line.shipping_price
            different[id(price)] = price
            different[id(shipping)] = shipping
        self.amounts = {key: _amount_in(amount) for key, amount in different.items()}
        texts = {key for key, amount in different.items() if type(amount) is str}
        self.amounts_as_text = (
            sum((id(line.unit_price) in texts) + (id(line.shipping_price) in texts) for line in lines)
            if texts
            else 0
        )
        self._plain = plain
        self.moments = _Moments()

    def times_without_zone(self) -> int:
        """How many of the moments that were read have no zone."""
        texts = (getattr(one, name) for one in self._plain for name in _MOMENTS)
        return sum(text in self.moments.without_zone for text in texts)


class _Moments(dict[str | None, datetime | None]):
    """The moments in texts by text, each read once; None is none."""

    def __init__(self) -> None:
        self[None] = None
        self.without_zone: set[str] = set()

    def __missing__(self, text: str) -> datetime:
        moment, has_zone = _moment_in(text)
        if not has_zone:
            self.without_zone.add(text)
        self[text] = moment
        return moment


def _amount_in(sent: Any) -> Decimal | None:
    """The amount that a JSON value means."""
    kind = type(sent)
    if kind is str:
        return _amount_in_text(sent)
    if sent is None:
        return None
    if kind not in (int, Decimal):
        raise _NotPlainError
    return _exactly(Decimal(sent))


@remembers_short(1024)  # of one page, many are equal
def _amount_in_text(text: str) -> Decimal:
    amount = decimal_in(text)
    if amount is None:
        raise _NotPlainError
    return _exactly(amount)


def _exactly(amount: Decimal) -> Decimal:
    held = fitted(amount)
    if held is None or (held is not amount and held != amount):
        raise _NotPlainError  # it is rounded, and kept as it was sent
    return held


@remembers_short(1024)  # likewise
def _moment_in(text: str) -> tuple[datetime, bool]:
    return moment_in(text.strip())


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
        read.append(LineFulfillment(entry.mp_line_number, entry.shipments or (), entry.cancellations or ()))
    return tuple(read)


def _keep(extra: JsonObject, values: Any, further: list[tuple[str, str]]) -> JsonObject:
    for attribute, name in further:
        value = getattr(values, attribute)
        if value is not UNSET:
            extra[name] = _kept(value)
    return extra


def _kept(value: Any) -> Any:
    if isinstance(value, dict | list) and is_too_deep(value):
        raise _NotPlainError  # the tolerant reader names its field
    return value
