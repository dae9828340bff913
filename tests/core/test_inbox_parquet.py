"""Parquet: one order a row, as a struct or as JSON text, or one order line a row; each file is read in its own process.

A process takes a fifth of a second, so each test reads one file with a row for each case.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from order_samples import CSV_ROW, good_line, good_order, inbox_file

from feedamp.inbox import BadRow, OrderRow, flat_csv, parquet, read_again, read_rows
from feedamp.inbox.parquet import read_parquet
from feedamp.order_body import BodyRules

RULES = BodyRules()
MOMENT = datetime(2026, 3, 2, 14, 5, tzinfo=UTC)


def read(folder: Path, table: pa.Table | list[dict[str, Any]]) -> list[OrderRow | BadRow]:
    """The rows of this table; each that was rejected is rejected again when it is replayed."""
    pq.write_table(
        table if isinstance(table, pa.Table) else pa.Table.from_pylist(table), folder / "a.parquet"
    )
    rows = list(read_rows(inbox_file(folder, "a.parquet", (folder / "a.parquet").read_bytes()), RULES))
    for row in rows:
        if row.raw:
            again = read_again(row.source, row.row_number, row.raw, RULES)
            assert isinstance(row, BadRow) or again.body == row.body
    return rows


def fate(row: OrderRow | BadRow) -> Any:
    """The order number of an order; the reasons of a reject."""
    if isinstance(row, OrderRow):
        return row.mp_order_number
    return [(reason.field, reason.code) for reason in row.reasons]


def test_prices_as_short_floats_are_told_how_to_be_stored(tmp_path):
    rows = [{"seller_id": "S1", "order": good_order(order_lines=[good_line(unit_price=9.99)])}]
    table = pa.Table.from_pylist(rows)
    line = table.schema.field("order").type.field("order_lines").type.value_type
    for kind, told in ((pa.float32(), "store prices as decimals or 64-bit floats"), (pa.float64(), None)):
        members = [one.with_type(kind) if one.name == "unit_price" else one for one in line]
        order = table.schema.field("order").type
        fields = [
            pa.field(one.name, pa.list_(pa.struct(members))) if one.name == "order_lines" else one
            for one in order
        ]
        schema = pa.schema([table.schema.field("seller_id"), pa.field("order", pa.struct(fields))])
        (row,) = read(tmp_path, pa.Table.from_pylist(rows, schema=schema))
        assert isinstance(row, OrderRow) is (told is None)
        assert told is None or told in row.reasons[0].message


def test_a_struct_with_typed_members_is_an_order(tmp_path):
    def row(number: str, line: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        typed = {"unit_price": 25.5, "quantity": 4.0, "shipping_price": 2.25, **(line or {})}
        order = good_order(mp_order_number=number, purchase_date=MOMENT, order_lines=[good_line(**typed)])
        indexes = {"__index_level_0__": 7, "Unnamed: 0": 7}
        return {"seller_id": " S1", "order": {**order, **changes}, **indexes}

    nan = float("nan")
    rows = read(
        tmp_path,
        [
            row("M-1"),
            row("M-2", {"shipping_price": nan}),
            row("M-3", {"unit_price": nan}),
            row("M-4", {"quantity": 2.5}),
            row("M-5", gift="yes"),
            row("M-6", delivery_notes="", latest_ship_date=date(2026, 3, 4)),
        ],
    )
    assert [fate(row) for row in rows] == [
        "M-1",
        "M-2",
        [("order_lines[0].unit_price", "missing")],
        [("order_lines[0].quantity", "wrong_type")],
        [("gift", "unknown_field")],
        [("latest_ship_date", "bad_date")],
    ]
    assert {row.seller_id for row in rows} == {"S1"}
    assert [row.row_number for row in rows] == [1, 2, 3, 4, 5, 6]
    first, second = (row.body["order_lines"][0] for row in rows[:2] if isinstance(row, OrderRow))
    assert (first["quantity"], first["shipping_price"]) == (4, Decimal("2.25"))
    assert "shipping_price" not in second


def test_json_as_text_or_bytes_is_an_order(tmp_path):
    whole = json.dumps(good_order(), default=float).encode()
    orders = [whole, b"{", whole.replace(b"Vale", b"V\xe4le"), whole.replace(b"Vale", b"\\ud83d")]
    assert [fate(row) for row in read(tmp_path, pa.table({"seller_id": ["S1"] * 4, "order": orders}))] == [
        "M-1",
        [("order", "unreadable")],
        [("order", "unreadable")],
        "M-1",
    ]


def test_a_value_that_python_cannot_hold_costs_its_row_and_is_named(tmp_path):
    naive = datetime(2026, 3, 2, 14, 5)  # noqa: DTZ001
    order = good_order(latest_ship_date=naive, order_lines=[good_line(unit_price=25.5)])
    rows = [{"seller_id": "S1", "order": {**order, "mp_order_number": f"M-{n}"}} for n in range(3)]
    struct = pa.array([row["order"] for row in rows])
    moments = pa.array([0, 2**62, 0], pa.int64()).cast(pa.timestamp("us", "America/New_York"))
    members = [moments if name == "latest_ship_date" else struct.field(name) for name in struct.type.names]
    table = pa.table(
        {"seller_id": ["S1"] * 3, "order": pa.StructArray.from_arrays(members, struct.type.names)}
    )
    first, bad, last = read(tmp_path, table)
    assert [fate(row) for row in (first, bad, last)] == ["M-0", [("latest_ship_date", "unreadable")], "M-2"]
    assert (bad.seller_id, bad.mp_order_number, bad.row_number) == ("S1", "M-1", 2)
    assert not bad.file_fault


def test_a_flat_table_with_more_cells_than_fit_is_rejected_once(monkeypatch):
    monkeypatch.setattr(flat_csv, "MAX_UNPACKED_BYTES", 5_000)
    pages = io.BytesIO()
    row = CSV_ROW | {"delivery_notes": "x" * 1000}
    pq.write_table(pa.Table.from_pylist([row | {"mp_order_number": f"M-{at}"} for at in range(9)]), pages)
    pages.seek(0)
    [bad] = read_parquet(pages, "a.parquet", RULES)
    assert isinstance(bad, BadRow)
    assert (bad.row_number, bad.rows, fate(bad)) == (0, 9, [("", "too_large")])
    assert bad.file_fault


def test_a_flat_table_is_read_like_csv(tmp_path):
    def row(number: str, line: str, **changes: Any) -> dict[str, Any]:
        typed = {
            "order_lines.quantity": 4.0,
            "order_lines.unit_price": 25.5,
            "order_lines.shipping_price": Decimal("0E-18"),
        }
        cells = {
            **CSV_ROW,
            "taxes": None,
            **typed,
            "mp_order_number": number,
            "order_lines.mp_line_number": line,
        }
        return {**cells, **changes}

    kept = {"shipping_address.postal_code": "'01220", "order_lines.sku": '="0042"'}
    rows = [
        row("M-1", "1", **kept),
        row("M-2", "1"),
        row("M-1", "2", taxes=[{"type": "SALES", "amount": 1.1}], **kept),
        row("M-3", "1"),
        row("1001.0", "1"),
        row("M-4", "1", seller_id=""),
    ]
    table = pa.Table.from_pylist(rows)
    days = pa.array([0, 0, 0, 2**31 - 1, 0, 0], pa.int32()).cast(pa.date32())
    exact = pa.array([int(MOMENT.timestamp()) * 10**9 + 1] * 6, pa.timestamp("ns", "UTC"))
    table = table.set_column(table.schema.get_field_index("purchase_date"), "purchase_date", exact)
    found = read(tmp_path, table.append_column("delivery_notes", days))
    assert [(row.row_number, fate(row)) for row in found] == [
        (1, "M-1"),
        (2, "M-2"),
        (4, [("order_lines", "unreadable")]),
        (5, [("mp_order_number", "spreadsheet_damage")]),
        (6, [("seller_id", "missing")]),
    ]
    assert found[2].mp_order_number == "M-3"
    assert isinstance(found[0], OrderRow)
    lines = found[0].body["order_lines"]
    assert (found[0].body["shipping_address"]["postal_code"], lines[0]["sku"]) == ("01220", "0042")
    assert found[0].body["purchase_date"] == "2026-03-02T14:05:00Z"
    assert [(line["quantity"], line["shipping_price"]) for line in lines] == [(4, 0), (4, 0)]
    assert lines[1]["taxes"] == [{"type": "SALES", "amount": Decimal("1.10")}]


def test_blanks_around_the_names_of_columns_make_no_difference(tmp_path):
    flat = {f"\ufeff {name} ": cell for name, cell in CSV_ROW.items()}
    with_order = {" seller_id": "S1", "\ufefforder": json.dumps(good_order(), default=float)}
    for row in (flat, with_order):
        (found,) = read(tmp_path, [row])
        assert fate(found) == "M-1"
    (twice,) = read(tmp_path, [with_order | {"order": "{}"}])
    assert [reason.message for reason in twice.reasons] == ["the table has a column more than once"]


def test_a_list_in_a_column_of_texts_is_not_placed_as_its_text(tmp_path):
    rows = [CSV_ROW | {"mp_order_number": "M-1", "order_lines.sku": ["LAMP-22"]}]
    (row,) = read(tmp_path, rows)
    assert (row.mp_order_number, fate(row)) == ("M-1", [("order_lines", "unreadable")])
    assert "order_lines.sku" in row.reasons[0].message


def test_a_table_without_the_columns_is_rejected_row_by_row(tmp_path):
    rows = read(tmp_path, [{"id": 1}, {"id": 2}])
    assert [[field for field, _ in fate(row)] for row in rows] == [["seller_id", "id", "order"]] * 2


def test_large_rows_cost_themselves_until_there_are_too_many(monkeypatch, tmp_path):
    monkeypatch.setattr(parquet, "MAX_ORDER_BYTES", 5_000)
    orders = [json.dumps(good_order(delivery_notes="x" * size), default=float) for size in (0, *[5_000] * 30)]
    pq.write_table(pa.table({"seller_id": ["S1"] * 31, "order": orders}), tmp_path / "a.parquet")
    with (tmp_path / "a.parquet").open("rb") as stream:
        good, *large, file = read_parquet(stream, "a.parquet", RULES)
    assert fate(good) == "M-1"
    assert [fate(row) for row in large] == [[("", "too_large")]] * 20
    assert isinstance(file, BadRow)
    assert (fate(file), file.rows) == ([("", "too_large")], 10)


@pytest.mark.parametrize("keep", [0, 4, 300])
def test_a_damaged_file_is_rejected_as_a_whole(tmp_path, keep):
    pq.write_table(pa.table({"seller_id": ["S1"] * 99, "order": ["{}"] * 99}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()[:keep]
    (row,) = read_rows(inbox_file(tmp_path, "b.parquet", content), RULES)
    assert (row.row_number, fate(row)) == (0, [("", "unreadable")])


def test_a_file_that_takes_more_memory_than_allowed_is_rejected(monkeypatch, tmp_path):
    monkeypatch.setattr(parquet, "MAX_MEMORY_BYTES", 100 << 20)
    orders = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * 1_000_000]))
    table = pa.table({"seller_id": ["S1"] * 200, "order": orders})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)  # decoded to 200 MB
    with (tmp_path / "a.parquet").open("rb") as stream:
        (row,) = read_parquet(stream, "a.parquet", RULES)
    assert isinstance(row, BadRow)
    assert (fate(row), row.rows) == ([("", "too_large")], 200)
    assert "more memory" in str(row.file_fault)
