"""The result of checking one tracking number, and the messages for sellers."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial

from feedamp.carriers.formats import Carrier

AS_TEXT = "Format the column as text and enter the number from the label again."
_COMPARE = "Compare it with the label."

# In all of these `{0}` is the stated carrier and `{1}` a detail.
DAMAGED = f"The tracking number is damaged: {{1}}. {AS_TEXT}"
PLACEHOLDER = "This is a placeholder. Enter the number from the label."
OTHER_VALUE = "This is {1}, not a tracking number. Enter the number from the label."
TOO_SHORT = "{0.title} issues no number of so few letters and digits. Enter the number from the label."
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
ONLY_LINKED = (
    "The tracking link leads to {0.title}, but no carrier is stated for certain. If it is {0.title}: {1}"
)


class Status(StrEnum):
    """The result of the check; only `invalid` blocks a seller."""

    VALID = "valid"
    INVALID = "invalid"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one pair of stated carrier and tracking number.

    `carrier_id` is the id of the stated carrier, or None if it is unknown. `reason` is a sentence for the seller; it is
    empty if the number is valid.
    """

    status: Status
    carrier_id: str | None
    reason: str


@lru_cache(maxsize=4096)  # most numbers share a few verdicts
def _verdict(status: Status, stated: Carrier | None, text: str = "", more: str = "") -> Verdict:
    return Verdict(status, stated.carrier_id if stated else None, text.format(stated, more))


# Each takes the stated carrier; the latter two also a text from above, and a detail for it.
valid = partial(_verdict, Status.VALID)
refused = partial(_verdict, Status.INVALID)
unjudged = partial(_verdict, Status.UNVERIFIED)
