"""Parquet files count once their manifest is published, and any Parquet reader can read them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from feedamp.errors import ConfigurationError, IncompleteError, MisfitError
from feedamp.lake import writer as lake_module
from feedamp.lake.flatten import order_columns, rows_of
from feedamp.lake.manifest import LakeFile, Manifest, SellerProgress, joined
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.models import Cancellation, Customer, LineFulfillment, Order, OrderLine, ReadOrder, Shipment
from feedamp.storage import Storage
from feedamp.tables import RECORDED_AT, WRITER_VERSION

MOMENT = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = date(2026, 3, 10)
LINE_KEY = {"seller_id": "S1", "mp_order_number": "M-1", "mp_line_number": "A", RECORDED_AT: MOMENT}
LINE = {
    "seller_id": "S1",
    "mp_order_number": "M-1",
    "mp_line_number": "A",
    "unit_price": Decimal("25.5000"),
    RECORDED_AT: MOMENT,
}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def writer(lake: Lake, slug: str = "extract-1", privacy: Privacy | None = None) -> LakeWriter:
    return LakeWriter(lake, slug, 0, day=DAY, privacy=privacy or Privacy(None))


def publish(opened: LakeWriter, **changes: Any) -> Manifest:
    return opened.publish(**{"created_at": MOMENT, "dag_id": "d", "run_id": "r"} | changes)


def published(lake: Lake, *rows: dict[str, Any], table: str = "order_lines") -> Manifest:
    opened = writer(lake)
    opened.append(table, rows)
    return publish(opened)


def parquet_files(lake: Lake) -> list[Path]:
    return sorted(Path(lake.root).rglob("*.parquet"))


def test_nothing_counts_before_the_manifest_is_published(lake: Lake) -> None:
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    opened.close()
    assert parquet_files(lake)
    assert list(lake.manifests()) == []
    assert lake.read_manifest(opened.manifest_path) is None


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


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder_mode"),
    [
        pytest.param(0o000, 0o600, 0o700, id="for their owner alone although nothing is masked"),
        pytest.param(0o077, 0o640, 0o750, id="for a group although the mask forbids it"),
    ],
)
def test_files_and_folders_of_the_lake_have_its_mode(
    tmp_path: Path, umask: int, file_mode: int, folder_mode: int
) -> None:
    folder = tmp_path / "mount" / "lake"
    before = os.umask(umask)
    try:
        published(Lake(str(folder), file_mode=file_mode), LINE)
    finally:
        os.umask(before)
    made = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    expected = {path: folder_mode if stat.S_ISDIR(mode) else file_mode for path, mode in made.items()}
    assert {path: mode & 0o777 for path, mode in made.items()} == expected
    assert sum(map(stat.S_ISREG, made.values())) == 2  # rows and manifest
    assert folder.parent.stat().st_mode & 0o777 == 0o777 & ~umask  # it is not the lake's


def test_a_folder_of_the_lake_hands_its_group_down(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    folder.mkdir()
    folder.chmod(0o2755)
    published(Lake(str(folder), file_mode=0o640), LINE)
    below = [path.stat().st_mode & 0o7777 for path in folder.rglob("*") if path.is_dir()]
    assert set(below) == {0o2750}
    assert folder.stat().st_mode & 0o7777 == 0o2755  # it was there


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


def test_the_folders_above_may_begin_with_a_dot(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / ".airflow" / "lake"))
    manifest = published(lake, LINE)
    assert list(lake.manifests()) == [manifest]


def test_a_draft_of_a_manifest_is_none(lake: Lake) -> None:
    manifest = published(lake, LINE)
    draft = Path(lake.absolute(manifest.path)).with_name(".a-draft.json")
    draft.write_bytes(msgspec.json.encode(manifest))
    assert list(lake.manifests()) == [manifest]


def test_a_published_manifest_is_read_back_whole(lake: Lake) -> None:
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    sweep = SellerProgress(seller_id="S1", complete=True, watermark=MOMENT)
    manifest = publish(opened, sweeps=[sweep])
    assert lake.read_manifest(manifest.path) == manifest
    assert manifest.sweeps == (sweep,)


def test_a_file_as_it_was_written_is_verified_by_its_bytes_alone(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = published(lake, LINE)
    [path] = parquet_files(lake)
    assert [file.sha256 for file in manifest.files] == [hashlib.sha256(path.read_bytes()).hexdigest()]

    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("it need not be decoded")

    monkeypatch.setattr(pq, "ParquetFile", decoded)
    lake.verify(manifest)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_file_of_other_bytes_is_whole_if_it_holds_the_rows_that_were_named(lake: Lake, rows: int) -> None:
    manifest = published(lake, LINE)
    [path] = parquet_files(lake)
    held = pq.read_table(path)
    pq.write_table(pa.concat_tables([held] * rows) if rows else held.slice(1), path, compression="none")
    expected = nullcontext() if rows == 1 else pytest.raises(IncompleteError, match=f"holds {rows} rows?")
    with expected:
        lake.verify(manifest)


def test_a_manifest_that_cannot_be_written_is_named_without_its_path(lake: Lake) -> None:
    blocked = Path(lake.absolute("_manifests"))
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file where the folder should be")
    with pytest.raises(
        IncompleteError, match=r"^The lake could not be written \((Not a directory|File exists)\)"
    ):
        published(lake, LINE)


def test_publishing_twice_is_publishing_once(lake: Lake) -> None:
    manifest = published(lake, LINE)
    lake.publish(manifest)
    assert list(lake.manifests()) == [manifest]


def test_manifests_come_oldest_first(lake: Lake) -> None:
    newer = publish(writer(lake, "a"), created_at=datetime(2026, 3, 12, tzinfo=UTC))
    older = publish(writer(lake, "b"), created_at=datetime(2026, 3, 11, tzinfo=UTC))
    assert list(lake.manifests()) == [older, newer]


def test_a_writer_without_rows_publishes_a_manifest_without_files(lake: Lake) -> None:
    assert publish(writer(lake)).files == ()
    assert parquet_files(lake) == []


def test_files_lie_by_table_and_day(lake: Lake) -> None:
    published(lake, LINE)
    [path] = parquet_files(lake)
    assert path.relative_to(lake.root).as_posix() == "order_lines/date=2026-03-10/extract-1-0-0.parquet"


def test_files_are_zstd_and_name_table_and_writer_version(lake: Lake) -> None:
    published(lake, LINE)
    file = pq.ParquetFile(parquet_files(lake)[0])
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.schema_arrow.metadata[b"feedamp_table"] == b"order_lines"
    assert file.schema_arrow.metadata[b"feedamp_writer"] == str(WRITER_VERSION).encode()


def test_a_file_tells_the_least_and_greatest_of_keys_and_of_no_other_text(lake: Lake) -> None:
    published(lake, LINE | {"sku": "LAMP"})
    group = pq.read_metadata(parquet_files(lake)[0]).row_group(0)
    told = {
        column.path_in_schema: column.statistics for column in map(group.column, range(group.num_columns))
    }
    assert (told["mp_order_number"].min, told["unit_price"].max) == ("M-1", Decimal("25.5000"))
    assert told["sku"] is None


def test_pandas_reads_decimals_and_zones(lake: Lake) -> None:
    published(lake, LINE)
    frame = pd.read_parquet(parquet_files(lake)[0])
    assert frame["unit_price"][0] == Decimal("25.5000")
    assert frame[RECORDED_AT][0] == pd.Timestamp("2026-03-10T12:00:00Z")
    assert str(frame[RECORDED_AT].dt.tz) == "UTC"


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


def test_batches_hold_rows_of_the_asked_table_only(lake: Lake) -> None:
    manifest = published(lake, LINE)
    assert list(lake.batches(manifest, "shipments")) == []


def test_a_newer_writer_version_is_refused(lake: Lake) -> None:
    manifest = published(lake, LINE)
    newer = msgspec.structs.replace(manifest, writer_version=WRITER_VERSION + 1)
    lake.publish(newer)
    with pytest.raises(ConfigurationError, match="newer version of this package; upgrade first"):
        lake.read_manifest(manifest.path)


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


def test_a_manifest_that_cannot_be_read_back_does_not_count_as_published(lake: Lake) -> None:
    class Forgetful(Lake):
        def publish(self, manifest: Manifest) -> None:
            """Accepts the manifest and stores nothing."""

    opened = writer(Forgetful(lake.root))
    opened.append("order_lines", [LINE])
    with pytest.raises(IncompleteError, match="returns different content"):
        publish(opened)


def test_any_fsspec_store_will_do() -> None:
    lake = Lake("memory://feedamp-lake-test")
    manifest = published(lake, LINE)
    assert [row["mp_line_number"] for rows in lake.batches(manifest, "order_lines") for row in rows] == ["A"]
    assert list(lake.manifests()) == [manifest]


def at_hour(hour: int | None) -> datetime | None:
    return None if hour is None else MOMENT + timedelta(hours=hour)


def sweep_of(since: int | None, until: int | None, seller_id: str = "S1") -> SellerProgress:
    return SellerProgress(
        seller_id=seller_id, complete=until is not None, watermark=at_hour(until), since=at_hour(since)
    )


@pytest.mark.parametrize(
    ("mark", "since", "until", "moved"),
    [
        pytest.param(None, None, 1, 1, id="the first read"),
        pytest.param(1, 1, 2, 2, id="from the watermark"),
        pytest.param(2, 1, 3, 3, id="from before the watermark"),
        pytest.param(1, None, 2, 2, id="from the beginning, though there is a watermark"),
        pytest.param(3, 1, 2, 3, id="an earlier one"),
        pytest.param(3, 3, 2, 2, id="from the watermark, after the clock was set back"),
        pytest.param(4, 3, 2, 4, id="moved on before a clock that was set back"),
        pytest.param(1, 2, 3, 1, id="something lies between"),
        pytest.param(None, 1, 2, None, id="the watermark was removed"),
        pytest.param(1, 1, None, 1, id="incomplete"),
    ],
)
def test_a_sweep_moves_a_watermark_only_from_where_it_began(
    mark: int | None, since: int | None, until: int | None, moved: int | None
) -> None:
    assert sweep_of(since, until).moved(at_hour(mark)) == at_hour(moved)


HOUR = st.one_of(st.none(), st.integers(0, 6))
SWEEP = st.builds(sweep_of, HOUR, HOUR, st.sampled_from(["S1", "S2"]))
SWEEPS = st.lists(
    SWEEP.filter(lambda s: not s.since or not s.watermark or s.since <= s.watermark), max_size=6
)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.data())
def test_sweeps_that_follow_one_another_are_joined_into_one(hours: list[int], data: st.DataObject) -> None:
    hours = sorted(hours)
    begin = data.draw(st.sampled_from([None, hours[0]]))
    sweeps = [sweep_of(a, b) for a, b in zip([begin, *hours], hours, strict=False)]
    assert joined(sweeps) == [sweep_of(begin, hours[-1])]


def moved_by(sweeps: list[SellerProgress], mark: datetime | None, *, times: int = 1) -> datetime | None:
    for sweep in sweeps * times:
        mark = sweep.moved(mark)
    return mark


@given(SWEEPS, HOUR)
def test_joined_sweeps_move_a_watermark_as_far_as_single_ones_and_over_no_gap(
    sweeps: list[SellerProgress], start: int | None
) -> None:
    for seller_id in ("S1", "S2"):
        single = [sweep for sweep in sweeps if sweep.seller_id == seller_id]
        least, most = moved_by(single, at_hour(start)), moved_by(single, at_hour(start), times=len(single))
        reached = moved_by([s for s in joined(sweeps) if s.seller_id == seller_id], at_hour(start))
        never = MOMENT - timedelta(hours=1)
        assert (least or never) <= (reached or never) <= (most or never)


def test_a_sweep_that_goes_back_is_not_joined() -> None:
    sweeps = [sweep_of(None, 3), sweep_of(3, 2), sweep_of(2, 4), sweep_of(4, 5)]
    assert joined(sweeps) == [*sweeps[:2], sweep_of(2, 5)]
    assert [moved_by(joined(sweeps[:count]), None) for count in (1, 2, 4)] == [at_hour(h) for h in (3, 2, 5)]


def test_sweeps_of_two_accounts_of_one_seller_are_not_joined() -> None:
    first, second = (
        SellerProgress(
            seller_id="S1", complete=True, watermark=MOMENT, account_checked_at=MOMENT + timedelta(hours=at)
        )
        for at in (0, 1)
    )
    assert joined([first, second]) == [first, second]


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "orders/../../x", "orders//x", ""])
@pytest.mark.parametrize("field", ["files", "replaces", "path"])
def test_a_manifest_names_only_files_inside_the_lake(lake: Lake, path: str, field: str) -> None:
    manifest = published(lake, LINE)
    other = {"files": (LakeFile("orders", path, 1),), "replaces": (path,), "path": path}[field]
    changed = msgspec.structs.replace(manifest, **{field: other})
    Path(lake.absolute(manifest.path)).write_bytes(msgspec.json.encode(changed))
    with pytest.raises(IncompleteError, match="names a file outside of the lake"):
        lake.read_manifest(manifest.path)
