"""Tracking numbers as they are typed, pasted and spoiled by spreadsheets."""

from __future__ import annotations

import re
import unicodedata

_IGNORED = re.compile(r"[\s\-.'\"`#=()\u00ad\u200b-\u200f\u2010-\u2015\u2060\u2212\ufeff]+")
_EXPONENT = re.compile(r"\d(?:[.,]\d+)?E\+?\d{1,2}", re.ASCII)
_DECIMAL = re.compile(r"\d+[.,]0+", re.ASCII)
# Printed numbers are grouped by spaces, but not in groups of ten.
_SEVERAL = re.compile(r"[A-Z0-9]{8,}\s*(?:[,;/|&+\n]|\bAND\b)\s*[A-Z0-9]{8,}|[A-Z0-9]{10,}\s+[A-Z0-9]{10,}")
_KEPT_DIGITS = 15  # a spreadsheet writes zeros for the digits behind them
_TELLING_ZEROS = 3


def clean(number: str) -> str:
    """Give the number in upper case, without spaces, dashes, dots, quotes, brackets and unseen characters."""
    if not number.isascii():
        number = unicodedata.normalize("NFKC", number)
    if not number.isalnum():
        number = _IGNORED.sub("", number)
    return number.upper()


def spreadsheet_damage(typed: str) -> str:
    """Say what a spreadsheet did to a number as it was typed; empty when there is no sign of it.

    Lost leading zeros are not seen here, since they depend on the carrier.
    """
    if typed.isalnum():
        return ""
    text = typed.strip().upper()
    if _EXPONENT.fullmatch(text):
        return "a spreadsheet turned it into scientific notation and dropped digits"
    if _DECIMAL.fullmatch(text):
        return "a spreadsheet added a decimal part to it"
    return ""


def has_dropped_digits(number: str) -> bool:
    """Say whether a cleaned number ends in the zeros that a spreadsheet writes for digits it cannot keep."""
    tail = number[_KEPT_DIGITS:]
    return len(tail) >= _TELLING_ZEROS and number.isdigit() and not tail.strip("0")


def is_placeholder(number: str) -> bool:
    """Say whether a cleaned number holds no digit ("N/A"), or one digit over and over.

    Some check digits accept a row of zeros.
    """
    if number.isdigit():
        return number.count(number[0]) == len(number)
    return not any(map(str.isdigit, number))


def holds_several(typed: str) -> bool:
    """Say whether the field as it was typed holds more than one number."""
    return not typed.isalnum() and _SEVERAL.search(typed.upper()) is not None
