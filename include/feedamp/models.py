"""FeedAMP's answers as typed values: orders, their lines, fulfillments and listed errors (contract 3.2-3.6).

Every class here is a frozen msgspec struct: the same order encodes to the same bytes wherever it was read.
`content_hash` and the snapshots in the state database rely on that. Prices and amounts are `Decimal` in
major units, times are UTC, and `None` means that FeedAMP did not report the field.
"""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec


class MarketplaceState(StrEnum):
    """Set by the marketplace (contract 7.1); an unknown value from FeedAMP stays plain text."""

    PENDING = "PENDING"
    AWAITING_SHIPMENT = "AWAITING_SHIPMENT"
    SHIPPED = "SHIPPED"
    CANCELLED = "CANCELLED"


LARGEST_WHOLE = 2**31 - 1
Units = Annotated[int, msgspec.Meta(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]  # checked where JSON is decoded
FINAL_STATES = frozenset({MarketplaceState.SHIPPED, MarketplaceState.CANCELLED})
COMPLETE = "COMPLETE"  # FeedAMP's own word for closed (contract 7.1)


# What comes from JSON holds no cycle, so the garbage collector need not follow it.
class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of every value that FeedAMP sends or receives; values with equal content are equal."""


class Customer(Struct, frozen=True, forbid_unknown_fields=True):
    """Who ordered (contract 3.6)."""

    full_name: str | None = None
    email: str | None = None
    phone: str | None = None
    vat: str | None = None


class Address(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the order is shipped to (contract 3.6)."""

    full_name: str | None = None
    address1: str | None = None
    address2: str | None = None
    address3: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country_code: str | None = None
    address_type: str | None = None
    phone: str | None = None


class OrderLine(Struct, frozen=True):
    """One ordered line; `extra` holds the members that have no field here."""

    mp_line_number: str
    sku: str | None = None
    product_name: str | None = None
    quantity: int | None = None
    unit_price: Decimal | None = None
    shipping_price: Decimal | None = None
    extra: dict[str, Any] = {}


class Shipment(Struct, frozen=True, forbid_unknown_fields=True):
    """Units that were shipped; `quantity` is None when FeedAMP sent something that is not a whole number."""

    quantity: Units | None = None
    carrier: str | None = None
    tracking_number: str | None = None
    shipped_date: date | None = None
    tracking_url: str | None = None


class Cancellation(Struct, frozen=True, forbid_unknown_fields=True):
    """Units that will never be shipped."""

    quantity: Units | None = None
    reason: str | None = None


class LineFulfillment(Struct, frozen=True):
    """The shipments and cancellations of one line (contract 3.4)."""

    mp_line_number: str
    shipments: tuple[Shipment, ...] = ()
    cancellations: tuple[Cancellation, ...] = ()


class ListedError(Struct, frozen=True, forbid_unknown_fields=True):
    """An error that FeedAMP lists on an order (contract 3.5, Q12)."""

    code: str
    message: str
    mp_line_number: str | None = None


class Snapshot(Struct, frozen=True):
    """The part of an order that validate and close decide on; holds no customer field.

    `errors` is None when FeedAMP does not list errors on orders at all (Q12), and `()` when it lists none.
    """

    mp_order_number: str
    status: str | None = None
    marketplace_state: str | None = None
    acknowledged: bool | None = None
    is_marketplace_fulfilled: bool | None = None
    quantities: dict[str, int] = {}
    fulfillments: tuple[LineFulfillment, ...] = ()
    errors: tuple[ListedError, ...] | None = None

    @property
    def is_final(self) -> bool:
        """Whether the order is closed at FeedAMP, by its marketplace_state or its status (contract 7.1)."""
        return self.marketplace_state in FINAL_STATES or self.status == COMPLETE


class Order(Struct, frozen=True):
    """One order as FeedAMP shows it (contract 3.2).

    `fulfillments` is None when the list answer did not carry them in a shape that can be trusted; they are
    then read from GET /orders/{n}/fulfillments before the order is used.
    """

    mp_order_number: str
    sales_channel: str | None = None
    customer: Customer = Customer()
    purchase_date: datetime | None = None
    currency: str | None = None
    shipping_address: Address = Address()
    order_lines: tuple[OrderLine, ...] = ()
    fulfillments: tuple[LineFulfillment, ...] | None = None
    acknowledged: bool | None = None
    status: str | None = None
    is_marketplace_fulfilled: bool | None = None
    marketplace_state: str | None = None
    delivery_notes: str | None = None
    earliest_ship_date: datetime | None = None
    latest_ship_date: datetime | None = None
    earliest_delivery_date: datetime | None = None
    latest_delivery_date: datetime | None = None
    errors: tuple[ListedError, ...] | None = None
    extra: dict[str, Any] = {}

    @property
    def is_final(self) -> bool:
        """As of its snapshot."""
        return self.snapshot().is_final

    def snapshot(self) -> Snapshot:
        """The part that validate and close decide on."""
        # By position: by name takes a fifth longer.
        return Snapshot(
            self.mp_order_number,
            self.status,
            self.marketplace_state,
            self.acknowledged,
            self.is_marketplace_fulfilled,
            {line.mp_line_number: line.quantity or 0 for line in self.order_lines},
            self.fulfillments or (),
            self.errors,
        )


class ReadOrder(NamedTuple):
    """An order, and when the request that returned it was sent (UTC): it shows every change made before that."""

    order: Order
    read_at: datetime


class ErrorReport(Struct, frozen=True):
    """One item of POST /orders/{n}/errors (contract 3.5)."""

    code: str
    message: str
    mp_line_number: str | None = None


def decode_snapshot(text: str | bytes) -> Snapshot:
    """The snapshot that `encode` wrote."""
    return msgspec.json.decode(text, type=Snapshot)
