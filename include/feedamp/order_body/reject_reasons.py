"""The reasons why an order is rejected, with messages for the person who sent it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

ReasonCode = Literal[
    "missing",
    "wrong_type",
    "out_of_range",
    "unknown_field",
    "bad_date",
    "bad_number",
    "duplicate_line",
    "illegal_transition",
    "body_changed",
    "refused_by_feedamp",
    "spreadsheet_damage",
    "unreadable",
    "too_large",
]
MAX_REASONS = 100  # of one row; more help no one, and a row of 8 MiB can have hundreds of thousands


@dataclass(frozen=True)
class Reason:
    """One fault of one field; `field` is a path such as `order_lines[2].quantity`, indexes from 0.

    `field` is empty for a fault of the row or file as a whole. `message` is one sentence that says what to
    change and never repeats the value, which may be personal.
    """

    field: str
    code: ReasonCode
    message: str


def capped(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The first `MAX_REASONS` reasons; if there are more, the last one says how many."""
    found = tuple(reasons)
    if len(found) <= MAX_REASONS:
        return found
    message = f"the row has {len(found) - MAX_REASONS + 1} more faults, which are not listed"
    return (*found[: MAX_REASONS - 1], Reason("", "too_large", message))


class BadValueError(Exception):
    """A value that its field cannot hold; the check turns it into a `Reason`."""

    def __init__(self, code: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def is_storable(text: str) -> bool:
    """Whether `text` can be stored as UTF-8 and in a Postgres column: it has no NUL and no lone surrogate."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(text: str) -> str:
    """`text` with NULs and lone surrogates replaced by escape sequences."""
    if is_storable(text):
        return text
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
