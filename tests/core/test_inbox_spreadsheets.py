"""What spreadsheets write: their encodings, first lines and blank ends are read; what they have destroyed is rejected."""

from __future__ import annotations

import codecs
import io
from decimal import Decimal

import pytest
from order_samples import CSV_ROW, csv_line, csv_text, good_order

from feedamp.inbox import BadRow, OrderRow, read_again
from feedamp.inbox.flat_csv import as_delivered, kept_rows, read_csv
from feedamp.inbox.streams import HashedStream, TextStream
from feedamp.order_body import BodyRules, check_body

RULES = BodyRules()
LENIENT = BodyRules(allow_spreadsheet_numbers=True)
ROW = CSV_ROW | {"delivery_notes": "Zoë \N{PARTY POPPER}"}
TEXT = csv_text(ROW)
WIDTH = len(ROW)
BOM = codecs.BOM_UTF8
LATER = csv_text(ROW | {"mp_order_number": "M-2"})


def read(content: bytes, rules: BodyRules = RULES) -> list[OrderRow | BadRow]:
    stream = TextStream(HashedStream(io.BytesIO(content)), is_packed=False)
    return list(read_csv(stream, "a.csv", rules))


@pytest.mark.parametrize(
    ("content", "orders"),
    [
        pytest.param(TEXT.decode().encode("utf-16"), 1, id="UTF-16"),
        pytest.param(codecs.BOM_UTF16_BE + TEXT.decode().encode("utf-16-be"), 1, id="UTF-16, big endian"),
        pytest.param(TEXT.decode().encode("utf-16-le"), 1, id="UTF-16 without a byte order mark"),
        pytest.param(TEXT.replace(b",", b"\t").decode().encode("utf-16"), 1, id="Unicode text with tabs"),
        pytest.param(b"sep=,\r\n" + TEXT.replace(b"\n", b"\r\n"), 1, id="a sep line"),
        pytest.param(BOM + b"SEP=;\n" + TEXT.replace(b",", b";"), 1, id="a sep line that names a semicolon"),
        pytest.param(b'"sep=|"\n' + BOM + TEXT.replace(b",", b"|"), 1, id="a sep line in quotes"),
        pytest.param(b"sep=\t\n" + TEXT.replace(b",", b"\t"), 1, id="a sep line that names a tab"),
        pytest.param(("sep=,\n" + TEXT.decode()).encode("utf-16"), 1, id="a sep line in UTF-16"),
        pytest.param(BOM * 3 + TEXT, 1, id="three byte order marks"),
        pytest.param(BOM + b'"' + BOM + TEXT.replace(b"seller_id", b'seller_id"', 1), 1, id="one in quotes"),
        pytest.param(TEXT + BOM + LATER.split(b"\n", 1)[1], 2, id="one on a later line"),
        pytest.param(BOM + TEXT + BOM + LATER, 2, id="two files in one, with the header twice"),
        pytest.param(TEXT + b"   \n\t\n", 1, id="blank lines at the end"),
        pytest.param(b"\r\n \n" + TEXT, 1, id="blank lines in front, as of a spool file"),
        pytest.param(b"\n" + TEXT.replace(b",", b"\t"), 1, id="one before a header with tabs"),
        pytest.param(b"sep=,\n,\n" + TEXT, 1, id="one behind the separator"),
        pytest.param(
            TEXT.replace(b"seller_id", b",seller_id").replace(b"S1,", b"0,S1,") + b"1" + b"," * WIDTH + b"\n",
            1,
            id="the index of pandas, also of a row without data",
        ),
        pytest.param(
            TEXT.replace(b"seller_id", b'"",seller_id').replace(b"S1,", b'"1",S1,'),
            1,
            id="the row names of R",
        ),
        pytest.param(
            TEXT.replace(b"seller_id", b"Unnamed: 0,seller_id").replace(b"S1,", b"17,S1,"),
            1,
            id="an index read as a column",
        ),
        pytest.param(TEXT + b", ," * WIDTH + b"\n", 1, id="a row of blank cells"),
        pytest.param(
            TEXT + '\N{NO-BREAK SPACE}," ",\N{ZERO WIDTH SPACE}\n'.encode(), 1, id="invisible cells"
        ),
        pytest.param(TEXT + b"\x1a", 1, id="an old mark of the end"),
        pytest.param(TEXT + b"\0" * 512, 1, id="a block of zeros"),
        pytest.param(TEXT.replace(b"\n", b", ,\n"), 1, id="blank cells to the right"),
        pytest.param(TEXT.replace(b"S1,", b" S1\t,", 1), 1, id="blanks around the seller"),
        pytest.param(TEXT.replace(b"S1,", b'"=""S1""",', 1), 1, id="a formula that keeps a text"),
    ],
)
def test_what_spreadsheets_add_makes_no_difference(content, orders):
    rows = read(content)
    assert [row.mp_order_number for row in rows if isinstance(row, OrderRow)] == ["M-1", "M-2"][:orders]
    assert all(row.seller_id == "S1" and row.body["delivery_notes"] == ROW["delivery_notes"] for row in rows)


