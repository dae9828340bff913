"""The fields of an order body, each declared once: how it is read and whether it is required (contract 3.3, 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from feedamp.order_body import values


@dataclass(frozen=True)
class Value:
    """A single value; blank text counts as absent where `blank_is_absent`."""

    read: Callable[[object], Any]
    required: bool = False
    blank_is_absent: bool = True


@dataclass(frozen=True)
class Members:
    """An object with these members."""

    fields: Mapping[str, Node]
    required: bool = False


@dataclass(frozen=True)
class ListOf:
    """A list of objects; entries of amount zero are dropped where `drop_zero` (contract Q18)."""

    fields: Mapping[str, Node]
    required: bool = False
    drop_zero: bool = False


Node = Value | Members | ListOf

CUSTOMER: Mapping[str, Node] = {
    "full_name": Value(values.text, required=True),
    "email": Value(values.text),
    "phone": Value(values.text),
    "vat": Value(values.text),
}

SHIPPING_ADDRESS: Mapping[str, Node] = {
    "full_name": Value(values.text, required=True),
    "address1": Value(values.text, required=True),
    "address2": Value(values.text),
    "address3": Value(values.text),
    "city": Value(values.text, required=True),
    "state": Value(values.text, required=True),
    "postal_code": Value(values.text, required=True),
    "country_code": Value(values.country_code, required=True),
    "address_type": Value(values.text),
    "phone": Value(values.text),
}

TAX: Mapping[str, Node] = {
    "type": Value(values.text, required=True),
    "amount": Value(values.money, required=True, blank_is_absent=False),
}

DISCOUNT: Mapping[str, Node] = {
    "name": Value(values.text),
    "amount": Value(values.money, required=True, blank_is_absent=False),
    "type": Value(values.text, required=True),
}

ORDER_LINE: Mapping[str, Node] = {
    "mp_line_number": Value(values.key, required=True),
    "sku": Value(values.text, required=True),
    "product_name": Value(values.text, required=True),
    "quantity": Value(values.quantity, required=True, blank_is_absent=False),
    "unit_price": Value(values.money, required=True, blank_is_absent=False),
    "shipping_method": Value(values.text),
    "shipping_price": Value(values.money, blank_is_absent=False),
    "taxes": ListOf(TAX, drop_zero=True),
    "discounts": ListOf(DISCOUNT, drop_zero=True),
}

ORDER: Mapping[str, Node] = {
    "mp_order_number": Value(values.key, required=True),
    "sales_channel": Value(values.text, required=True),
    "customer": Members(CUSTOMER, required=True),
    "purchase_date": Value(values.date_time, required=True),
    "currency": Value(values.currency, required=True),
    "shipping_address": Members(SHIPPING_ADDRESS, required=True),
    "order_lines": ListOf(ORDER_LINE, required=True),
    "marketplace_state": Value(values.marketplace_state, required=True),
    "delivery_notes": Value(values.text),
    "earliest_ship_date": Value(values.date_time),
    "latest_ship_date": Value(values.date_time),
    "earliest_delivery_date": Value(values.date_time),
    "latest_delivery_date": Value(values.date_time),
}

# Fields that the rest of the code depends on; `optional_fields` must not name them.
KEYS = frozenset(
    {
        "mp_order_number",
        "purchase_date",
        "marketplace_state",
        "order_lines",
        "order_lines.mp_line_number",
        "order_lines.quantity",
    }
)

# Fields whose digits a spreadsheet can destroy without making them invalid.
IDENTIFIERS = frozenset(
    {
        "seller_id",
        "mp_order_number",
        "order_lines.mp_line_number",
        "order_lines.sku",
        "customer.phone",
        "customer.vat",
        "shipping_address.phone",
        "shipping_address.postal_code",
    }
)

# Fields of answers that a body cannot set (contract 3.2).
READ_ONLY: Mapping[str, str] = {
    "status": "FeedAMP computes it from what the seller does: leave it out",
    "acknowledged": "only the seller can set it: leave it out",
    "fulfillments": "only the seller can write them: leave them out",
    "errors": "FeedAMP lists what was reported to it: leave them out",
}

# Fields whose meaning in a body is unknown (contract Q13, Q31); only `extra_order_fields` lets them through.
NOT_SENT: Mapping[str, str] = {
    "is_marketplace_fulfilled": "it is known from answers only, and whether an order may set it is unknown",
    "location": "its members are not documented",
}


def field_names(fields: Mapping[str, Node] = ORDER, above: str = "") -> Iterator[str]:
    """Every field of an order by its dotted name without indexes, parents before members."""
    for name, node in fields.items():
        yield above + name
        if not isinstance(node, Value):
            yield from field_names(node.fields, f"{above}{name}.")
