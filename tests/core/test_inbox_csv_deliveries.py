"""The same order several times in one CSV file: which rows make up which delivery."""

from __future__ import annotations

import io
from itertools import permutations

import pytest
from order_samples import CSV_ROW, csv_line, csv_text

from feedamp.inbox import BadRow, OrderRow, read_again
from feedamp.inbox.flat_csv import read_csv
from feedamp.order_body import BodyRules

RULES = BodyRules()
P, A, C = "PENDING", "AWAITING_SHIPMENT", "CANCELLED"


def cells(line: str, state: str = P, **more: str) -> dict[str, str]:
    """A row of order M-1."""
    return csv_line(line) | {"marketplace_state": state} | more


def read(*rows: dict[str, str]) -> list[OrderRow | BadRow]:
    return list(read_csv(io.BytesIO(csv_text(*rows)), "a.csv", RULES))


def told(*rows: dict[str, str]) -> list[tuple[str, str] | list[str]]:
    """(state, lines) of each good delivery, the reject codes of each bad one."""
    return [
        (row.body["marketplace_state"], "".join(line["mp_line_number"] for line in row.body["order_lines"]))
        if isinstance(row, OrderRow)
        else [reason.code for reason in row.reasons]
        for row in read(*rows)
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([cells("1"), cells("1")], [(P, "1")], id="an exact repeat"),
        pytest.param([cells("1"), cells("1"), cells("1")], [(P, "1")], id="twice repeated"),
        pytest.param(
            [cells("1"), cells("2"), cells("1"), cells("2")], [(P, "12")], id="two lines, delivered twice"
        ),
        pytest.param(
            [cells("1"), cells("1"), cells("2"), cells("2")], [(P, "12")], id="each line beside its repeat"
        ),
        pytest.param([cells("1"), cells("1"), cells("2")], [(P, "12")], id="only one line repeated"),
        pytest.param([cells("1"), cells("1", A)], [(P, "1"), (A, "1")], id="a release"),
        pytest.param(
            [cells("1"), cells("2"), cells("1", A), cells("2", A)],
            [(P, "12"), (A, "12")],
            id="two lines, then their release",
        ),
        pytest.param(
            [cells("1"), cells("1", A), cells("2"), cells("2", A)],
            [(P, "12"), (A, "12")],
            id="two lines and their release, line by line",
        ),
        pytest.param(
            [cells("2"), cells("1"), cells("1", A), cells("2", A)],
            [(P, "21"), (A, "12")],
            id="the lines of the release in another order",
        ),
        pytest.param(
            [cells("1"), cells("2"), cells("3", A), cells("1", A), cells("2", A)],
            [(P, "12"), (A, "312")],
            id="a new line first in the later delivery",
        ),
        pytest.param(
            [cells("1"), cells("1", A), cells("1", C)], [(P, "1"), (A, "1"), (C, "1")], id="three deliveries"
        ),
        pytest.param(
            [cells("1"), cells("1", A), cells("1")], [(P, "1"), (A, "1")], id="the first one again at the end"
        ),
        pytest.param(
            [cells("1"), cells("1", P, **{"order_lines.sku": "OTHER"})],
            [["duplicate_line"]],
            id="rows that differ in the line only",
        ),
        pytest.param(
            [cells("1"), cells("2", A)], [["body_changed"]], id="rows of different lines that disagree"
        ),
        pytest.param(
            [cells("1"), cells("2"), cells("1", A), cells("2", A, delivery_notes="typo")],
            [(P, "12"), ["body_changed"]],
            id="rows of the later delivery that disagree",
        ),
        pytest.param(
            [cells("1"), cells("2", P, delivery_notes="typo"), cells("1", A), cells("2", A)],
            [["body_changed"], (A, "12")],
            id="rows of the first delivery that disagree",
        ),
        pytest.param(
            [cells(""), cells("")], [["missing", "missing"]], id="rows without line number are not repeats"
        ),
    ],
)
def test_rows_of_an_order_are_told_apart(rows, expected):
    assert told(*rows) == expected


@pytest.mark.parametrize("order", sorted(permutations(range(4))))
def test_two_deliveries_are_the_same_however_their_rows_lie(order):
    rows = [cells("1"), cells("2"), cells("1", A), cells("2", A)]
    found = told(*(rows[at] for at in order))
    assert sorted((state, sorted(lines)) for state, lines in found) == [(A, ["1", "2"]), (P, ["1", "2"])]
    first = rows[order[0]]["marketplace_state"]
    assert found[0][0] == first


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_every_row_is_counted_with_its_delivery(repeats):
    rows = [cells("1"), cells("2"), cells("1", A)] * repeats
    assert [row.rows for row in read(*rows)] == [2 * repeats, repeats]


def test_other_orders_between_the_deliveries_make_no_difference():
    other = CSV_ROW | {"mp_order_number": "M-2"}
    found = read(cells("1"), other, cells("1", A), other, other)
    assert [(row.mp_order_number, row.row_number, row.rows) for row in found] == [
        ("M-1", 2, 1),
        ("M-1", 4, 1),
        ("M-2", 3, 3),
    ]


def test_a_row_that_does_not_fit_spoils_every_delivery_of_its_order():
    content = csv_text(cells("1"), cells("1", A)) + b"S1,M-1,too few\n"
    (row,) = read_csv(io.BytesIO(content), "a.csv", RULES)
    assert isinstance(row, BadRow)
    assert ([reason.code for reason in row.reasons], row.rows) == (["wrong_type"], 3)
    assert isinstance(read_again("a.csv", row.row_number, row.raw, RULES), BadRow)


def test_a_rejected_delivery_is_read_again_as_it_was():
    bad = {"gift": "yes"}
    found = read(cells("1", **bad), cells("2", **bad), cells("1", A, **bad), cells("2", A, **bad))
    lenient = BodyRules(extra_order_fields=frozenset({"gift"}))
    again = [read_again("a.csv", row.row_number, row.raw, lenient) for row in found]
    assert [row.row_hash for row in again] == [row.row_hash for row in found]
    assert [row.body["marketplace_state"] for row in again if isinstance(row, OrderRow)] == [P, A]