def test_words_in_a_first_column_without_a_name_are_no_index():
    (row,) = read(TEXT.replace(b"seller_id", b",seller_id").replace(b"S1,", b"yes,S1,"))
    assert [(reason.field, reason.code) for reason in row.reasons] == [("column_1", "unknown_field")]


def test_rows_of_a_seller_written_with_and_without_blanks_are_one_order():
    (row,) = read(csv_text(csv_line("1"), csv_line("2") | {"seller_id": "S1 "}))
    assert isinstance(row, OrderRow)
    assert (row.seller_id, row.rows, len(row.body["order_lines"])) == ("S1", 2, 2)


IDENTIFIERS = {
    "seller_id": "seller_id",
    "mp_order_number": "mp_order_number",
    "order_lines.mp_line_number": "order_lines[0].mp_line_number",
    "order_lines.sku": "order_lines[0].sku",
    "customer.phone": "customer.phone",
    "customer.vat": "customer.vat",
    "shipping_address.phone": "shipping_address.phone",
    "shipping_address.postal_code": "shipping_address.postal_code",
}
DAMAGED = [
    ("1.23457E+14", "scientific"),
    ("1,23457E+14", "scientific"),
    ("1.2E14", "scientific"),
    ("5E+12", "scientific"),
    ("-4.91701e+12", "scientific"),
    ("1001.0", "decimal point"),
    ("1220,00", "decimal point"),
    ("123456789012345000", "zeros"),
    ("4111111111111110", "zeros"),
    ("2026-03-01", "date"),
    ("2026-03-01 00:00:00", "date"),
    ("01.03.2026", "date"),
    ("3/4/26", "date"),
    ("1-Mar", "date"),
    ("04. Mrz", "date"),
    ("Mar-26", "date"),
    ("01-janv", "date"),
    ("3月1日", "date"),
    ("2026年3月1日", "date"),
    ("2026年3月", "date"),
    ("03월 01일", "date"),
    ("01.мар", "date"),
    ("янв.26", "date"),
    ("01/mar", "date"),
    ("fev/26", "date"),
    ("janv.-05", "date"),
    ("05-mrt", "date"),
    ("juin-05", "date"),
    ("3/4/2026 12:00:00 AM", "date"),
    ("3/4/2026, 12:00:00\u202fa.m.", "date"),
    ("2026-03-04T00:00:00.000Z", "date"),
    ("2026-03-04 00:00:00 +01:00", "date"),
    ("Wed Mar 04 2026 00:00:00 GMT+0100 (CET)", "date"),
    ("00:00:00", "time"),
    ("12:00 AM", "time"),
]
INTACT = ["007", "12E4", "MAR-10", "set-12", "ene-10", "avr-1700", "okt-100", "1e5", "123456789012345", "1234567890123456", "01-02", "USB-2.0", "12-34-5678", "3.14"]  # fmt: skip


