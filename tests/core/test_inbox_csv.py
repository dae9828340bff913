"""Flat CSV: one order line per row, every cell text, nothing lost silently."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from order_samples import CSV_ROW, csv_line, csv_text, good_line, good_order, inbox_file

from feedamp.inbox import BadRow, OrderRow, read_rows
from feedamp.inbox.flat_csv import read_csv
from feedamp.order_body import BodyRules

RULES = BodyRules()


def read(content: bytes, rules: BodyRules = RULES) -> list[OrderRow | BadRow]:
    return list(read_csv(io.BytesIO(content), "a.csv", rules))


def reasons(row: OrderRow | BadRow) -> list[tuple[str, str]]:
    assert isinstance(row, BadRow)
    return [(reason.field, reason.code) for reason in row.reasons]


def test_rows_of_an_order_become_its_lines(tmp_path):
    content = csv_text(csv_line("M-1-1"), csv_line("M-1-2", quantity="1", unit_price="3"))
    (row,) = read_rows(inbox_file(tmp_path, "a.csv", content), RULES)
    assert isinstance(row, OrderRow)
    second = good_line(mp_line_number="M-1-2", quantity=1, unit_price=Decimal("3.00"))
    assert row.body == good_order(order_lines=[good_line(), second])
    assert (row.source, row.row_number, row.rows) == ("a.csv", 2, 2)
    assert (row.seller_id, row.mp_order_number) == ("S1", "M-1")


def test_rows_of_an_order_may_lie_apart():
    other = CSV_ROW | {"mp_order_number": "M-2"}
    first, second = read(csv_text(csv_line("M-1-1"), other, csv_line("M-1-2")))
    assert [(row.row_number, row.rows) for row in (first, second)] == [(2, 2), (3, 1)]


def test_the_same_number_of_two_sellers_is_two_orders():
    rows = read(csv_text(CSV_ROW, CSV_ROW | {"seller_id": "S2"}))
    assert [row.seller_id for row in rows if isinstance(row, OrderRow)] == ["S1", "S2"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + csv_text(CSV_ROW), id="byte order mark"),
        pytest.param(csv_text(CSV_ROW, end="\r\n"), id="CRLF"),
        pytest.param(csv_text(CSV_ROW).rstrip(), id="no line end at the end"),
        pytest.param(
            csv_text(CSV_ROW | {"delivery_notes": "", "": ""}), id="empty cells and a column without name"
        ),
        pytest.param(csv_text(CSV_ROW) + b"\n" + b"," * (len(CSV_ROW) - 1) + b"\n", id="blank rows"),
        pytest.param(
            csv_text(CSV_ROW).replace(b",4,", b",4.0,"), id="a quantity that a spreadsheet wrote as 4.0"
        ),
    ],
)
def test_ways_of_saving_the_same_order(content):
    (row,) = read(content)
    assert isinstance(row, OrderRow)
    assert row.body == good_order()


@pytest.mark.parametrize("zero", ["0E-18", "0e10", "0.00E+00", "-0.0"])
def test_a_zero_with_an_exponent_is_zero(zero):
    (row,) = read(csv_text(CSV_ROW | {"order_lines.shipping_price": zero}))
    assert isinstance(row, OrderRow)
    assert str(row.body["order_lines"][0]["shipping_price"]) == "0.00"


def test_text_that_looks_like_something_else_stays_text():
    (row,) = read(
        csv_text(CSV_ROW | {"customer.full_name": "NA", "order_lines.sku": "007", "customer.vat": "1e5"})
    )
    assert isinstance(row, OrderRow)
    assert row.body["customer"] == {"full_name": "NA", "vat": "1e5"}
    assert row.body["order_lines"][0]["sku"] == "007"
    assert row.body["shipping_address"]["postal_code"] == "01201"


@pytest.mark.parametrize("prefix", ["order_lines.", ""])
def test_taxes_and_discounts_are_json_text(prefix):
    cells = {
        f"{prefix}taxes": '[{"type": "SALES", "amount": 1.1}]',
        f"{prefix}discounts": '[{"name": "May", "amount": 2, "type": "ITEM"}]',
    }
    (row,) = read(csv_text(CSV_ROW | cells))
    assert isinstance(row, OrderRow)
    found = row.body["order_lines"][0]
    assert found["taxes"] == [{"type": "SALES", "amount": Decimal("1.10")}]
    assert found["discounts"] == [{"name": "May", "amount": Decimal("2.00"), "type": "ITEM"}]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        pytest.param({"order_lines.unit_price": "25,50"}, ("order_lines[0].unit_price", "bad_number"), id="decimal comma"),
        pytest.param({"order_lines.unit_price": "2.55E+01"}, ("order_lines[0].unit_price", "bad_number"), id="an exponent"),
        pytest.param({"order_lines.unit_price": "1_0"}, ("order_lines[0].unit_price", "bad_number"), id="underscore in a price"),
        pytest.param({"order_lines.unit_price": "Infinity"}, ("order_lines[0].unit_price", "bad_number"), id="infinity"),
        pytest.param({"order_lines.unit_price": "NaN"}, ("order_lines[0].unit_price", "missing"), id="NaN"),
        pytest.param({"order_lines.unit_price": "1.005"}, ("order_lines[0].unit_price", "bad_number"), id="three decimals"),
        pytest.param({"order_lines.unit_price": ""}, ("order_lines[0].unit_price", "missing"), id="empty price"),
        pytest.param({"order_lines.quantity": "two"}, ("order_lines[0].quantity", "bad_number"), id="quantity in words"),
        pytest.param({"order_lines.quantity": "1.5"}, ("order_lines[0].quantity", "wrong_type"), id="half a unit"),
        pytest.param({"order_lines.quantity": "9" * 30}, ("order_lines[0].quantity", "out_of_range"), id="thirty digits"),
        pytest.param({"order_lines.quantity": "-1"}, ("order_lines[0].quantity", "out_of_range"), id="less than nothing"),
        pytest.param({"order_lines.taxes": "7%"}, ("order_lines[0].taxes", "wrong_type"), id="taxes that are not JSON"),
        pytest.param({"order_lines.color": "red"}, ("order_lines[0].color", "unknown_field"), id="unknown line column"),
        pytest.param({"gift": "yes"}, ("gift", "unknown_field"), id="unknown column"),
        pytest.param({"": "yes"}, ("column_19", "unknown_field"), id="column without name"),
        pytest.param({"shipping_address.city": "A\x00"}, ("shipping_address.city", "wrong_type"), id="NUL"),
        pytest.param({"seller_id": ""}, ("seller_id", "missing"), id="no seller"),
        pytest.param({"mp_order_number": " "}, ("mp_order_number", "missing"), id="no order number"),
    ],
)  # fmt: skip
def test_a_bad_cell_rejects_its_order_alone(cells, expected):
    bad, good = read(csv_text(CSV_ROW | cells, CSV_ROW | {"mp_order_number": "M-2"}))
    assert reasons(bad) == [expected]
    assert isinstance(good, OrderRow)


def test_an_extra_column_can_be_let_through():
    (row,) = read(csv_text(CSV_ROW | {"gift.note": "Hi"}), BodyRules(extra_order_fields=frozenset({"gift"})))
    assert isinstance(row, OrderRow)
    assert row.body["gift"] == {"note": "Hi"}


def test_bytes_that_are_not_utf8_reject_their_order_alone():
    content = csv_text(CSV_ROW | {"shipping_address.city": "Malmoe"}, CSV_ROW | {"mp_order_number": "M-2"})
    bad, good = read(content.replace(b"Malmoe", "Malmö".encode("latin-1")))
    assert reasons(bad) == [("shipping_address.city", "wrong_type")]
    assert bad.raw.encode()
    assert isinstance(good, OrderRow)


@pytest.mark.parametrize("other", ["Salem", ""])
def test_rows_that_disagree_reject_the_order_and_are_named(other):
    (row,) = read(
        csv_text(csv_line("M-1-1"), csv_line("M-1-2"), csv_line("M-1-3") | {"shipping_address.city": other})
    )
    assert reasons(row) == [("shipping_address.city", "body_changed")]
    assert isinstance(row, BadRow)
    assert "row 2 " in row.reasons[0].message
    assert "row 4:" in row.reasons[0].message
    assert row.rows == 3


def test_rows_without_a_number_do_not_make_up_one_order():
    nameless = CSV_ROW | {"mp_order_number": ""}
    assert [(row.row_number, row.rows) for row in read(csv_text(nameless, nameless))] == [(2, 1), (3, 1)]
