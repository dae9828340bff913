"""Lake files of earlier versions have fewer columns."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from feedamp.column_types import Type
from feedamp.lake.schema_evolution import as_declared
from feedamp.tables import RECORDED, RECORDED_AT, Column, Table


def test_a_column_that_a_file_lacks_is_null_and_an_unknown_one_is_left_out() -> None:
    columns = (Column("k", Type.TEXT, ""), Column("f", Type.MONEY, ""), RECORDED)
    table = Table("t", "", ("k",), columns)
    rows = [{"k": "1", RECORDED_AT: datetime(2026, 3, 10, 12, tzinfo=UTC)}]
    schema = pa.schema([("unknown", pa.int64()), *(table.lake_schema.field(name) for name in rows[0])])
    batch = pa.RecordBatch.from_pylist([{**rows[0], "unknown": 7}], schema=schema)
    assert as_declared(batch, table).to_pylist() == [rows[0] | {"f": None}]