@pytest.mark.parametrize(("value", "word"), DAMAGED)
def test_an_identifier_that_a_spreadsheet_changed_is_rejected(value, word):
    (row,) = read(csv_text(CSV_ROW | dict.fromkeys(IDENTIFIERS, value)))
    assert isinstance(row, BadRow)
    assert {reason.field: reason.code for reason in row.reasons} == dict.fromkeys(
        IDENTIFIERS.values(), "spreadsheet_damage"
    )
    for reason in row.reasons:
        assert reason.message.startswith("the spreadsheet changed this number")
        assert word in reason.message
        assert "format Text" in reason.message
        assert value not in reason.message


@pytest.mark.parametrize("value", INTACT)
def test_an_identifier_that_only_looks_unusual_is_accepted(value):
    (row,) = read(csv_text(CSV_ROW | dict.fromkeys(IDENTIFIERS, value)))
    assert isinstance(row, OrderRow)
    assert row.body["order_lines"][0]["sku"] == value


@pytest.mark.parametrize("value", ["01220", "+49 170 1234567", "-22", "@22", "=22"])
def test_an_apostrophe_that_keeps_an_identifier_as_text_is_left_out(value):
    content = csv_text(CSV_ROW | dict.fromkeys(IDENTIFIERS.keys() - {"mp_order_number"}, f"'{value}"))
    (row,) = read(content)
    assert isinstance(row, OrderRow)
    address, line = row.body["shipping_address"], row.body["order_lines"][0]
    assert [row.seller_id, address["postal_code"], address["phone"], line["sku"]] == [value] * 4
    assert read_again("a.csv", row.row_number, row.raw, RULES) == row


@pytest.mark.parametrize("column", ["quantity", "unit_price"])
@pytest.mark.parametrize(
    ("first", "cell", "is_read"),
    [
        pytest.param(b"sep=;\n", "1.000", False, id="a thousand where decimals have commas"),
        pytest.param(b"sep=;\n", " 12.000 ", False, id="with blanks"),
        pytest.param(b"sep=;\n", "1.250", False, id="a thousand and more"),
        pytest.param(b"sep=;\n", "1.00", True, id="two places"),
        pytest.param(b"sep=;\n", "1000", True, id="without a point"),
        pytest.param(b"sep=|\n", "1.000", False, id="a thousand between bars"),
        pytest.param(b"sep=\t\n", "1.000", False, id="a thousand between tabs"),
        pytest.param(b"", "1.000", True, id="three places where decimals have points"),
    ],
)
def test_a_number_that_may_mean_a_thousand_is_rejected(column, first, cell, is_read):
    content = csv_text(CSV_ROW | {f"order_lines.{column}": cell})
    (row,) = read(first + (content.replace(b",", first[4:5]) if first else content))
    assert isinstance(row, OrderRow) is is_read
    if isinstance(row, BadRow):
        assert [(r.field, r.code) for r in row.reasons] == [(f"order_lines[0].{column}", "bad_number")]
        assert read_again("a.csv", row.row_number, row.raw, RULES) == row
        assert as_delivered(kept_rows(row.raw))[0][f"order_lines.{column}"] == cell


def test_two_numbers_in_a_cell_are_exported_as_they_were_delivered():
    (row,) = read(csv_text(CSV_ROW | {"order_lines.quantity": "2 or 3"}))
    assert as_delivered(kept_rows(row.raw))[0]["order_lines.quantity"] == "2 or 3"


