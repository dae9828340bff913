"""Cleans tracking numbers as they were typed or pasted, and detects damage by spreadsheets."""

from __future__ import annotations

import re
import unicodedata

_IGNORED = re.compile(r"[\s\-.'\"`#=()\u00ad\u200b-\u200f\u2010-\u2015\u2060\u2212\ufeff]+")
_AROUND = "?!:;,*/\\|<>{}_"
_EXPONENT = re.compile(r"\d(?:[.,]\d+)?E\+?\d{1,2}", re.ASCII)
_HIDDEN = re.compile(r"#{3,}")
_DECIMAL = re.compile(r"\d+[.,]0+", re.ASCII)
# Prefixes that scanners add: the symbology identifier (]C1), or the sign with which DPD's barcode begins.
_SCANNED = re.compile(r"\s*(?:\][A-Za-z]\d|%)")
_ROUTED = re.compile(r"420\d{17,}", re.ASCII)
_WHOLE_BARCODE = "[)>"  # how the content of a two-dimensional barcode begins (ISO/IEC 15434)
_LOOKALIKES = str.maketrans("OI", "01")
# Printed numbers are grouped by spaces, but not in groups of ten.
_SEVERAL = re.compile(r"[A-Z0-9]{8,}\s*(?:[,;/|&+\n]|\bAND\b)\s*[A-Z0-9]{8,}|[A-Z0-9]{10,}\s+[A-Z0-9]{10,}")
_KEPT_DIGITS = 15  # a spreadsheet replaces all further digits with zeros
_TELLING_ZEROS = 3


def clean(number: str) -> str:
    """The number in upper case, without spaces, dashes, dots, quotes, brackets and invisible characters.

    A barcode scanner's prefix and punctuation at either end are removed, too.
    """
    if not number.isascii():
        number = unicodedata.normalize("NFKC", number)
    if not number.isalnum():
        if scanned := _SCANNED.match(number):
            number = number[scanned.end() :]
        number = _IGNORED.sub("", number).strip(_AROUND)
    return number.upper()


def spreadsheet_damage(typed: str) -> str:
    """How a spreadsheet damaged the number, which is passed as it was typed; empty if there is no sign of damage.

    Lost leading zeros are not detected here, because they depend on the carrier.
    """
    if typed.isalnum():
        return ""
    text = typed.strip().upper()
    if _EXPONENT.fullmatch(text):
        return "a spreadsheet turned it into scientific notation and dropped digits"
    if _HIDDEN.fullmatch(text):
        return "a spreadsheet wrote hash signs, since its column was too narrow"
    if _DECIMAL.fullmatch(text):
        return "a spreadsheet added a decimal part to it"
    return ""


def has_dropped_digits(number: str) -> bool:
    """Whether a cleaned number ends in zeros by which a spreadsheet replaced digits beyond its precision."""
    tail = number[_KEPT_DIGITS:]
    return len(tail) >= _TELLING_ZEROS and number.isdigit() and not tail.strip("0")


def is_placeholder(number: str) -> bool:
    """Whether a cleaned number has no digit ("N/A") or repeats a single digit.

    The second test is needed because some check digits accept a row of zeros.
    """
    if number.isdigit():
        return number.count(number[0]) == len(number)
    return not any(map(str.isdigit, number))


def holds_several(typed: str) -> bool:
    """Whether the field, as it was typed, holds more than one number."""
    return not typed.isalnum() and _SEVERAL.search(typed.upper()) is not None


def is_whole_barcode(typed: str) -> bool:
    """Whether the field holds the complete content of a two-dimensional barcode."""
    return typed.lstrip().startswith(_WHOLE_BARCODE)


def letters_as_digits(number: str) -> str:
    """A cleaned number with every letter O replaced by zero and every letter I by one."""
    return number.translate(_LOOKALIKES)


def odd_character(number: str) -> str:
    """The first character of a cleaned number that no tracking number can contain, or an empty string."""
    return next((c for c in number if not (c.isascii() and c.isalnum())), "")


def described(typed: str, number: str) -> str:
    """A description of the number: its length, whether it has letters, and a scanner's or barcode's prefix."""
    made_of = "digits" if number.isdigit() else "letters and digits"
    if scanned := _SCANNED.match(typed):
        return f"{len(number)} {made_of} after the scanner's prefix {scanned[0].strip()}"
    if _ROUTED.fullmatch(number):
        return f"{len(number)} {made_of}, with the 420 and ZIP code of the barcode"
    return f"{len(number)} {made_of}"
