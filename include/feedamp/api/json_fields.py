"""Typed access to fields of FeedAMP's JSON; a value that cannot be converted raises an error that names the field."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from feedamp.errors import UnreadableError
from feedamp.models import LARGEST_WHOLE
from feedamp.money import MAX_MONEY, fitted

Coercions = Counter[str]
JsonObject = dict[str, Any]


LONGEST_IDENTIFIER = 128
DEEPEST = 100
"""Levels of a value of a field that has no column; each step must be able to write and read it again."""
_DECIMAL_TEXT = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?")
_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")
_UTC = re.compile(r"\s*(?:UTC|GMT)\Z")
_NO_MOMENT = re.compile(r"[0:.+\-TZ\s]*")  # also MySQL's 0000-00-00 00:00:00


class Fields:
    """The fields of one JSON object. Each method returns None if its field is absent or null.

    `path` is where the object is, such as `order_lines[0].`; it is empty for an order. `extra` receives what has no
    field of its own, under `kept_at` and its key.

    A value of another JSON type that can mean only one thing is read as meant and counted in `coercions` (promise 12).
    An empty text, list or object, and false, mean no value where another type is expected, as some languages write it.
    """

    def __init__(
        self, value: Any, where: str, path: str, kept_at: str, coercions: Coercions, extra: JsonObject
    ) -> None:
        if not isinstance(value, dict):
            raise UnreadableError("FeedAMP sent something other than an object.", where=where)
        self.values: JsonObject = value
        self.path = path
        self.coercions = coercions
        self.extra = extra
        self._kept_at = kept_at

    def keep_unknown(self, known: Iterable[str]) -> None:
        """Stores the fields that are not `known` in `extra`."""
        for key in self.values.keys() - set(known):
            self._keep(key)

    def _keep(self, key: str) -> None:
        if is_too_deep(self.values[key]):
            # The name is a word of FeedAMP's, and this ends in logs.
            raise self._wrong("an unknown field", f"a value that is nested deeper than {DEEPEST} levels")
        self.extra[self._kept_at + key] = self.values[key]

    def _get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value; None instead of an empty one of another type."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, kind) and _is_empty(value):
            self.coercions["empty_for_null"] += 1
            return None
        return value

    def _wrong(self, key: str, what: str) -> UnreadableError:
        return UnreadableError(f"FeedAMP sent {what}.", where=self.path + key)

    def inner(self, key: str, known: Iterable[str]) -> Fields | None:
        """An object, whose fields that are not `known` are stored in `extra`."""
        value = self.values.get(key)
        return None if value is None else self._at(key, value, known)

    def each(
        self, key: str, known: Iterable[str], *, apart: bool = False, text_is: str | None = None
    ) -> Iterator[Fields]:
        """The objects of a list, as `inner`; with `apart`, each has an `extra` of its own.

        `text_is`: the field that a text in place of an object means.
        """
        for i, item in enumerate(self.items(key, known) or ()):
            if text_is is not None and isinstance(item, str):
                self.coercions["text_for_object"] += 1
                item = {text_is: item}
            yield self._at(f"{key}[{i}]", item, known, apart=apart)

    def _at(self, key: str, value: Any, known: Iterable[str], *, apart: bool = False) -> Fields:
        where = self.path + key
        path = f"{where}."
        if not isinstance(value, dict) and _is_empty(value):
            self.coercions["empty_for_object"] += 1
            value = {}
        elif isinstance(value, list) and len(value) == 1:
            self.coercions["list_for_object"] += 1
            value = value[0]
        found = Fields(value, where, path, "" if apart else path, self.coercions, {} if apart else self.extra)
        found.keep_unknown(known)
        return found

    def items(self, key: str, known: Iterable[str]) -> list[Any] | None:
        """A list of objects with the fields `known`.

        An object in its place means its only item, or a list whose items are numbered.
        """
        value = self.values.get(key)
        if value is None or isinstance(value, list):
            return value
        if _is_empty(value):
            self.coercions["empty_for_list"] += 1
            return []
        if isinstance(value, dict):
            is_numbered = all(name.isdecimal() for name in value)
            if is_numbered or not value.keys().isdisjoint(known):
                self.coercions["object_for_list"] += 1
                return [value[name] for name in sorted(value, key=int)] if is_numbered else [value]
        raise self._wrong(key, "something other than a list")

    def text(self, key: str) -> str | None:
        """Text. A number means its digits, unless it has an exponent."""
        value = self._get(key, str)
        if value is None or isinstance(value, str):
            return value
        digits = _digits(value)
        if digits is None:
            raise self._wrong(key, "something other than text")
        self.coercions["number_for_text"] += 1
        return digits

    def identifier(self, key: str, message: str) -> str:
        """Text that must be there and not be empty; `message` is of the error if it is not."""
        found = self.text(key)
        if not found:
            raise UnreadableError(message, where=self.path + key)
        if len(found) > LONGEST_IDENTIFIER:
            fault = f"with more than {LONGEST_IDENTIFIER} characters"
            raise UnreadableError(f"FeedAMP sent text {fault}.", where=f"{self.path}{key} {fault}")
        return found

    def flag(self, key: str) -> bool | None:
        """True or false, also as 0 or 1 or as a word."""
        value = self._get(key, bool)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).strip().lower() if isinstance(value, str) else _digits(value)
        if word not in _TRUE + _FALSE:
            raise self._wrong(key, "something other than true or false")
        self.coercions["word_or_number_for_flag"] += 1
        return word in _TRUE

    def number(self, key: str) -> Decimal | None:
        """An exact number; a decimal string is converted and counted."""
        value = self._get(key, (int, Decimal))
        if value is None:
            return None
        meant = decimal_in(value) if isinstance(value, str) else None
        if meant is not None:
            self.coercions["number_as_text"] += 1
            value = meant
        elif isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            raise self._wrong(key, "something other than a number")
        number = Decimal(value)
        if number.copy_abs() >= MAX_MONEY:
            raise self._wrong(key, "a number that is too large")
        return number

    def money(self, key: str) -> Decimal | None:
        """An amount with at most the four decimals that the tables hold. A longer one is rounded and counted, and the
        original value is stored in `extra`.

        An exponent, and zeros beyond the fourth decimal, are dropped.
        """
        number = self.number(key)
        if number is None:
            return None
        rounded = fitted(number)
        if rounded is None:
            raise self._wrong(key, "a number that is too large")
        if rounded != number:
            self.coercions["money_beyond_four_decimals"] += 1
            self._keep(key)
        return rounded

    def whole(self, key: str) -> int | None:
        """A whole number within 32 bits."""
        number = self.number(key)
        if number is not None and not _is_whole(number):
            raise self._wrong(key, "something other than a whole number")
        return None if number is None else int(number)

    def units(self, key: str) -> int | None:
        """Units of a shipment or cancellation. A fraction is the seller's error (`bad_quantity`): None, and stored in `extra`."""
        number = self.number(key)
        if number is not None and not _is_whole(number):
            self._keep(key)
            return None
        return None if number is None else int(number)

    def moment(self, key: str) -> datetime | None:
        """A time in UTC; a time without zone is read as UTC and counted."""
        text = self._moment_text(key, "a date-time")
        if text is None:
            return None
        try:
            moment, has_zone = moment_in(text)
        except (ValueError, OverflowError) as error:
            raise self._wrong(key, "something other than a date-time") from error
        if not has_zone:
            self.coercions["time_without_zone"] += 1
        return moment

    def day(self, key: str) -> date | None:
        """A date; a date-time is cut to its date and counted."""
        text = self._moment_text(key, "a date")
        if text is None:
            return None
        try:
            if len(text) > 10:
                self.coercions["date_as_date_time"] += 1
                return datetime.fromisoformat(_in_iso(text)).date()
            return date.fromisoformat(text)
        except ValueError as error:
            raise self._wrong(key, "something other than a date") from error

    def _moment_text(self, key: str, meant: str) -> str | None:
        """The text of a date or a time; None if it is empty or all zeros."""
        value = self._get(key, str)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, f"something other than {meant}")
        text = (value or "").strip()
        if value and _NO_MOMENT.fullmatch(text):
            self.coercions["zeros_for_no_date"] += 1
        return None if _NO_MOMENT.fullmatch(text) else text