def test_a_price_of_a_thousand_and_more_is_rejected_and_one_below_one_is_read():
    def price(cell: str) -> object:
        content = csv_text(CSV_ROW | {"order_lines.unit_price": cell}).replace(b",", b";")
        (row,) = read(b"sep=;\n" + content)
        return row.body["order_lines"][0]["unit_price"] if isinstance(row, OrderRow) else row.reasons[0].code

    assert list(map(price, ["25.500", "0.500", "0.000"])) == ["bad_number", Decimal("0.50"), Decimal(0)]


def test_an_apostrophe_in_other_text_stays():
    names = {
        "customer.full_name": "'t Hooft",
        "shipping_address.address1": "'68 Way",
        "order_lines.sku": "'A",
    }
    (row,) = read(csv_text(CSV_ROW | names))
    assert isinstance(row, OrderRow)
    found = row.body["customer"]["full_name"], row.body["shipping_address"]["address1"]
    assert (*found, row.body["order_lines"][0]["sku"]) == tuple(names.values())


def test_an_apostrophe_in_a_formula_that_keeps_a_text_stays():
    (row,) = read(csv_text(CSV_ROW | {"order_lines.sku": '="\'47-CAP"'}))
    assert row.body["order_lines"][0]["sku"] == "'47-CAP"


def test_damage_behind_an_apostrophe_is_rejected():
    (row,) = read(csv_text(CSV_ROW | {"order_lines.sku": "'1.23457E+14"}))
    assert [reason.code for reason in row.reasons] == ["spreadsheet_damage"]


@pytest.mark.parametrize("value", ["\\N", "NULL", "nan", "None"])
def test_a_word_for_nothing_is_missing_where_something_must_be(value):
    fields = ("seller_id", "shipping_address.city", "order_lines.sku")
    (row,) = read(csv_text(CSV_ROW | dict.fromkeys((*fields, "delivery_notes"), value)))
    assert [(reason.field, reason.code) for reason in row.reasons] == [
        ("seller_id", "missing"),
        ("shipping_address.city", "missing"),
        ("order_lines[0].sku", "missing"),
    ]
    (row,) = read(csv_text(CSV_ROW | {"delivery_notes": value, "customer.full_name": value.title()}))
    assert isinstance(row, OrderRow) is (value.title() != value)
    order = good_order(customer={"full_name": value})
    assert check_body({"seller_id": "S1", "order": order}, RULES)[1] == ()


def test_a_town_and_what_json_says_are_no_words_for_nothing():
    town = {"city": "None", "postal_code": "10060", "country_code": "ITA"}
    (row,) = read(csv_text(CSV_ROW | {f"shipping_address.{name}": cell for name, cell in town.items()}))
    assert row.body["shipping_address"]["city"] == "None"
    tax = [{"type": "None", "amount": Decimal("1.10")}]
    (row,) = read(csv_text(CSV_ROW | {"order_lines.taxes": '[{"type": "None", "amount": 1.10}]'}))
    assert row.body["order_lines"][0]["taxes"] == tax


@pytest.mark.parametrize("value", ["\\N", "NULL", " nan ", "NaT", "None"])
def test_a_word_for_nothing_is_nothing_where_nothing_need_be(value):
    fields = ("shipping_address.address2", "shipping_address.state", "latest_delivery_date", "delivery_notes")
    rules = BodyRules(extra_order_fields=frozenset({"gift"}))
    cells = CSV_ROW | dict.fromkeys((*fields, "order_lines.shipping_price", "gift"), value)
    (row,) = read(csv_text(cells), rules)
    (bare,) = read(csv_text({name: cell for name, cell in CSV_ROW.items() if name not in fields}))
    assert isinstance(row, OrderRow)
    assert row.body == bare.body


