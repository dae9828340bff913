"""A field that was stored in `extra` before it had a column, and numeric columns that became wider."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from feedamp.errors import ConfigurationError
from feedamp.lake.schema_evolution import as_declared, value_in_extra
from feedamp.tables import RECORDED, RECORDED_AT, Column, Merge, Table, Type
from feedamp.warehouse.structure import wide_enough

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "extra", "value"),
    [
        pytest.param(Type.TEXT, '{"f":"x"}', "x", id="text"),
        pytest.param(Type.TEXT, '{"f":7}', "7", id="a number as text"),
        pytest.param(Type.TEXT, '{"f":{"a":1.50}}', '{"a":1.50}', id="an object as text"),
        pytest.param(Type.INTEGER, '{"f":7}', 7, id="an integer"),
        pytest.param(Type.INTEGER, '{"f":"7"}', 7, id="an integer sent as text"),
        pytest.param(Type.INTEGER, '{"f":7.5}', None, id="no integer"),
        pytest.param(Type.INTEGER, '{"f":99999999999999999999}', None, id="an integer too large"),
        pytest.param(Type.MONEY, '{"f":19.99}', Decimal("19.9900"), id="money"),
        pytest.param(Type.MONEY, '{"f":"19.99"}', Decimal("19.9900"), id="money sent as text"),
        pytest.param(Type.MONEY, '{"f":0.00001}', None, id="money too fine"),
        pytest.param(Type.BOOLEAN, '{"f":false}', False, id="false"),
        pytest.param(Type.TIMESTAMP, '{"f":"2026-03-10T13:00:00+01:00"}', NOON, id="a moment"),
        pytest.param(Type.TIMESTAMP, '{"f":"2026-03-10T12:00:00"}', NOON, id="a moment without zone is UTC"),
        pytest.param(Type.TIMESTAMP, '{"f":1700000000}', None, id="a number is no moment"),
        pytest.param(Type.DATE, '{"f":"2026-03-10"}', date(2026, 3, 10), id="a day"),
        pytest.param(Type.DATE, '{"f":"soon"}', None, id="no day"),
        pytest.param(Type.JSON, '{"f":[1,{"a":null}]}', '[1,{"a":null}]', id="JSON"),
        pytest.param(Type.TEXT, '{"g":"x"}', None, id="another field"),
        pytest.param(Type.TEXT, '{"f":null}', None, id="null"),
        pytest.param(Type.TEXT, "[1]", None, id="no object"),
        pytest.param(Type.TEXT, None, None, id="nothing"),
    ],
)
def test_a_value_is_found_in_extra(kind: Type, extra: str | None, value: Any) -> None:
    assert value_in_extra(Column("c", kind, "", from_extra="f"), extra) == value


def test_a_file_that_has_the_column_is_taken_at_its_word() -> None:
    """Null in the column means null, whatever `extra` says."""
    table = Table(
        "t",
        "",
        ("k",),
        (
            Column("k", Type.TEXT, ""),
            Column("f", Type.TEXT, "", from_extra="f"),
            Column("extra", Type.JSON, ""),
            RECORDED,
        ),
        Merge.LATEST,
    )
    rows = [{"k": "1", "f": None, "extra": '{"f":"x"}', RECORDED_AT: NOON}]
    batch = pa.RecordBatch.from_pylist(rows, schema=table.lake_schema)
    assert as_declared(batch, table).to_pylist() == rows
    older = batch.drop_columns(["f"])
    assert as_declared(older, table).to_pylist() == [rows[0] | {"f": "x"}]


@pytest.mark.parametrize(
    ("present", "wanted", "becomes"),
    [
        pytest.param("BIGINT", "BIGINT", "BIGINT", id="the same"),
        pytest.param("INTEGER", "BIGINT", "BIGINT", id="a wider integer"),
        pytest.param("BIGINT", "INTEGER", "BIGINT", id="never a narrower integer"),
        pytest.param("DECIMAL(10,2)", "DECIMAL(18,4)", "DECIMAL(18,4)", id="a wider decimal"),
        pytest.param("NUMERIC(38,9)", "NUMERIC(18,4)", "NUMERIC(38,9)", id="never a narrower decimal"),
        pytest.param("DECIMAL(18,2)", "DECIMAL(18,4)", "DECIMAL(20,4)", id="room for both"),
        pytest.param("BIGINT", "DECIMAL(18,4)", "DECIMAL(23,4)", id="an integer becomes a decimal"),
        pytest.param("NUMERIC", "NUMERIC(18,4)", "NUMERIC", id="a number without limit"),
        pytest.param("VARCHAR", "TEXT", "VARCHAR", id="another name for it"),
        pytest.param("CHARACTER VARYING", "TEXT", "CHARACTER VARYING", id="Postgres' name for it"),
    ],
)
def test_a_column_gets_wide_enough(present: str, wanted: str, becomes: str) -> None:
    assert wide_enough(present, wanted) == becomes


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ("TEXT", "BIGINT"),
        ("DATE", "TIMESTAMP WITH TIME ZONE"),
        ("DOUBLE", "DECIMAL(18,4)"),
        ("DECIMAL(38,0)", "DECIMAL(18,4)"),
    ],
)
def test_a_column_of_another_kind_is_refused(present: str, wanted: str) -> None:
    with pytest.raises(ConfigurationError):
        wide_enough(present, wanted)
