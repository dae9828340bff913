"""The writer of the lake: no row is lost or stored otherwise, one that a table cannot hold costs itself, a failure publishes nothing."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st
from lake_files import DAY, LINE, MOMENT, parquet_files, publish, published, writer

from feedamp.errors import IncompleteError, MisfitError
from feedamp.lake import writer as lake_module
from feedamp.lake.flatten import order_columns, rows_of
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.models import Cancellation, Customer, LineFulfillment, Order, OrderLine, ReadOrder, Shipment
from feedamp.storage import Storage
from feedamp.tables import RECORDED_AT

LINE_KEY = {"seller_id": "S1", "mp_order_number": "M-1", "mp_line_number": "A", RECORDED_AT: MOMENT}


@pytest.mark.parametrize("count", [249, 250, 251, 500, 10_000, 10_250])
def test_a_table_that_fills_its_last_batch_is_written_whole(lake: Lake, count: int) -> None:
    manifest = published(lake, *({**LINE, "mp_line_number": str(at)} for at in range(count)))
    assert sum(pq.read_metadata(path).num_rows for path in parquet_files(lake)) == count
    assert sum(file.rows for file in manifest.files) == count


@given(
    chunks=st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 12, 13]), max_size=8),
    batch=st.sampled_from([1, 2, 3, 5]),
    group=st.sampled_from([1, 3, 6, 7]),
)
def test_every_row_is_in_the_file_however_they_came(chunks: list[int], batch: int, group: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(lake_module, "ROWS_PER_BATCH", batch)
        patch.setattr(lake_module, "ROWS_PER_GROUP", group)
        lake = Lake(folder)
        opened = writer(lake)
        numbers = [str(at) for at in range(sum(chunks))]
        left = iter(numbers)
        for chunk in chunks:
            opened.append("order_lines", [{**LINE, "mp_line_number": next(left)} for _ in range(chunk)])
        manifest = publish(opened)
        written = [row["mp_line_number"] for rows in lake.batches(manifest, "order_lines") for row in rows]
    assert written == numbers


def test_a_killed_writer_leaves_nothing_that_counts(lake: Lake) -> None:
    script = f"""