@pytest.mark.parametrize(
    ("state", "country", "postal_code", "is_read"),
    [
        pytest.param("MA", "USA", "1201", False, id="a zero is lost"),
        pytest.param("PR", "USA", "601", False, id="two zeros are lost"),
        pytest.param("ma", "USA", "1201", False, id="a state in small letters"),
        pytest.param("", "USA", "1201", False, id="no state"),
        pytest.param("MA", "USA", "01201", True, id="no zero is lost"),
        pytest.param("OR", "USA", "9720", True, id="the codes of the state do not begin with 0"),
        pytest.param("VI", "NOR", "1201", True, id="another country"),
    ],
)
def test_a_postal_code_that_lost_its_zero_is_rejected(state, country, postal_code, is_read):
    cells = {"state": state, "country_code": country, "postal_code": postal_code}
    content = csv_text(CSV_ROW | {f"shipping_address.{name}": cell for name, cell in cells.items()})
    (row,) = read(content)
    assert isinstance(row, OrderRow) is is_read
    if isinstance(row, BadRow):
        assert [(r.field, r.code) for r in row.reasons] == [
            ("shipping_address.postal_code", "spreadsheet_damage")
        ]
    (row,) = read(content, LENIENT)
    assert isinstance(row, OrderRow)


@pytest.mark.parametrize("sku", ["#12", "#A1", "#RED", "#Sale!", "#A!", "00:00"])
def test_an_article_number_with_a_hash_is_no_error_value(sku):
    (row,) = read(csv_text(CSV_ROW | {"order_lines.sku": sku}))
    assert isinstance(row, OrderRow)


def test_an_option_allows_what_looks_damaged():
    (row,) = read(csv_text(CSV_ROW | dict.fromkeys(IDENTIFIERS, "123456789012345000")), LENIENT)
    assert isinstance(row, OrderRow)


@pytest.mark.parametrize("value", ["#VALEUR!", "#NOMBRE?", "#\u00a1REF!", "#N/D", "#\u0418\u041c\u042f?", "#\u0414\u0415\u041b/0!", "#ARG!"])  # fmt: skip
def test_an_error_value_of_any_language_is_no_identifier(value):
    (row,) = read(csv_text(CSV_ROW | dict.fromkeys(IDENTIFIERS, value)))
    assert {reason.code for reason in row.reasons} == {"spreadsheet_damage"}


@pytest.mark.parametrize("blank", ["\ufeff", "\u200b", " \u200b\ufeff "])
def test_invisible_blanks_around_a_seller_id_make_no_difference(blank):
    lines = (csv_line("1"), csv_line("2") | {"seller_id": f"S1{blank}"})
    (row,) = read(csv_text(*lines))
    assert isinstance(row, OrderRow)
    assert (row.seller_id, row.rows) == ("S1", 2)
    (row,) = read(csv_text(CSV_ROW | {"seller_id": blank}))
    assert [(reason.field, reason.code) for reason in row.reasons] == [("seller_id", "missing")]


@pytest.mark.parametrize(
    "value", ["#N/A", "####", "#REF!", "#DIV/0!", "#NAME?", "#VALUE!", "#WERT!", "Err:502", "Loading..."]
)
@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("customer.full_name", "customer.full_name"),
        ("delivery_notes", "delivery_notes"),
        ("purchase_date", "purchase_date"),
        ("order_lines.quantity", "order_lines[0].quantity"),
        ("order_lines.unit_price", "order_lines[0].unit_price"),
    ],
)
def test_an_error_value_in_any_cell_is_rejected(value, column, field):
    (row,) = read(csv_text(CSV_ROW | {column: value}))
    assert isinstance(row, BadRow)
    assert [(reason.field, reason.code) for reason in row.reasons] == [(field, "spreadsheet_damage")]


def test_a_program_may_write_numbers_that_end_in_zeros():
    """Every tenth number of 16 digits does; only in a table they may come from a spreadsheet."""
    order = good_order(mp_order_number="123456789012345000")
    assert check_body({"seller_id": "S1", "order": order}, RULES)[1] == ()
    order = good_order(mp_order_number="1.23457E+14")
    assert [reason.code for reason in check_body({"seller_id": "S1", "order": order}, RULES)[1]] == [
        "spreadsheet_damage"
    ]
