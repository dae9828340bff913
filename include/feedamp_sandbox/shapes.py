"""The exact shapes of a PUT body and an error report (contract 1, 3.3, 3.5, 3.6)."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

WRONG_TYPE, INVALID = "FIELD_INCORRECT_DATA_TYPE", "FIELD_INVALID_VALUE"
MISSING, UNKNOWN = "MISSING_REQUIRED_FIELD", "UNKNOWN_FIELD_PRESENT"
# ISO 4217 codes of the currencies in circulation; the API's own list is not known (Q4).
_CODES = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT
LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR
NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP
STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD
XCG XOF XPF YER ZAR ZMW ZWG
"""
RULE_OF = {WRONG_TYPE: "bad_field", INVALID: "bad_field", MISSING: "missing_field", UNKNOWN: "unknown_field"}


class Problem(NamedTuple):
    """One fault in a body; `field` is dotted, with the index for list items."""

    code: str
    field: str


Check = Callable[[str, Any], Iterator[Problem]]


def value_of(kind: type | tuple[type, ...], is_valid: Callable[[Any], bool] = lambda _: True) -> Check:
    """A value of a type that passes a test; `true` and `false` are no numbers."""

    def check(at: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, kind) or isinstance(value, bool):
            yield Problem(WRONG_TYPE, at)
        elif not is_valid(value):
            yield Problem(INVALID, at)

    return check


def text(shortest: int = 0, longest: int = 2**31, pattern: str = r"(?s).*") -> Check:
    """A string of `shortest` to `longest` characters that matches the pattern completely."""
    return value_of(str, lambda v: shortest <= len(v) <= longest and re.fullmatch(pattern, v) is not None)


def one_of(values: tuple[str, ...] | frozenset[str]) -> Check:
    """One of a closed list of strings."""
    return value_of(str, lambda value: value in values)


def is_utc_date_time(value: str) -> bool:
    """Whether it is a valid date in the form `YYYY-MM-DDTHH:MM:SSZ`."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", value):
        return False
    try:
        return datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def is_money(value: int | Decimal) -> bool:
    """Whether it has at most two decimals, not counting trailing zeros (Q3)."""
    number = Decimal(value)
    exponent = number.normalize().as_tuple().exponent
    return number.adjusted() <= 15 and isinstance(exponent, int) and exponent >= -2


UTC_DATE_TIME = value_of(str, is_utc_date_time)
MONEY = value_of((int, Decimal), is_money)
UNITS = value_of(int, lambda value: 1 <= value < 2**31)
ANY_OBJECT = value_of(dict)  # its members are not known (Q13)


def items(check_item: Check, at_least: int = 0) -> Check:
    """A list whose items all pass the check."""

    def check(at: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, list):
            yield Problem(WRONG_TYPE, at)
            return
        if len(value) < at_least:
            yield Problem(INVALID, at)
        for position, item in enumerate(value):
            yield from check_item(f"{at}[{position}]", item)

    return check


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with only these members; null does not count as a value."""
    known = {**required, **(optional or {})}

    def check(at: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield Problem(WRONG_TYPE, at)
            return
        prefix = f"{at}." if at else ""
        for name in value.keys() - known.keys():
            yield Problem(UNKNOWN, prefix + name[:60])
        for name, check_member in known.items():
            if name in value:
                yield from check_member(prefix + name, value[name])
            elif name in required:
                yield Problem(MISSING, prefix + name)

    return check


NUMBER = text(1, 128)

CUSTOMER = fields({}, dict.fromkeys(("full_name", "email", "phone", "vat"), text()))

ADDRESS = fields(
    {
        **dict.fromkeys(("full_name", "address1", "city", "state", "postal_code"), text()),
        # Alpha-3 in every sample, inferred for orders (1).
        "country_code": text(pattern="[A-Z]{3}"),
    },
    dict.fromkeys(("address2", "address3", "phone", "address_type"), text()),
)

LINE = fields(
    {"mp_line_number": NUMBER, "sku": text(), "product_name": text(), "quantity": UNITS, "unit_price": MONEY},
    {
        "shipping_method": text(),
        "shipping_price": MONEY,
        "taxes": items(fields({}, {"type": text(), "amount": MONEY})),
        "discounts": items(fields({}, {"name": text(), "amount": MONEY, "type": text()})),
    },
)

ORDER = fields(
    {
        "mp_order_number": NUMBER,
        "sales_channel": text(),
        "customer": CUSTOMER,
        "purchase_date": UTC_DATE_TIME,
        "currency": one_of(tuple(_CODES.split())),
        "shipping_address": ADDRESS,
        "order_lines": items(LINE, at_least=1),
        "marketplace_state": one_of(("PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED")),
    },
    {
        "location": ANY_OBJECT,
        "delivery_notes": text(),
        **dict.fromkeys(
            ("earliest_ship_date", "latest_ship_date", "earliest_delivery_date", "latest_delivery_date"),
            UTC_DATE_TIME,
        ),
    },
)


def error_list(codes: tuple[str, ...]) -> Check:
    """The list of an error report, without an envelope; only `codes` are accepted (Q16)."""
    item = fields(
        {"code": one_of(codes), "message": text(1)}, {"mp_line_number": NUMBER, "debug": items(ANY_OBJECT)}
    )
    return items(item, at_least=1)
