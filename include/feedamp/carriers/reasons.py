"""The messages for sellers. Verdicts are cached, because most numbers share a few of them."""

from __future__ import annotations

from functools import cache, lru_cache

from feedamp.carriers.formats import Carrier
from feedamp.carriers.verdict import Status, Verdict

AS_TEXT = "Format the column as text and enter the number from the label again."
_COMPARE = "Compare it with the label."

# In all of these `{0}` is the stated carrier and `{1}` a detail.
DAMAGED = f"The tracking number is damaged: {{1}}. {AS_TEXT}"
PLACEHOLDER = "This is a placeholder. Enter the number from the label."
LOST_ZERO = f"A leading zero is missing, as happens in spreadsheets. {AS_TEXT}"
DROPPED_DIGITS = f"A spreadsheet replaced the last digits with zeros. {AS_TEXT}"
WRONG_DIGIT = f"The check digit of this {{0.title}} number is wrong, so a digit was mistyped. {_COMPARE}"
OF_OTHERS = "This looks like a number from {1}, not from {0.title}. Correct either of them."
LETTER_FOR_DIGIT = f"There is a letter O or I where a zero or a one belongs. {_COMPARE}"
ODD_CHARACTER = "No tracking number contains “{1}”. Enter the number alone: it should be {0.looks_like}."
WHOLE_BARCODE = (
    "This is the complete content of a barcode. Enter only the number that is printed on the label."
)
NOT_ITS_SHAPE = (
    f"This is not a number from {{0.title}}: it should be {{0.looks_like}}, and this has {{1}}. {_COMPARE}"
)

NO_NUMBER = "There is no tracking number."
SEVERAL = "The field holds more than one tracking number. Enter one number for each shipment."
NO_RULE = "{0.title} publishes no rule for checking a number like this one.{1}"
NO_RULES = "{0.title} publishes no rules for its numbers, so this one was not checked."
HINT = " It looks like one from {}: check that the carrier is right."

NO_CARRIER = "There is no carrier, so the number was not checked."
UNKNOWN_CARRIER = "The carrier is not one we know for certain, so the number was not checked."
LOOKS_DAMAGED = f"The tracking number looks damaged: {{}}. {AS_TEXT}"
ONLY_LINKED = (
    "The tracking link leads to {0.title}, but no carrier is stated for certain. If it is {0.title}: {1}"
)


@lru_cache(maxsize=4096)
def refused(stated: Carrier, text: str, more: str = "") -> Verdict:
    """The verdict that the number cannot be one of the stated carrier's."""
    return Verdict(Status.INVALID, stated.carrier_id, text.format(stated, more))


@lru_cache(maxsize=4096)
def unjudged(stated: Carrier, text: str, more: str = "") -> Verdict:
    """The verdict that the number could not be checked against the stated carrier."""
    return Verdict(Status.UNVERIFIED, stated.carrier_id, text.format(stated, more))


@cache
def without_carrier(reason: str) -> Verdict:
    """The verdict on a number whose carrier is not known."""
    return Verdict(Status.UNVERIFIED, None, reason)
