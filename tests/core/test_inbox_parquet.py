"""Parquet: one order a row, as a struct or as JSON text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from order_samples import good_line, good_order, inbox_file

from feedamp.inbox import BadRow, OrderRow, read_again, read_rows
from feedamp.order_body import BodyRules

RULES = BodyRules()


def read(folder: Path, rows: list[dict], schema: pa.Schema | None = None) -> list[OrderRow | BadRow]:
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "a.parquet")
    return list(read_rows(inbox_file(folder, "a.parquet", (folder / "a.parquet").read_bytes()), RULES))


def test_a_struct_with_typed_times_and_prices_is_an_order(tmp_path):
    moment = datetime(2026, 3, 2, 14, 5, tzinfo=UTC)
    order = good_order(purchase_date=moment, order_lines=[good_line(unit_price=25.5)])
    (row,) = read(tmp_path, [{"seller_id": "S1", "order": order}])
    assert isinstance(row, OrderRow)
    assert row.body == good_order()
    assert row.row_number == 1
    again = read_again(row.source, row.row_number, row.raw, RULES)
    assert isinstance(again, OrderRow)
    assert again.body == row.body


def test_json_text_is_an_order_too(tmp_path):
    rows = [
        {"seller_id": "S1", "order": json.dumps(good_order(), default=float)},
        {"seller_id": "S1", "order": "{"},
    ]
    good, bad = read(tmp_path, rows)
    assert isinstance(good, OrderRow)
    assert good.body == good_order()
    assert isinstance(bad, BadRow)
    assert [(reason.field, reason.code) for reason in bad.reasons] == [("order", "wrong_type")]


def test_members_that_only_other_rows_have_are_absent(tmp_path):
    rows = [{"seller_id": "S1", "order": good_order()}, {"seller_id": "S1", "order": good_order(gift="yes")}]
    good, bad = read(tmp_path, rows)
    assert isinstance(good, OrderRow)
    assert isinstance(bad, BadRow)
    assert [reason.field for reason in bad.reasons] == ["gift"]


def test_a_time_without_zone_is_a_bad_date(tmp_path):
    order = good_order(purchase_date=datetime(2026, 3, 2, 14, 5))  # noqa: DTZ001
    (row,) = read(tmp_path, [{"seller_id": "S1", "order": order}])
    assert isinstance(row, BadRow)
    assert [(reason.field, reason.code) for reason in row.reasons] == [("purchase_date", "bad_date")]


def test_a_table_without_the_columns_is_rejected_row_by_row(tmp_path):
    rows = read(tmp_path, [{"id": 1}, {"id": 2}])
    assert [[reason.field for reason in row.reasons] for row in rows if isinstance(row, BadRow)] == [
        ["seller_id", "id", "order"]
    ] * 2


def test_the_index_that_pandas_adds_is_no_field(tmp_path):
    (row,) = read(tmp_path, [{"seller_id": "S1", "order": good_order(), "__index_level_0__": 7}])
    assert isinstance(row, OrderRow)


@pytest.mark.parametrize("keep", [0, 4, 300])
def test_a_damaged_file_is_rejected_as_a_whole(tmp_path, keep):
    read(tmp_path, [{"seller_id": "S1", "order": good_order()}])
    content = (tmp_path / "a.parquet").read_bytes()[:keep]
    (row,) = read_rows(inbox_file(tmp_path, "b.parquet", content), RULES)
    assert isinstance(row, BadRow)
    assert row.row_number == 0


def test_a_value_that_python_cannot_hold_costs_its_row_alone(tmp_path):
    days = pa.array([0, 2**31 - 1, 0], pa.int32()).cast(pa.date32())
    orders = [json.dumps(good_order(mp_order_number=f"M-{n}"), default=float) for n in range(3)]
    pq.write_table(pa.table({"seller_id": ["S1"] * 3, "order": orders, "day": days}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    rows = list(read_rows(inbox_file(tmp_path, "b.parquet", content), RULES))
    assert [row.row_number for row in rows] == [1, 2, 3]
    assert [row.reasons[0].field for row in rows if isinstance(row, BadRow)] == ["day", "", "day"]
    assert not any(row.file_fault for row in rows if isinstance(row, BadRow))
