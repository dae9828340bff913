"""The result of checking one tracking number."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache


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


@cache
def valid(carrier_id: str) -> Verdict:
    """The verdict on a number that fits its carrier; always the same object."""
    return Verdict(Status.VALID, carrier_id, "")