def is_too_deep(value: Any) -> bool:
    """Whether a value is nested deeper than `DEEPEST` levels of lists and objects."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def cursor_in(text: str | None) -> str | None:
    """The next cursor that a text means; None if there is no next page, however that is written (contract 7.3)."""
    return text if text and not text.isspace() and text != "null" else None


def decimal_in(text: str) -> Decimal | None:
    """The number that a text means; None if it means none."""
    digits = text.strip()
    return Decimal(digits) if _DECIMAL_TEXT.fullmatch(digits) else None


def moment_in(text: str) -> tuple[datetime, bool]:
    """The time that a text means, in UTC, and whether it names its zone; without one it is UTC.

    Raises:
        ValueError, OverflowError: it means none, or one beyond the calendar.
    """
    moment = datetime.fromisoformat(_in_iso(text))
    if moment.tzinfo is UTC:
        return moment, True
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC), False
    return moment.astimezone(UTC), True  # overflows at both ends of the calendar


def _in_iso(text: str) -> str:
    """A time as ISO 8601 writes it, which has no words for UTC."""
    text = text.upper()
    return (
        text if text.endswith("Z") else _UTC.sub("Z", text)
    )  # to search each time takes longer than to read it


def _is_whole(number: Decimal) -> bool:
    return number == int(number) and abs(number) <= LARGEST_WHOLE


def _is_empty(value: Any) -> bool:
    return value is False or value in ([], {}) or (isinstance(value, str) and not value.strip())


def _digits(value: Any) -> str | None:
    """The digits of a number, without a fraction of zeros; None if it is no number, or has an exponent."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    exponent = Decimal(value).as_tuple().exponent
    if not isinstance(exponent, int) or exponent > 0 or exponent < -30:
        return None
    return str(int(value)) if value == int(value) else f"{value:f}"
