"""Broken flat CSV: every row is accounted for, and a fault affects only its own order."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from order_samples import CSV_ROW, csv_line, csv_text

from feedamp.inbox import BadRow, OrderRow, read_again
from feedamp.inbox.csv_records import records
from feedamp.inbox.flat_csv import read_csv
from feedamp.order_body import BodyRules

RULES = BodyRules()


def read(content: bytes, rules: BodyRules = RULES) -> list[OrderRow | BadRow]:
    return list(read_csv(io.BytesIO(content), "a.csv", rules))


def reasons(row: OrderRow | BadRow) -> list[tuple[str, str]]:
    assert isinstance(row, BadRow)
    return [(reason.field, reason.code) for reason in row.reasons]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(b"S1,M-1,too few", id="too few cells"),
        pytest.param(b"S1,M-1," + b"x," * 30, id="too many cells"),
        pytest.param(b'S1,M-1,"stray"quote', id="a stray quote"),
        pytest.param(
            b'S1,M-1,"stray"quote' + b",x" * 15, id="a stray quote in as many cells as there should be"
        ),
        pytest.param(b'S1,M-1,"never closed', id="a quote that is never closed"),
    ],
)
def test_a_row_that_does_not_fit_spoils_its_order_and_no_other(row):
    content = (
        csv_text(CSV_ROW) + row + b"\n" + csv_text(CSV_ROW | {"mp_order_number": "M-2"}).split(b"\n", 1)[1]
    )
    spoiled, good = read(content)
    assert reasons(spoiled) == [("order_lines", "wrong_type")]
    assert isinstance(spoiled, BadRow)
    assert "row 3 " in spoiled.reasons[0].message
    assert (spoiled.row_number, spoiled.rows, spoiled.mp_order_number) == (2, 2, "M-1")
    assert isinstance(good, OrderRow)
    assert good.row_number == 4


def test_after_an_open_quote_the_rows_come_in_their_order():
    rows = [CSV_ROW | {"mp_order_number": f"M-{number}"} for number in (2, 3, 4)]
    header, *others = csv_text(*rows).splitlines(keepends=True)
    found = read(header + b'S1,M-1,"open\n' + b"".join(others))
    assert [(row.mp_order_number, row.row_number) for row in found] == [
        ("M-1", 2),
        ("M-2", 3),
        ("M-3", 4),
        ("M-4", 5),
    ]


def test_a_line_break_in_quotes_stays_in_its_row():
    rows = read(csv_text(CSV_ROW | {"delivery_notes": "ring\ntwice"}, CSV_ROW | {"mp_order_number": "M-2"}))
    assert [row.row_number for row in rows] == [2, 3]
    assert isinstance(rows[0], OrderRow)
    assert rows[0].body["delivery_notes"] == "ring\ntwice"


@pytest.mark.parametrize(
    ("content", "expected", "rows"),
    [
        pytest.param(b"", [("", "missing")], 0, id="empty file"),
        pytest.param(b"\n , \n", [("", "missing")], 0, id="no row but blank ones"),
        pytest.param(b"seller_id;mp_order_number\nS1;M-1\n\n", [("seller_id", "missing"), ("mp_order_number", "missing")], 1, id="semicolons"),
        pytest.param(b"seller_id,mp_order_number,x,x\n", [("x", "wrong_type")], 0, id="a column twice"),
        pytest.param(b"seller_id,mp_order_number,customer,customer.vat\n", [("customer", "wrong_type")], 0, id="a column and its member"),
        pytest.param(b"S1,M-1,Robin Vale,Robin Vale\n", [("seller_id", "missing"), ("mp_order_number", "missing")], 0, id="an order where the header should be, none of whose values is repeated"),
        pytest.param(b'seller_id,"mp_order_number\nS1,M-1\n', [("", "unreadable")], 1, id="an open quote in the header"),
        pytest.param(b"seller_id,mp_order_number\rS1,M-1\r", [("", "unreadable")], 0, id="line ends of old"),
        pytest.param(b"seller_id,mp_order_number" + b"," * 1_000, [("", "too_large")], 0, id="a thousand columns"),
    ],
)  # fmt: skip
def test_a_file_without_a_usable_header_is_rejected_as_a_whole(content, expected, rows):
    (row,) = read(content)
    assert reasons(row) == expected
    assert row.rows == rows


def test_a_header_with_semicolons_is_told_how_to_be_read():
    content = csv_text(CSV_ROW).replace(b",", b";")
    (row,) = read(content)
    assert "put the line sep=; above the header" in row.reasons[0].message
    (order,) = read(b"sep=;\n" + content)
    assert isinstance(order, OrderRow)
    (row,) = read(content.replace(b";", b"|"))
    assert "put the line sep=| above the header" in row.reasons[0].message
    (row,) = read(b"seller;number;x,y\n")
    assert "sep=" not in row.reasons[0].message


def test_a_header_alone_holds_no_order():
    assert read(csv_text()) == []


def test_a_kept_order_is_judged_again_under_other_rules():
    (bad,) = read(csv_text(csv_line("M-1-1") | {"gift": "yes"}, csv_line("M-1-2") | {"gift": "yes"}))
    again = read_again("a.csv", bad.row_number, bad.raw, BodyRules(extra_order_fields=frozenset({"gift"})))
    assert isinstance(again, OrderRow)
    assert (again.row_hash, again.rows) == (bad.row_hash, 2)


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize(
    "raw",
    ["", "7", "[]", "[7]", '[{"": ["S1"]}]', '[{"seller_id": 7, "order_lines.quantity": 7}]', "[" * 100_000],
)
def test_a_kept_text_without_an_order_stays_rejected(raw):
    assert isinstance(read_again("a.csv", 2, raw, RULES), BadRow)


pieces = st.sampled_from([b'"', b",", b"\n", b"\r\n", b"\r", b"S1,M-1,", b"x", b"\xff", b"\x00", b'""'])
garbage = st.lists(pieces, max_size=30).map(b"".join)


@given(garbage)
@example(b'"\n"\n"')
def test_every_row_is_accounted_for_once(tail):
    content = csv_text(CSV_ROW) + tail
    filled = [record for record in records(io.BytesIO(content)) if not record.is_blank]
    assert sum(row.rows for row in read(content)) == len(filled) - 1


@given(st.lists(st.binary(max_size=12).map(lambda part: part.replace(b"\n", b"")), max_size=8))
def test_no_line_is_lost_between_records(parts):
    content = b"".join(part + b"\n" for part in parts).removeprefix(b"\xef\xbb\xbf")
    spans = [
        1 if record.fault else 1 + sum(cell.count("\n") for cell in record.cells)
        for record in records(io.BytesIO(content))
    ]
    assert sum(spans) == content.count(b"\n")


@given(st.binary(max_size=200))
def test_garbage_gives_rejects_and_no_exception(content):
    assert all(isinstance(row, BadRow) for row in read(content))
