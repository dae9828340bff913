"""What is wrong with what a seller reported: docs/rules.md, Findings, as a table of all nine kinds."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from feedamp.models import Cancellation, LineFulfillment, Shipment, Snapshot
from feedamp.rules.checks import (
    Finding,
    Kind,
    Severity,
    check_order,
    default_code,
)
from feedamp.rules.shared_tracking import comparable, recipient_of, tracking_numbers
from feedamp.rules.units import count_units

TODAY = date(2026, 3, 10)
PURCHASED = datetime(2026, 3, 2, 14, 5, tzinfo=UTC)
ORDERED = {"A": 2, "B": 1}
GOOD = "1Z999AA10123456784"
BAD = "1Z999AA10123456785"


def parcel(**changes: Any) -> Shipment:
    fields = {"quantity": 1, "carrier": "UPS", "tracking_number": GOOD, "shipped_date": date(2026, 3, 5)}
    return Shipment(**fields | changes)


def done(line: str, *shipments: Shipment, cancelled: tuple[int | None, ...] = ()) -> LineFulfillment:
    cancellations = tuple(Cancellation(quantity=quantity) for quantity in cancelled)
    return LineFulfillment(mp_line_number=line, shipments=shipments, cancellations=cancellations)


def check(
    *entries: LineFulfillment, shared: tuple[str, ...] = (), purchased: datetime = PURCHASED
) -> list[Finding]:
    snapshot = Snapshot(mp_order_number="M-1", fulfillments=entries)
    return check_order(
        ORDERED,
        count_units(ORDERED, entries),
        snapshot,
        purchase_date=purchased,
        today=TODAY,
        shared_numbers=shared,
        untracked=("untracked letter", "deutsche_post"),
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(done("A", parcel(quantity=2)), [], id="everything right"),
        pytest.param(done("A"), [], id="nothing done yet"),
        pytest.param(done("A", parcel(), cancelled=(1,)), [], id="one shipped, one cancelled"),
        pytest.param(
            done("X", parcel()), [(Kind.UNKNOWN_LINE, "X", "X")], id="a line that was never ordered"
        ),
        pytest.param(
            done("A", parcel(quantity=3)),
            [(Kind.OVER_FULFILLED, "A", "3+0>2")],
            id="more shipped than ordered",
        ),
        pytest.param(
            done("A", parcel(quantity=2), cancelled=(1,)),
            [(Kind.OVER_FULFILLED, "A", "2+1>2")],
            id="shipped and cancelled are more than ordered",
        ),
        pytest.param(
            done("A", parcel(quantity=0)),
            [(Kind.BAD_QUANTITY, "A", "shipment 1: 0")],
            id="zero units shipped",
        ),
        pytest.param(
            done("X", parcel(tracking_number=BAD)),
            [(Kind.INVALID_TRACKING, None, f"X: UPS {BAD}"), (Kind.UNKNOWN_LINE, "X", "X")],
            id="a wrong number on a line that was never ordered",
        ),
        pytest.param(
            done("A", parcel(quantity=-1)),
            [(Kind.BAD_QUANTITY, "A", "shipment 1: -1")],
            id="a negative quantity",
        ),
        pytest.param(
            done("A", parcel(), parcel(quantity=None)),
            [(Kind.BAD_QUANTITY, "A", "shipment 2: none")],
            id="a quantity that is not a number",
        ),
        pytest.param(
            done("A", cancelled=(0,)),
            [(Kind.BAD_QUANTITY, "A", "cancellation 1: 0")],
            id="zero units cancelled",
        ),
        pytest.param(
            done("A", parcel(tracking_number=None)),
            [(Kind.MISSING_TRACKING, "A", "shipment 1")],
            id="no tracking number",
        ),
        pytest.param(
            done("A", parcel(tracking_number="  ")),
            [(Kind.MISSING_TRACKING, "A", "shipment 1")],
            id="a blank tracking number",
        ),
        pytest.param(
            done("A", parcel(carrier=None)), [(Kind.MISSING_CARRIER, "A", "shipment 1")], id="no carrier"
        ),
        pytest.param(
            done("A", parcel(carrier=" ", tracking_number="")),
            [(Kind.MISSING_CARRIER, "A", "shipment 1"), (Kind.MISSING_TRACKING, "A", "shipment 1")],
            id="neither carrier nor number",
        ),
        pytest.param(
            done("A", parcel(tracking_number=BAD)),
            [(Kind.INVALID_TRACKING, "A", f"UPS {BAD}")],
            id="a number with a wrong check digit",
        ),
        pytest.param(
            done("A", parcel(carrier="Pony Express", tracking_number="PX-4711")),
            [],
            id="an unknown carrier is unverified",
        ),
        pytest.param(
            done("A", parcel(carrier="Pony Express", tracking_number="5.2E+23")),
            [(Kind.INVALID_TRACKING, "A", "Pony Express 5.2E+23")],
            id="what no carrier can issue",
        ),
        pytest.param(
            done("A", parcel(carrier="Untracked Letter GB", tracking_number=None)),
            [],
            id="a service without tracking numbers",
        ),
        pytest.param(
            done("A", parcel(carrier="DEPOST", tracking_number=" ")),
            [],
            id="a service of a carrier without tracking numbers",
        ),
        pytest.param(
            done("A", parcel(carrier="Deutsche Post", tracking_number="1234567")),
            [(Kind.INVALID_TRACKING, "A", "Deutsche Post 1234567")],
            id="a wrong number, although none is needed",
        ),
        pytest.param(
            done("A", parcel(shipped_date=date(2026, 2, 28))),
            [(Kind.SHIPPED_BEFORE_PURCHASE, "A", "2026-02-28")],
            id="shipped two days before it was purchased",
        ),
        pytest.param(
            done("A", parcel(shipped_date=date(2026, 3, 1))), [], id="shipped the day before it was purchased"
        ),
        pytest.param(
            done("A", parcel(shipped_date=date(2026, 3, 12))),
            [(Kind.SHIPPED_IN_FUTURE, "A", "2026-03-12")],
            id="shipped the day after tomorrow",
        ),
        pytest.param(done("A", parcel(shipped_date=date(2026, 3, 11))), [], id="shipped tomorrow"),
        pytest.param(done("A", parcel(shipped_date=None)), [], id="no day of shipping"),
    ],
)
def test_a_line_shows_its_faults(entry: LineFulfillment, expected: list[tuple[Kind, str, str]]) -> None:
    assert [(f.kind, f.mp_line_number, f.value) for f in check(entry)] == expected


def test_an_order_purchased_on_the_first_day_of_the_calendar_is_checked() -> None:
    wrong = done("A", parcel(shipped_date=date.min), parcel(quantity=0))
    assert [f.kind for f in check(wrong, purchased=datetime.min.replace(tzinfo=UTC))] == [Kind.BAD_QUANTITY]


def test_a_tracking_number_used_for_another_recipient_is_shared() -> None:
    [finding] = check(done("A", parcel(tracking_number="1z999aa1 0123456784")), shared=(GOOD,))
    assert (finding.kind, finding.value) == (Kind.SHARED_TRACKING, GOOD)
    assert "for another recipient within 90 days" in finding.message


def test_a_recipient_is_told_by_what_each_field_says_in_any_spelling() -> None:
    def recipient(full_name: str, address1: str) -> str:
        return recipient_of({"shipping_address": {"full_name": full_name, "address1": address1}})

    assert recipient(" Ann STRASSE", "1 Bay") == recipient("ann Straße ", "1 BAY")
    assert recipient("Ann Lee", "1 Bay") != recipient("Ann", "Lee1 Bay")
    assert recipient("Ann", "Lee") != recipient("AnnLee", "")


def test_two_entries_of_one_line_are_counted_together() -> None:
    [finding] = check(done("A", parcel(quantity=2)), done("A", parcel(quantity=1)))
    assert finding.kind is Kind.OVER_FULFILLED


def test_the_same_fault_of_a_line_is_listed_once() -> None:
    assert len(check(done("A", parcel(tracking_number=BAD), parcel(tracking_number=BAD)))) == 1


def test_the_same_fault_of_two_lines_is_listed_twice() -> None:
    wrong = parcel(tracking_number=BAD)
    ids = {finding.id_for("S1", "M-1") for finding in check(done("A", wrong), done("B", wrong))}
    assert len(ids) == 2


WARNINGS = {Kind.SHARED_TRACKING, Kind.SHIPPED_BEFORE_PURCHASE, Kind.SHIPPED_IN_FUTURE}


@pytest.mark.parametrize("kind", list(Kind))
def test_errors_have_the_known_code_and_warnings_none(kind: Kind) -> None:
    severity = Finding(kind, "A", "", "", "").severity
    if kind in WARNINGS:
        assert (severity, default_code(kind)) == (Severity.WARNING, None)
    else:
        assert (severity, default_code(kind)) == (Severity.ERROR, "INVALID_TRACKING_NUMBER")


def test_a_message_names_the_line_and_the_place() -> None:
    [finding] = check(done("A", parcel(), parcel(tracking_number=None)))
    assert finding.message == "Line A, shipment 2: the tracking number is missing; enter it."


def test_a_message_names_the_day_of_the_purchase() -> None:
    [finding] = check(done("A", parcel(shipped_date=date(2026, 2, 28))))
    assert "shipped on 2026-02-28, before the order of 2026-03-02;" in finding.message


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        pytest.param(
            done("A", parcel(tracking_number=BAD, tracking_url="https://x.example")), False, id="a link"
        ),
        pytest.param(done("A", parcel(tracking_number=BAD, shipped_date=None)), False, id="no day"),
        pytest.param(done("A", parcel(tracking_number=BAD), cancelled=(1,)), False, id="a cancellation"),
        pytest.param(done("A", parcel(tracking_number=BAD), parcel()), False, id="another shipment"),
        pytest.param(done("A", parcel(tracking_number=BAD, quantity=2)), True, id="another quantity"),
    ],
)
def test_the_hash_changes_with_what_the_finding_is_about(entry: LineFulfillment, changes: bool) -> None:
    [before] = check(done("A", parcel(tracking_number=BAD)))
    [after] = check(entry)
    assert before.id_for("S1", "M-1") == after.id_for("S1", "M-1")
    assert (before.line_hash != after.line_hash) is changes
    assert len(after.line_hash) == 32  # as long as the column of the state


def test_a_number_that_no_carrier_can_issue_is_named_without_a_carrier_too() -> None:
    messages = [f.message for f in check(done("A", parcel(carrier=None, tracking_number="2026-03-01")))]
    assert "2026-03-01 cannot be a tracking number of any carrier" in messages[-1]


def test_tracking_numbers_are_compared_without_blanks_dashes_and_case() -> None:
    snapshot = Snapshot(
        mp_order_number="M-1",
        fulfillments=(
            done("A", parcel(tracking_number="ab-1 2")),
            done(
                "B", parcel(tracking_number="AB12"), parcel(tracking_number=None), parcel(tracking_number=" ")
            ),
        ),
    )
    assert tracking_numbers(snapshot) == ["AB12"] == [comparable("aB1-2")]


def test_a_finding_says_which_carrier_and_number_the_seller_typed() -> None:
    found = check(done("A", parcel(carrier="ups ", tracking_number=BAD)), done("X", parcel(quantity=3)))
    typed = {fault.kind: (fault.carrier, fault.tracking_number) for fault in found}
    assert (typed[Kind.INVALID_TRACKING], typed[Kind.UNKNOWN_LINE]) == (("ups ", BAD), (None, None))
