"""PURE: finds the faults in the shipments and cancellations that a seller reported, and says which of them are errors.

`check_order` takes the placed quantities and a snapshot and returns all faults together. Sellers read the messages:
they say in plain words what to change and where.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from feedamp import carriers
from feedamp.codec import content_hash
from feedamp.models import LineFulfillment, Shipment, Snapshot
from feedamp.rules.shared_tracking import SHARED_WITHIN, comparable
from feedamp.rules.units import LineUnits


class Kind(StrEnum):
    """Kinds of findings."""

    UNKNOWN_LINE = "unknown_line"
    OVER_FULFILLED = "over_fulfilled"
    BAD_QUANTITY = "bad_quantity"
    MISSING_TRACKING = "missing_tracking"
    MISSING_CARRIER = "missing_carrier"
    INVALID_TRACKING = "invalid_tracking"
    SHARED_TRACKING = "shared_tracking"
    SHIPPED_BEFORE_PURCHASE = "shipped_before_purchase"
    SHIPPED_IN_FUTURE = "shipped_in_future"


class Severity(StrEnum):
    """An error blocks closing; a warning never does."""

    ERROR = "error"
    WARNING = "warning"


WARNINGS = frozenset({Kind.SHARED_TRACKING, Kind.SHIPPED_BEFORE_PURCHASE, Kind.SHIPPED_IN_FUTURE})
# The only code that is known (contract Q16).
DEFAULT_ERROR_CODE = "INVALID_TRACKING_NUMBER"
# Dates have no time zone: it may already be tomorrow where a parcel is shipped.
ONE_DAY = timedelta(days=1)
# How the hash of what a finding is about begins; earlier versions stored a hash of the whole line.
HASH_MARK = "2:"

_Fault = tuple[Kind, str, str]
_Part = tuple[str, str, int]  # the line, `shipment` or `cancellation`, and which of them, from 1


@dataclass(frozen=True)
class Finding:
    """One fault; (line, kind, value) identifies it within the order.

    If a line was never ordered, only its `unknown_line` fault has an `mp_line_number`. In its other faults, `value` and
    `message` name the line. `line_hash` changes with what the fault is about: quantity, carrier and number of a shipment.
    It holds no member that an answer may leave out, such as `tracking_url`. `carrier` and `tracking_number` are those of
    the shipment, as the seller typed them.
    """

    kind: Kind
    mp_line_number: str | None
    value: str
    message: str
    line_hash: str
    carrier: str | None = None
    tracking_number: str | None = None

    @property
    def severity(self) -> Severity:
        """ERROR if the fault blocks closing, otherwise WARNING."""
        return Severity.WARNING if self.kind in WARNINGS else Severity.ERROR

    def id_for(self, seller_id: str, mp_order_number: str) -> str:
        """The id of this fault; the same in every run."""
        parts = (seller_id, mp_order_number, self.mp_line_number or "", self.kind, self.value)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def default_code(kind: Kind) -> str | None:
    """The code with which a kind is reported unless `error_codes` says otherwise; None: it is not reported."""
    return None if kind in WARNINGS else DEFAULT_ERROR_CODE


def check_order(
    ordered: Collection[str],
    units: Mapping[str, LineUnits],
    snapshot: Snapshot,
    *,
    purchase_date: datetime,
    today: date,
    shared_numbers: Collection[str] = (),
    untracked: Collection[str] = (),
) -> list[Finding]:
    """Every fault of one order.

    Args:
        ordered: the lines of the placed body.
        units: the result of `count_units` for these and the snapshot.
        shared_numbers: tracking numbers that were also used for another recipient.
        untracked: names of carriers and services for which a missing number is no fault.
    """
    findings: dict[tuple[str | None, Kind, str], Finding] = {}
    shared = frozenset(shared_numbers)
    # A purchase on the first day of the calendar, as some systems write none, has no day before it.
    usual = date.fromordinal(max(1, purchase_date.toordinal() - 1)), today + ONE_DAY
    for line, entries in _by_line(snapshot.fulfillments).items():
        found = _check_line(line, entries, usual_days=usual, shared=shared, untracked=untracked)
        has = units[line]
        if line not in ordered:
            message = f"Line {line} is not part of this order; move its units to an ordered line."
            found.append(((Kind.UNKNOWN_LINE, line, message), [has.shipped, has.cancelled], Shipment()))
        elif has.over:
            message = (
                f"Line {line}: {has.shipped} shipped and {has.cancelled} cancelled are more than the "
                f"{has.ordered} ordered; correct the quantities."
            )
            value = f"{has.shipped}+{has.cancelled}>{has.ordered}"
            found.append(((Kind.OVER_FULFILLED, value, message), [value], Shipment()))
        for (kind, value, message), about, of in found:
            named: str | None = line
            if line not in ordered and kind is not Kind.UNKNOWN_LINE:
                # If one report names a line that FeedAMP does not know, it refuses all reports of the request.
                named, value = None, f"{line}: {value}"
            line_hash = HASH_MARK + content_hash(about)[len(HASH_MARK) :]
            typed = of.carrier, of.tracking_number
            findings.setdefault((named, kind, value), Finding(kind, named, value, message, line_hash, *typed))
    return list(findings.values())


def _by_line(fulfillments: Sequence[LineFulfillment]) -> dict[str, list[LineFulfillment]]:
    lines: dict[str, list[LineFulfillment]] = {}
    for entry in fulfillments:
        lines.setdefault(entry.mp_line_number, []).append(entry)
    return lines


def _check_line(
    line: str,
    entries: Sequence[LineFulfillment],
    *,
    usual_days: tuple[date, date],
    shared: Collection[str],
    untracked: Collection[str],
) -> list[tuple[_Fault, list[Any], Shipment]]:
    """The faults of one line, each with what it is about, and its shipment; an empty one if it is about none.

    Nearly all lines have none, so that no check is a generator or writes a place before it has a fault: either takes
    longer than to see that all is well.
    """
    found: list[tuple[_Fault, list[Any], Shipment]] = []
    for entry in entries:
        for index, shipment in enumerate(entry.shipments, start=1):
            part = line, "shipment", index
            faults = (
                *_check_quantity(shipment.quantity, part),
                *_check_parcel(shipment, part, shared, untracked),
                *_check_day(shipment.shipped_date, part, *usual_days),
            )
            if faults:
                about = [shipment.quantity, shipment.carrier, shipment.tracking_number]
                found += [(fault, about, shipment) for fault in faults]
        for index, cancellation in enumerate(entry.cancellations, start=1):
            for fault in _check_quantity(cancellation.quantity, (line, "cancellation", index)):
                found.append((fault, [cancellation.quantity], Shipment()))
    return found


def _place(part: _Part) -> str:
    _, name, index = part
    return f"{name} {index}"


def _where(part: _Part) -> str:
    return f"Line {part[0]}, {_place(part)}"


def _check_quantity(quantity: int | None, part: _Part) -> Sequence[_Fault]:
    if quantity is None:
        wrong = f"{_where(part)}: the quantity is not a whole number; enter how many units."
        return [(Kind.BAD_QUANTITY, f"{_place(part)}: none", wrong)]
    if quantity <= 0:
        wrong = f"{_where(part)}: the quantity is {quantity}; enter how many units, at least 1."
        return [(Kind.BAD_QUANTITY, f"{_place(part)}: {quantity}", wrong)]
    return ()


def _check_parcel(
    shipment: Shipment, part: _Part, shared: Collection[str], untracked: Collection[str]
) -> list[_Fault]:
    faults: list[_Fault] = []
    carrier = (shipment.carrier or "").strip()
    number = (shipment.tracking_number or "").strip()
    if not carrier:
        message = f"{_where(part)}: the carrier is missing; enter who carries the parcel."
        faults.append((Kind.MISSING_CARRIER, _place(part), message))
    if not number:
        if not carriers.is_one_of(carrier, untracked):
            message = f"{_where(part)}: the tracking number is missing; enter it."
            faults.append((Kind.MISSING_TRACKING, _place(part), message))
        return faults
    verdict = carriers.check(carrier or None, number)
    if verdict.status is carriers.Status.INVALID:
        of = carrier or "any carrier"
        message = f"{_where(part)}: {number} cannot be a tracking number of {of}: {verdict.reason}"
        faults.append((Kind.INVALID_TRACKING, f"{carrier} {number}", message))
    if shared and comparable(number) in shared:
        message = (
            f"{_where(part)}: {number} was also given for another recipient within {SHARED_WITHIN.days} days; "
            "check which one is right."
        )
        faults.append((Kind.SHARED_TRACKING, comparable(number), message))
    return faults


def _check_day(day: date | None, part: _Part, first: date, last: date) -> Sequence[_Fault]:
    """`first` and `last` are the day before the purchase and tomorrow."""
    if day is None or first <= day <= last:
        return ()
    faults: list[_Fault] = []
    if day < first:
        message = (
            f"{_where(part)}: shipped on {day}, before the order of {first + ONE_DAY}; correct the date."
        )
        faults.append((Kind.SHIPPED_BEFORE_PURCHASE, day.isoformat(), message))
    if day > last:
        message = f"{_where(part)}: shipped on {day}, which is in the future; correct the date."
        faults.append((Kind.SHIPPED_IN_FUTURE, day.isoformat(), message))
    return faults
