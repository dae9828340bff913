"""Typed access to fields of FeedAMP's JSON; a value that cannot be converted raises an error that names the field.

`where` is the path of the object that holds the field, such as `order_lines[0].`; it is put before the key.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from feedamp.errors import UnreadableError
from feedamp.money import MAX_MONEY, fitted

Coercions = Counter[str]
JsonObject = dict[str, Any]


_DECIMAL_TEXT = re.compile(r"[+-]?\d{1,18}(\.\d{1,9})?")


def object_at(value: Any, where: str) -> JsonObject:
    """The value as an object."""
    if not isinstance(value, dict):
        raise UnreadableError("FeedAMP sent something other than an object.", where=where)
    return value


def list_at(fields: JsonObject, key: str, where: str = "") -> list[Any] | None:
    """A list, or None if the field is absent or null."""
    value = fields.get(key)
    if value is not None and not isinstance(value, list):
        raise UnreadableError("FeedAMP sent something other than a list.", where=where + key)
    return value


def text_at(fields: JsonObject, key: str, where: str = "") -> str | None:
    """Text, or None if the field is absent or null."""
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise UnreadableError("FeedAMP sent something other than text.", where=where + key)
    return value


def flag_at(fields: JsonObject, key: str) -> bool | None:
    """True or false, or None if the field is absent or null."""
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        raise UnreadableError("FeedAMP sent something other than true or false.", where=key)
    return value


def decimal_at(fields: JsonObject, key: str, where: str, coercions: Coercions) -> Decimal | None:
    """An exact number; a decimal string is converted and counted."""
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value.strip()):
        coercions["number_as_text"] += 1
        value = value.strip()
    elif isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise UnreadableError("FeedAMP sent something other than a number.", where=where + key)
    try:
        number = Decimal(value)
    except InvalidOperation as error:  # pragma: no cover - the pattern above admits only decimals
        raise UnreadableError("FeedAMP sent something other than a number.", where=where + key) from error
    if not number.is_finite() or abs(number) >= MAX_MONEY:
        raise UnreadableError("FeedAMP sent a number that is too large.", where=where + key)
    return number


def money_at(
    fields: JsonObject, key: str, where: str, coercions: Coercions, extra: JsonObject
) -> Decimal | None:
    """An amount with at most the four decimals that the tables hold. A longer one is rounded and counted, and the
    original value is stored in `extra`.

    An exponent, and zeros beyond the fourth decimal, are dropped.
    """
    number = decimal_at(fields, key, where, coercions)
    if number is None:
        return None
    rounded = fitted(number)
    if rounded is None:
        raise UnreadableError("FeedAMP sent a number that is too large.", where=where + key)
    if rounded != number:
        coercions["money_beyond_four_decimals"] += 1
        extra[key] = fields[key]
    return rounded


def whole_at(fields: JsonObject, key: str, where: str, coercions: Coercions) -> int | None:
    """A whole number within 32 bits."""
    number = decimal_at(fields, key, where, coercions)
    if number is None:
        return None
    if number != int(number) or abs(number) > 2**31 - 1:
        raise UnreadableError("FeedAMP sent something other than a whole number.", where=where + key)
    return int(number)


def units_at(fields: JsonObject, key: str, where: str, coercions: Coercions, extra: JsonObject) -> int | None:
    """Units of a shipment or cancellation. A fraction is the seller's error (`bad_quantity`): None, and stored in `extra`."""
    number = decimal_at(fields, key, where, coercions)
    if number is None:
        return None
    if number != int(number) or abs(number) > 2**31 - 1:
        extra[where + key] = fields[key]
        return None
    return int(number)


def moment_at(fields: JsonObject, key: str, coercions: Coercions) -> datetime | None:
    """A time in UTC; a time without zone is read as UTC and counted."""
    text = text_at(fields, key)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            coercions["time_without_zone"] += 1
            return moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)  # overflows at both ends of the calendar
    except (ValueError, OverflowError) as error:
        raise UnreadableError("FeedAMP sent something other than a date-time.", where=key) from error


def day_at(fields: JsonObject, key: str, where: str, coercions: Coercions) -> date | None:
    """A date; a date-time is cut to its date and counted."""
    text = text_at(fields, key, where)
    if not text:
        return None
    try:
        if len(text) > 10:
            coercions["date_as_date_time"] += 1
            return datetime.fromisoformat(text).date()
        return date.fromisoformat(text)
    except ValueError as error:
        raise UnreadableError("FeedAMP sent something other than a date.", where=where + key) from error
