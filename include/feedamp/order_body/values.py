"""Reads single values of an order body; each reader returns the canonical value or raises the reason.

Readers take the types that a JSON decoder returns (str, int, Decimal, bool, list, dict).

Raises:
    BadValueError: from every reader, for a value that the field cannot hold.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Context, Decimal
from struct import pack, unpack
from typing import Any

from feedamp.money import MAX_MONEY
from feedamp.order_body.countries import COUNTRIES, alpha_3
from feedamp.order_body.currencies import CURRENCIES
from feedamp.order_body.reject_reasons import BadValueError, is_storable

MAX_KEY_CHARS = 128
MAX_QUANTITY = 2**31 - 1
MAX_DEPTH = 16
STATES = ("PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED")

_BLANKS = (
    "".join(filter(str.isspace, map(chr, range(0x3001))))
    + "\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}"
)
# They break lines or turn around what follows, so that an id would read as another one.
_MISLEADING = re.compile("[\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CENT = Decimal("0.01")
_CENTS = Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[])
_DATE_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?: ?(?:([Zz]|UTC|GMT)|([+-])([0-9]{2})(?::?([0-9]{2}))?))?"  # `+00` and ` UTC` are how databases write it
)


def text(value: object) -> str:
    """Text, unchanged and not stripped."""
    if not isinstance(value, str):
        raise BadValueError("wrong_type", "must be text")
    if not is_storable(value):
        raise BadValueError("wrong_type", "holds a NUL or bytes that are not UTF-8")
    return value


def key(value: object) -> str:
    """An identifier of 1 to 128 characters without control characters (contract 1)."""
    found = text(value)
    if len(found) > MAX_KEY_CHARS:
        raise BadValueError("out_of_range", f"is longer than {MAX_KEY_CHARS} characters")
    if not found.isprintable() and any(ord(char) < 32 or 127 <= ord(char) < 160 for char in found):
        raise BadValueError("wrong_type", "holds a control character")
    return found


def seller_id(value: object) -> str:
    """An identifier without the blanks around it, as sellers are registered."""
    found = trimmed(text(value))
    if not found:
        raise BadValueError("missing", "must be there and not be empty")
    if _MISLEADING.search(found):
        raise BadValueError("wrong_type", "holds a control character")
    return key(found)


def trimmed(found: str) -> str:
    """Text without the blanks around it, invisible ones too."""
    return found.strip(_BLANKS)


def country_code(value: object) -> str:
    """An ISO 3166 alpha-3 code."""
    found = text(value)
    if found not in COUNTRIES:
        meant = alpha_3(found)
        raise BadValueError(
            "out_of_range", f"must be {meant}" if meant else "must be an ISO 3166 alpha-3 code, such as USA"
        )
    return found


def currency(value: object) -> str:
    """An ISO 4217 code that a buyer can pay in."""
    found = text(value)
    if found not in CURRENCIES:
        raise BadValueError("out_of_range", "must be an ISO 4217 code in capitals, such as USD")
    return found


def marketplace_state(value: object) -> str:
    """One of the four states that a marketplace sets (contract 7.1)."""
    found = text(value)
    if found not in STATES:
        raise BadValueError("illegal_transition", f"must be one of {', '.join(STATES)}")
    return found


def quantity(value: object) -> int:
    """Whole units, at least 1; 2.0 is whole, as pandas and Spark write it."""
    if isinstance(value, Decimal | float) and not Decimal(value).is_finite():
        raise BadValueError("bad_number", "must be a number, written like 1 or 1000")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadValueError("wrong_type", "must be a whole number")
    if not 1 <= value <= MAX_QUANTITY:  # before `int`, which would write out an exponent of a billion
        raise BadValueError("out_of_range", f"must be between 1 and {MAX_QUANTITY}")
    if value != int(value):
        raise BadValueError("wrong_type", "must be a whole number")
    return int(value)


def money(value: object) -> Decimal:
    """Major units with exactly two decimals, zero or more, below 10^14; 6, 6.0 and 6.000 give 6.00."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadValueError("wrong_type", "must be a number")
    amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not amount.is_finite():
        raise BadValueError("bad_number", "must be a number, written like 1000 or 3.20")
    if amount < 0 or amount >= MAX_MONEY:
        raise BadValueError("out_of_range", "must be zero or more, with at most 14 digits before the point")
    cents = amount.quantize(_CENT, context=_CENTS)
    if cents != amount:
        is_short = unpack("<f", pack("<f", cents))[0] == float(amount)
        way_out = " as a 32-bit float: store prices as decimals or 64-bit floats" if is_short else ""
        raise BadValueError("bad_number", f"has more than two decimals{way_out}")
    return cents.copy_abs()


def date_time(value: object) -> str:
    """A moment as `YYYY-MM-DDTHH:MM:SSZ` (contract 1): an offset becomes UTC, a fraction of a second is cut."""
    match = _DATE_TIME.fullmatch(text(value))
    if match is None:
        raise BadValueError("bad_date", "must look like 2026-03-02T14:05:00Z")
    zulu, sign, hours, minutes = match.group(7, 8, 9, 10)
    if zulu is None and sign is None:
        raise BadValueError("bad_date", "has no time zone: add Z if it is UTC, else the offset")
    try:
        offset = timedelta(hours=int(hours), minutes=int(minutes or 0)) if sign else timedelta()
        zone = timezone(-offset if sign == "-" else offset)
        year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadValueError("bad_date", "is not a date and time that exists") from None
    if moment.year < 1970:
        raise BadValueError("bad_date", "is before 1970, which is how a missing date is often written")
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def anything(value: object, depth: int = 0) -> Any:
    """The value of a field that `extra_order_fields` names, passed on unchanged if JSON can represent it."""
    if depth > MAX_DEPTH:
        raise BadValueError("wrong_type", f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Decimal | float) and not Decimal(value).is_finite():
        raise BadValueError("bad_number", "is not a number")
    if isinstance(value, float):
        return Decimal(repr(value))
    if value is None or isinstance(value, int | Decimal):
        return value
    if isinstance(value, Mapping):
        return {text(name): anything(member, depth + 1) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [anything(item, depth + 1) for item in value]
    raise BadValueError("wrong_type", "is not a value that JSON can represent")
