"""Packed files, and files that are far larger than they look: read to a limit, which only its file notices."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from types import FrameType

import pytest
from order_samples import CSV_ROW, csv_line, csv_text, inbox_file, jsonl_row

from feedamp.inbox import BadRow, OrderRow, flat_csv, read_rows, streams
from feedamp.inbox.csv_records import records
from feedamp.inbox.flat_csv import read_csv
from feedamp.inbox.streams import HashedStream, TextStream
from feedamp.order_body import BodyRules

RULES = BodyRules()
LINES = jsonl_row() + b"\n" + jsonl_row(mp_order_number="M-2") + b"\n"
PACKED = gzip.compress(LINES)


def fates(rows) -> list[str | tuple[int, str]]:
    """The number of each order, row and code of each reject."""
    return [
        row.mp_order_number if isinstance(row, OrderRow) else (row.row_number, row.reasons[0].code)
        for row in rows
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.jsonl.gz", PACKED, ["M-1", "M-2"], id="JSON Lines"),
        pytest.param("a.JSONL.GZ", PACKED, ["M-1", "M-2"], id="an ending in capitals"),
        pytest.param("a.csv.gz", gzip.compress(csv_text(CSV_ROW)), ["M-1"], id="CSV"),
        pytest.param("a.csv.gz", gzip.compress(csv_text(CSV_ROW).decode().encode("utf-16")), ["M-1"], id="CSV in UTF-16"),
        pytest.param("a.jsonl.gz", gzip.compress(LINES[:-9]) + gzip.compress(LINES[-9:]) + b"\0" * 9, ["M-1", "M-2"], id="in two members, padded"),
        pytest.param("a.jsonl.gz", LINES, [(0, "unreadable")], id="a file that is not packed"),
        pytest.param("a.jsonl.gz", b"", [(0, "unreadable")], id="an empty file"),
        pytest.param("a.jsonl.gz", PACKED + b"garbage", ["M-1", "M-2", (0, "unreadable")], id="garbage behind it"),
        pytest.param("a.parquet.gz", PACKED, [(0, "unreadable")], id="a kind that is packed in itself"),
        pytest.param("a.gz", PACKED, [(0, "unreadable")], id="no kind"),
    ],
)  # fmt: skip
def test_a_packed_file_is_read_as_what_it_holds(tmp_path, name, content, expected):
    assert fates(read_rows(inbox_file(tmp_path, name, content), RULES)) == expected


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(gzip.compress(b"\n" * 40), "holds gzip instead of text: end its name in .gz", id="gzip"),
        pytest.param(b"PK\x03\x04\x14\x00" + b"\n" * 40, "a workbook or an archive", id="xlsx or zip"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1" + b"\n" * 40, "a workbook or an archive", id="xls"),
        pytest.param(b"PAR1\x15\x04" + b"\n" * 40, "must end in .parquet", id="Parquet"),
        pytest.param(b"\x28\xb5\x2f\xfd" + b"\n" * 40, "a workbook or an archive", id="zstd"),
        pytest.param(bz2.compress(b"\n" * 40), "a workbook or an archive", id="bzip2"),
        pytest.param(lzma.compress(b"\n" * 40), "a workbook or an archive", id="xz"),
        pytest.param(b"7z\xbc\xaf\x27\x1c" + b"\n" * 40, "a workbook or an archive", id="7z"),
        pytest.param(b"\n<!DOCTYPE html>\n<html>\n", "HTML or XML", id="a page, as of a login"),
        pytest.param(b'\xef\xbb\xbf<?xml version="1.0"?>\n<Workbook>\n', "HTML or XML", id="XML"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_one_reject(tmp_path, name, content, said):
    packed = gzip.compress(content) if name.endswith(".gz") else content
    [reject] = read_rows(inbox_file(tmp_path, name, packed), BodyRules())
    assert isinstance(reject, BadRow)
    assert said in (reject.file_fault or "")


@pytest.mark.parametrize("missing", [1, 8, 9, 20])
def test_a_packed_file_that_breaks_off_says_so_and_takes_no_cut_line(tmp_path, missing):
    rows = list(read_rows(inbox_file(tmp_path, "a.jsonl.gz", PACKED[:-missing]), RULES))
    assert fates(rows)[-1] == (0, "unreadable")
    assert rows[-1].file_fault == "the file breaks off: what came after it is not known"
    assert all(isinstance(row, OrderRow) for row in rows[:-1])


@pytest.mark.parametrize(("limit", "value"), [("MAX_UNPACKED_BYTES", len(LINES) - 1), ("MAX_LINES", 1)])
def test_a_file_that_unpacks_to_more_than_the_limit_is_cut_there(monkeypatch, limit, value):
    monkeypatch.setattr(streams, limit, value)
    stream = TextStream(HashedStream(io.BytesIO(zlib.compress(LINES, wbits=31))), is_packed=True)
    assert b"".join(iter(stream.read, b"")) == b""
    assert stream.fault is not None
    assert stream.fault.code == "too_large"


def test_however_many_quotes_are_open_no_line_is_read_more_than_three_times():
    count, reads = 300, 0

    def counted(frame: FrameType, event: str, _: object) -> None:
        nonlocal reads
        reads += event == "call" and frame.f_code.co_qualname == "_Feed.__next__"

    sys.setprofile(counted)
    try:
        found = list(records(io.BytesIO(b'x","""\n' * count)))
    finally:
        sys.setprofile(None)
    assert len(found) == count
    assert all(record.fault for record in found)
    assert count < reads < 4 * count  # with the end of the file counted as well


def test_a_record_of_several_lines_is_whole_although_a_quote_before_it_is_open():
    good = csv_text(CSV_ROW | {"delivery_notes": "ring\ntwice", "mp_order_number": "M-2"})
    header, rest = good.split(b"\n", 1)
    rows = list(read_csv(io.BytesIO(header + b'\nS1,M-1,"open\n' + rest), "a.csv", RULES))
    assert fates(rows) == [(2, "wrong_type"), "M-2"]


def test_an_order_with_more_rows_than_an_order_may_have_is_one_small_reject(monkeypatch):
    monkeypatch.setattr(flat_csv, "MAX_ROWS_BYTES", 10_000)
    content = csv_text(*(csv_line(str(at)) for at in range(50)), CSV_ROW | {"mp_order_number": "M-2"})
    bad, good = read_csv(io.BytesIO(content), "a.csv", RULES)
    assert isinstance(bad, BadRow)
    assert [(reason.field, reason.code) for reason in bad.reasons] == [("order_lines", "too_large")]
    assert (bad.rows, bad.seller_id, bad.mp_order_number) == (50, "S1", "M-1")
    assert len(bad.raw) < 2_000
    assert isinstance(good, OrderRow)


def test_reasons_are_listed_up_to_a_hundred_and_the_rest_is_counted(tmp_path):
    content = jsonl_row(**{f"key{at}": 1 for at in range(250)})
    (row,) = read_rows(inbox_file(tmp_path, "a.jsonl", content), RULES)
    assert isinstance(row, BadRow)
    assert len(row.reasons) == 100
    assert row.reasons[-1].code == "too_large"
    assert "151 more" in row.reasons[-1].message