import os, sys
from datetime import UTC, date, datetime
from feedamp.lake import store, writer as writing
from feedamp.lake.privacy import Privacy
writing.ROWS_PER_GROUP = 1
row = {{"seller_id": "S1", "mp_order_number": "M-1", "mp_line_number": "A", "recorded_at": datetime.now(UTC)}}
writer = writing.LakeWriter(store.Lake({lake.root!r}), "extract-1", 0, day=date(2026, 3, 10), privacy=Privacy(None))
writer.append("order_lines", [row])
os._exit(9)
"""
    include = str(Path(lake_module.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": include}, check=False)
    assert done.returncode == 9
    assert parquet_files(lake)
    assert list(lake.manifests()) == []


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(1, id="one row"),
        pytest.param(3, id="exactly a row group"),
        pytest.param(4, id="a row group plus one"),
    ],
)
def test_rows_stream_out_in_groups_and_none_is_lost(
    lake: Lake, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_module, "ROWS_PER_GROUP", 3)
    opened = writer(lake)
    for number in range(count):
        opened.append("order_lines", [{**LINE, "mp_line_number": str(number)}])
    manifest = publish(opened)
    assert manifest.files[0].rows == count
    assert pq.ParquetFile(parquet_files(lake)[0]).num_row_groups == -(-count // 3)
    batches = list(lake.batches(manifest, "order_lines", rows=2))
    assert [row["mp_line_number"] for batch in batches for row in batch] == [str(n) for n in range(count)]


def test_of_tables_that_are_full_at_once_one_is_written_at_a_time(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_module, "ROWS_PER_GROUP", 10)
    opened = writer(lake)
    found = order_columns(["S1"] * 10, [ReadOrder(SHOWN, MOMENT)] * 10)
    nothing = order_columns([], [])
    written = []
    for columns in (nothing, found, *[nothing] * 4):
        opened.append_columns(columns)
        written.append(len(parquet_files(lake)))
    assert written == [0, 1, 2, 3, 4, 4]
    for _ in range(2):  # such groups wait for no other table
        opened.append_columns(order_columns(["S1"] * 12, [ReadOrder(SHOWN, MOMENT)] * 12))
    manifest = publish(opened)
    assert {file.table: file.rows for file in manifest.files} == dict.fromkeys(
        ("orders", "order_lines", "shipments", "snapshots"), 34
    )
    assert {pq.ParquetFile(path).num_row_groups for path in parquet_files(lake)} == {3}


def test_large_rows_stream_out_before_a_group_is_full(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_module, "TEXT_PER_BATCH", 1_000)
    monkeypatch.setattr(lake_module, "BYTES_PER_GROUP", 2_000)
    opened = writer(lake)
    for number in range(9):
        opened.append("order_lines", [{**LINE, "mp_line_number": str(number), "product_name": "x" * 900}])
    manifest = publish(opened)
    assert pq.ParquetFile(parquet_files(lake)[0]).num_row_groups >= 4
    assert sum(len(batch) for batch in lake.batches(manifest, "order_lines")) == 9


def test_masked_rows_never_reach_a_file_in_clear(lake: Lake) -> None:
    opened = writer(lake, privacy=Privacy(b"a key"))
    order = {
        "seller_id": "S1",
        "mp_order_number": "M-1",
        "customer_full_name": "Robin Vale",
        RECORDED_AT: MOMENT,
    }
    opened.append("orders", [order])
    publish(opened)
    assert b"Robin" not in parquet_files(lake)[0].read_bytes()


def test_a_row_without_its_key_is_refused(lake: Lake) -> None:
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    with pytest.raises(MisfitError, match=r"Order M-1 of seller S1 .*order_lines.mp_line_number is empty"):
        opened.append("order_lines", [{**LINE, "mp_line_number": "B"}, {**LINE, "mp_line_number": None}])
    assert [file.rows for file in publish(opened).files] == [1]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"unit_price": Decimal("0E+20")}, id="a zero with an exponent"),
        pytest.param({"unit_price": Decimal("1.00001")}, id="five decimals"),
        pytest.param({"unit_price": 25.5}, id="money as a float"),
        pytest.param({"quantity": 2**63}, id="a number beyond 64 bits"),
        pytest.param({"quantity": True}, id="a truth as a number"),
        pytest.param({"sku": "\ud800"}, id="half an emoji"),
        pytest.param({"color": "red"}, id="a column that the table lacks"),
        pytest.param({RECORDED_AT: datetime(2026, 3, 10)}, id="a moment without a zone"),  # noqa: DTZ001
        pytest.param({RECORDED_AT: None}, id="no moment"),
    ],
)
def test_a_row_that_the_table_cannot_hold_costs_itself(lake: Lake, change: dict[str, Any]) -> None:
    opened = writer(lake)
    with pytest.raises(MisfitError, match="Order M-1 of seller S1 cannot be stored in "):
        opened.append_all({"order_lines": [LINE], "shipments": [], "orders": [{**LINE, **change}]})
    with pytest.raises(MisfitError, match="Order M-1 of seller S1 cannot be stored in "):
        opened.append("order_lines", [LINE, {**LINE, **change}])
    opened.append("order_lines", [LINE])
    manifest = publish(opened)
    assert [(file.table, file.rows) for file in manifest.files] == [("order_lines", 1)]


SHOWN = Order(
    mp_order_number="M-1",
    customer=Customer(full_name="Robin Vale"),
    purchase_date=MOMENT,
    order_lines=(
        OrderLine(mp_line_number="A", quantity=2, unit_price=Decimal("25.5"), extra={"color": "red"}),
    ),
    fulfillments=(LineFulfillment(mp_line_number="A", shipments=(Shipment(quantity=1, shipped_date=DAY),)),),
    extra={"gift": True},
)
KINDS = [
    SHOWN,
    Order(mp_order_number="M-2", fulfillments=()),
    msgspec.structs.replace(
        SHOWN,
        mp_order_number="M-3",
        purchase_date=None,
        order_lines=(
            OrderLine(mp_line_number="A", quantity=1),
            OrderLine(mp_line_number="B", shipping_price=Decimal("1.00001")),
            OrderLine(mp_line_number="A", quantity=7, extra={"taxes": [{"type": "ITEM", "amount": 1}]}),
        ),
    ),
    Order(
        mp_order_number="M-4",
        fulfillments=(
            LineFulfillment(mp_line_number="X", shipments=(Shipment(quantity=2), Shipment(carrier="ups"))),
            LineFulfillment(mp_line_number="Y", cancellations=(Cancellation(quantity=2),)),
            LineFulfillment(
                mp_line_number="X", shipments=(Shipment(),), cancellations=(Cancellation(reason="lost"),)
            ),
        ),
    ),
    Order(mp_order_number="M-5", order_lines=(OrderLine(mp_line_number="A"),)),
]


@pytest.mark.parametrize("key", [pytest.param(None, id="in clear"), pytest.param(b"a key", id="masked")])
def test_rows_appended_by_column_are_those_that_are_appended_one_by_one(
    lake: Lake, key: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_module, "LOOSE_BATCHES", 2)
    many = [
        order_columns(
            ["S1"] * len(orders), [ReadOrder(order, MOMENT + timedelta(seconds=n)) for order in orders]
        )
        for n, orders in enumerate([KINDS, KINDS[:1], KINDS[3:]])
    ]
    by_column, by_row = (writer(lake, slug, Privacy(key)) for slug in ("columns", "rows"))
    for found in many:
        by_column.append_columns(found)
        by_row.append_all(rows_of(found))
    manifests = publish(by_column), publish(by_row)
    first, second = (
        {file.table: pq.read_table(lake.absolute(file.path)) for file in manifest.files}
        for manifest in manifests
    )
    assert {table: len(rows) for table, rows in first.items()} == {
        "orders": 8,
        "snapshots": 8,
        "order_lines": 10,
        "order_taxes": 1,
        "shipments": 9,
        "cancellations": 4,
    }
    assert first == second
    assert all(rows.schema.equals(second[table].schema, check_metadata=True) for table, rows in first.items())


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        pytest.param("order_lines", "unit_price", Decimal("1.00001"), id="five decimals"),
        pytest.param("order_lines", "unit_price", 25.5, id="money as a float"),
        pytest.param("order_lines", "quantity", 2**63, id="a number beyond 64 bits"),
        pytest.param("order_lines", "quantity", True, id="a truth as a number"),
        pytest.param("order_lines", "sku", "\ud800", id="half an emoji"),
        pytest.param("order_lines", "mp_line_number", None, id="no key"),
        pytest.param("orders", "purchase_date", datetime(2026, 3, 10), id="a moment without a zone"),  # noqa: DTZ001
        pytest.param("orders", "purchase_date", 7, id="a number for a moment"),
    ],
)
def test_a_column_that_cannot_hold_a_value_takes_no_row(
    lake: Lake, table: str, column: str, value: Any
) -> None:
    opened = writer(lake)
    found = order_columns(["S1"], [ReadOrder(SHOWN, MOMENT)])
    tables = found.tables | {table: found.tables[table] | {column: [value]}}
    with pytest.raises(MisfitError, match=f"{table}.{column} cannot hold one of its values"):
        opened.append_columns(replace(found, tables=tables))
    opened.append_columns(found)
    assert {file.table: file.rows for file in publish(opened).files} == dict.fromkeys(
        ("orders", "order_lines", "shipments", "snapshots"), 1
    )


class FailingFiles(LocalFileSystem):
    """Refuses to open the n-th file, or to write to it."""

    cachable = False

    def __init__(self, fail_at: int) -> None:
        super().__init__(auto_mkdir=False)
        self.opens, self.fail_at = 0, fail_at

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # type: ignore[override]
        if mode == "wb":
            self.opens += 1
            if self.opens == self.fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
        return super().open(path, mode, **options)


class SilentFiles(LocalFileSystem):
    """As on SFTP, a file does not say how much was written to it."""

    cachable = False

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # type: ignore[override]
        opened = super().open(path, mode, **options)
        if mode == "wb":
            write = opened.write
            opened.write = lambda data: [write(data), None][1]
        return opened


def test_a_store_whose_files_do_not_say_what_was_written_is_written_to(lake: Lake) -> None:
    lake = Lake(Storage("lake_url", lake.root, SilentFiles(auto_mkdir=False), lake.root))
    manifest = published(lake, LINE)
    lake.verify(manifest)
    assert len(parquet_files(lake)) == 1


def test_a_writer_that_failed_publishes_nothing_and_says_why(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_module, "ROWS_PER_GROUP", 1)
    lake = Lake(Storage("lake_url", lake.root, FailingFiles(fail_at=2), lake.root))
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    with pytest.raises(IncompleteError, match="No space left on device"):
        opened.append("shipments", [{**LINE_KEY, "shipment_index": 0}])
    with pytest.raises(IncompleteError, match="No space left on device"):
        opened.append("order_lines", [LINE])
    for _ in range(2):
        with pytest.raises(IncompleteError, match="No space left on device"):
            publish(opened)
    assert lake.published() == []


def test_a_close_that_failed_is_not_taken_for_done_by_the_next_publish(lake: Lake) -> None:
    lake = Lake(Storage("lake_url", lake.root, FailingFiles(fail_at=1), lake.root))
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    for _ in range(2):
        with pytest.raises(IncompleteError, match="could not be written"):
            publish(opened)
    assert lake.published() == []


def test_files_that_hold_other_rows_than_were_appended_are_not_published(lake: Lake) -> None:
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    opened.close()
    [path] = parquet_files(lake)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(IncompleteError, match=r"1 row was to be written of order_lines.* holds 0"):
        publish(opened)
    assert lake.published() == []


def test_rows_that_vanish_in_the_writer_are_missed_when_it_publishes(lake: Lake) -> None:
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    opened._pending.clear()
    with pytest.raises(IncompleteError, match="no file holds 0"):
        publish(opened)
    assert lake.published() == []
