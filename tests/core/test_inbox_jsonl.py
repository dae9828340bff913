"""JSON Lines: a bad line affects only itself."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_samples import good_line, good_order, inbox_file, jsonl_row

from feedamp.errors import TransientError
from feedamp.inbox import BadRow, OrderRow, read_again, read_rows
from feedamp.inbox.jsonl import LINES_AT_ONCE, read_jsonl
from feedamp.inbox.lines import is_blank, lines
from feedamp.order_body import BodyRules
from feedamp.order_body.rows import MAX_ORDER_BYTES

RULES = BodyRules()


def read(content: bytes) -> list[OrderRow | BadRow]:
    return list(read_jsonl(io.BytesIO(content), "a.jsonl", RULES))


def test_a_good_line_is_an_order(tmp_path):
    raw = jsonl_row()
    (row,) = read_rows(inbox_file(tmp_path, "a.jsonl", raw + b"\n"), RULES)
    assert row == OrderRow(
        source="a.jsonl",
        row_number=1,
        rows=1,
        row_hash=hashlib.sha256(raw).hexdigest(),
        raw=raw.decode(),
        seller_id="S1",
        mp_order_number="M-1",
        body=good_order(),
    )


def test_fractions_are_decimal_from_the_file_on():
    (row,) = read(jsonl_row(order_lines=[good_line(unit_price=109.9)]))
    assert isinstance(row, OrderRow)
    assert str(row.body["order_lines"][0]["unit_price"]) == "109.90"
    assert isinstance(row.body["order_lines"][0]["unit_price"], Decimal)


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        pytest.param(b"", [], id="no line"),
        pytest.param(jsonl_row(), [1], id="no line end"),
        pytest.param(b"\n \t\n" + jsonl_row() + b"\n\n" + jsonl_row() + b"\n", [3, 5], id="blank lines count"),
        pytest.param(b"\xef\xbb\xbf" + jsonl_row() + b"\r\n" + jsonl_row() + b"\r\n", [1, 2], id="BOM and CRLF"),
    ],
)  # fmt: skip
def test_lines_are_numbered_as_an_editor_does(content, numbers):
    rows = read(content)
    assert [row.row_number for row in rows] == numbers
    assert all(isinstance(row, OrderRow) for row in rows)


def test_line_ends_make_no_difference_to_the_hash():
    first, second = read(jsonl_row() + b"\r\n" + jsonl_row() + b"\n")
    assert first.row_hash == second.row_hash


def test_the_same_order_twice_comes_twice_in_order():
    pending = jsonl_row(marketplace_state="PENDING")
    rows = read(pending + b"\n" + jsonl_row())
    assert [row.body["marketplace_state"] for row in rows if isinstance(row, OrderRow)] == [
        "PENDING",
        "AWAITING_SHIPMENT",
    ]


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize(
    ("line", "field", "code"),
    [
        pytest.param(b"{", "", "unreadable", id="cut JSON"),
        pytest.param(b"[1]", "", "wrong_type", id="a list"),
        pytest.param(b'"S1"', "", "wrong_type", id="a text"),
        pytest.param(b'{"seller_id": "\xff"}', "", "unreadable", id="bytes that are not UTF-8"),
        pytest.param(
            jsonl_row().replace(b"25.5", b"NaN"), "order_lines[0].unit_price", "missing", id="no price"
        ),
        pytest.param(b'{"a": -Infinity}', "", "unreadable", id="Infinity"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "", "unreadable", id="a number of 5,000 digits"),
        pytest.param(b"[" * 100_000, "", "unreadable", id="nested without end"),
        pytest.param(b"\x00\x01", "", "unreadable", id="binary"),
        pytest.param(
            jsonl_row().replace(b'"S1"', b'"S\\u001b[2J1"'),
            "seller_id",
            "wrong_type",
            id="a seller that clears screens",
        ),
        pytest.param(
            jsonl_row().replace(b'"S1"', b'"S\\u202e1"'),
            "seller_id",
            "wrong_type",
            id="a seller written backwards",
        ),
        pytest.param(jsonl_row()[:-1] + b', "x": 1}', "x", "unknown_field", id="another key"),
        pytest.param(
            jsonl_row().replace(b"25.5", b"1e99999999999999999999"),
            "order_lines[0].unit_price",
            "bad_number",
            id="an exponent past every decimal",
        ),
        pytest.param(
            jsonl_row().replace(b"25.5", b'"25.5"'),
            "order_lines[0].unit_price",
            "wrong_type",
            id="price as text",
        ),
    ],
)
def test_a_bad_line_is_rejected_and_the_next_one_read(line, field, code):
    bad, good = read(line + b"\n" + jsonl_row())
    assert isinstance(bad, BadRow)
    assert [(reason.field, reason.code) for reason in bad.reasons] == [(field, code)]
    assert "\x00" not in bad.raw
    assert isinstance(good, OrderRow)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            json.dumps(json.loads(jsonl_row()), indent=2).encode(), id="an order over several lines"
        ),
        pytest.param(
            json.dumps([json.loads(jsonl_row())], indent=2).encode(), id="a list over several lines"
        ),
        pytest.param(b"[\n" + jsonl_row() + b",\n" + jsonl_row() + b"\n]\n", id="a list of one order a line"),
        pytest.param(b"[\n" + jsonl_row() + b"\n]\n", id="a list of one order"),
        pytest.param(
            b"[\n" + jsonl_row() + b"\n," + jsonl_row() + b"\n," + jsonl_row() + b"\n]\n",
            id="a list with commas in front",
        ),
        pytest.param(b"\xef\xbb\xbf\n [" + jsonl_row() + b", " + jsonl_row() + b"]", id="a list on one line"),
        pytest.param(b"[" + b", ".join([jsonl_row()] * 20_000) + b"]", id="a list longer than a line may be"),
    ],
)
def test_json_that_is_not_one_order_a_line_is_one_reject_of_the_file(content):
    (reject,) = read(content)
    assert isinstance(reject, BadRow)
    assert "write JSON Lines" in (reject.file_fault or "")


@pytest.mark.parametrize(
    "damaged", [b"[" + jsonl_row() + b"]", b'[{"a": 1}]', b"[{", b'{\n"seller_id": "S1",', b"[\n{"]
)
def test_a_damaged_first_row_costs_itself_alone(damaged):
    *rejects, order = read(damaged + b"\n\n" + jsonl_row() + b"\n")
    assert isinstance(order, OrderRow)
    assert all(isinstance(row, BadRow) and row.file_fault is None for row in rejects)


def test_a_later_line_makes_no_list_of_the_file():
    *orders, reject = read((jsonl_row() + b"\n") * LINES_AT_ONCE + b'[{"a": 1}]\n')
    assert len(orders) == LINES_AT_ONCE
    assert isinstance(reject, BadRow)
    assert reject.file_fault is None


def test_nan_for_nothing_is_left_out():
    (row,) = read(jsonl_row(delivery_notes="NOTES").replace(b'"NOTES"', b"NaN"))
    assert isinstance(row, OrderRow)
    assert "delivery_notes" not in row.body


@pytest.mark.parametrize(
    ("escapes", "expected"),
    [
        pytest.param(rb"thanks \ud83d", "thanks \ufffd", id="the first half"),
        pytest.param(rb"\ude00 thanks", "\ufffd thanks", id="the second half"),
        pytest.param(rb"\ud83d\ud83d\ude00", "\ufffd\N{GRINNING FACE}", id="a half before a whole one"),
        pytest.param(rb"\\ud83d", r"\ud83d", id="a backslash and letters"),
        pytest.param(rb"\\\ud83d\n", "\\\ufffd\n", id="a half behind a backslash"),
        pytest.param(rb"\uD83D\uDE00", "\N{GRINNING FACE}", id="both halves"),
    ],
)
def test_half_of_a_surrogate_pair_is_replaced(escapes, expected):
    content = jsonl_row(delivery_notes="NOTES").replace(b"NOTES", escapes)
    (row,) = read(content)
    assert isinstance(row, OrderRow)
    assert row.body["delivery_notes"] == expected
    assert read_again(row.source, row.row_number, row.raw, RULES) == row


@pytest.mark.parametrize("blank", [b"\0" * 9, b"\x1a", b"\xef\xbb\xbf", "\N{NO-BREAK SPACE}".encode()])
def test_lines_that_hold_no_data_are_skipped(blank):
    marked = b"\xef\xbb\xbf" + jsonl_row()
    assert [row.row_number for row in read(marked + b"\n" + marked + b"\n" + blank)] == [1, 2]


def test_a_reject_carries_the_ids_that_can_be_read():
    (row,) = read(jsonl_row(currency="?"))
    assert isinstance(row, BadRow)
    assert (row.seller_id, row.mp_order_number) == ("S1", "M-1")


@pytest.mark.parametrize(
    ("number", "known"),
    [("70031", "70031"), ("70031.0", "70031"), ("1" * 310, None), ("1e999", None), ("-1", None)],
)
def test_a_number_that_is_no_text_names_its_order_where_it_can(number, known):
    [row, after] = read(b'{"seller_id": "S1", "order": {"mp_order_number": %b}}\n{}\n' % number.encode())
    assert isinstance(row, BadRow)
    assert (row.seller_id, row.mp_order_number) == ("S1", known)
    assert after.row_number == 2


def test_no_customer_shows_in_the_repr():
    good, bad = read(jsonl_row() + b"\n" + jsonl_row(currency="?"))
    assert "Robin" not in repr(good) + repr(bad)


def test_an_over_long_line_is_rejected_without_being_held():
    bad, good = read(b"x" * (MAX_ORDER_BYTES + 1) + b"\n" + jsonl_row())
    assert isinstance(bad, BadRow)
    assert [reason.code for reason in bad.reasons] == ["too_large"]
    assert len(bad.raw) < MAX_ORDER_BYTES / 10
    assert isinstance(good, OrderRow)


@given(
    st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=9), st.integers(1, 12)
)
def test_lines_are_split_alike_whatever_is_kept_of_them(parts, max_bytes):
    content = b"x" + b"\n".join(parts)
    expected = content.split(b"\n")
    found = list(lines(io.BytesIO(content), max_bytes))
    assert [line.content for line in found] == [
        part[:max_bytes] for part in (expected if expected[-1] else expected[:-1])
    ]
    assert [line.is_cut for line in found] == [len(part) > max_bytes for part in expected[: len(found)]]
    assert [line.sha256 for line in found] == [
        hashlib.sha256(part).hexdigest() if len(part) > max_bytes else "" for part in expected[: len(found)]
    ]


@given(st.lists(st.binary(max_size=30) | st.just(jsonl_row()) | st.just(b'{"seller_id": 1}'), max_size=8))
def test_every_line_is_accounted_for_once(parts):
    content = b"\n".join([b"{}", *parts])  # after this first line, none makes a list of the whole file
    expected = [
        number
        for number, line in enumerate(content.split(b"\n"), 1)
        if not is_blank(line.decode("utf-8", "backslashreplace"))
    ]
    assert [row.row_number for row in read(content)] == expected


def test_a_kept_row_is_judged_again_under_other_rules():
    (bad,) = read(jsonl_row(gift="yes"))
    again = read_again(bad.source, bad.row_number, bad.raw, BodyRules(extra_order_fields=frozenset({"gift"})))
    assert isinstance(again, OrderRow)
    assert again.row_hash == bad.row_hash


def test_a_file_of_another_kind_is_rejected_as_a_whole(tmp_path):
    (row,) = read_rows(inbox_file(tmp_path, "orders.xlsx", b"PK"), RULES)
    assert isinstance(row, BadRow)
    assert (row.row_number, row.rows) == (0, 0)
    assert ".jsonl, .csv or .parquet" in row.reasons[0].message


def test_a_file_that_was_removed_is_a_transient_error(tmp_path):
    file = inbox_file(tmp_path, "a.jsonl", b"")
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(TransientError, match=r"a\.jsonl"):
        list(read_rows(file, RULES))


def test_the_text_that_the_ledger_has_is_not_read_again():
    same, other = jsonl_row(), jsonl_row(currency="EUR")
    hash_ = hashlib.sha256(same).hexdigest()
    asked: list[set[tuple[str, str]]] = []

    def hashes(keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
        asked.append(set(keys))
        return {("S1", "M-1"): hash_}

    content = b"\n".join([same, other, b"{", jsonl_row(mp_order_number="M-2"), b""])
    rows = list(read_jsonl(io.BytesIO(content), "a.jsonl", RULES, hashes))
    assert asked == [{("S1", "M-1"), ("S1", "M-2")}]
    assert rows[0] == OrderRow("a.jsonl", 1, 1, hash_, "", "S1", "M-1", {}, was_delivered=True)
    assert [(type(row), row.row_number, row.raw.encode()) for row in rows[1:]] == [
        (OrderRow, 2, other),
        (BadRow, 3, b"{"),
        (OrderRow, 4, jsonl_row(mp_order_number="M-2")),
    ]


def test_lines_before_a_failure_of_the_store_are_rows():
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if not (content := super().read(size)):
                raise OSError("away")
            return content

    rows = read_jsonl(Failing(jsonl_row() + b"\n" + jsonl_row() + b"\n"), "a.jsonl", RULES)
    assert [next(rows).row_number, next(rows).row_number] == [1, 2]
    with pytest.raises(OSError, match="away"):
        next(rows)
