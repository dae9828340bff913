"""Parquet files count once their manifest is published, and any Parquet reader can read them."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_files import LINE, MOMENT, parquet_files, publish, published, writer

from feedamp.errors import ConfigurationError, IncompleteError
from feedamp.lake.manifest import LakeFile, Manifest, SellerProgress
from feedamp.lake.store import Lake
from feedamp.tables import RECORDED_AT, WRITER_VERSION


def test_nothing_counts_before_the_manifest_is_published(lake: Lake) -> None:
    opened = writer(lake)
    opened.append("order_lines", [LINE])
    opened.close()
    assert parquet_files(lake)
    assert list(lake.manifests()) == []
    assert lake.read_manifest(opened.manifest_path) is None


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


@pytest.mark.parametrize(
    "folder", ["", "_manifests", "_manifests/date=2026-03-10", "order_lines/date=2026-03-10"]
)
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(folder: str, lake: Lake) -> None:
    published(lake, LINE)
    script = f"""
from feedamp.lake.store import Lake
lake = Lake({lake.root!r})
for listed in (lake.is_empty, lake.published, lambda: [*lake.drafts()], lambda: [*lake.table_files()]):
    try:
        print(listed() and "files")
    except PermissionError as error:
        print(error.strerror)
"""
    at = Path(lake.root, folder)
    at.chmod(0)
    try:
        # root may read anywhere
        obeying = ["setpriv", "--bounding-set", "-all"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*obeying, sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
    finally:
        at.chmod(0o755)
    of_manifests = ["False", "files", "[]"] if "order_lines" in folder else ["Permission denied"] * 3
    of_tables = "files" if "_manifests" in folder else "Permission denied"
    assert done.stdout.splitlines() == [*of_manifests, of_tables]


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


def test_batches_hold_rows_of_the_asked_table_only(lake: Lake) -> None:
    manifest = published(lake, LINE)
    assert list(lake.batches(manifest, "shipments")) == []


def test_a_newer_writer_version_is_refused(lake: Lake) -> None:
    manifest = published(lake, LINE)
    newer = msgspec.structs.replace(manifest, writer_version=WRITER_VERSION + 1)
    lake.publish(newer)
    with pytest.raises(ConfigurationError, match="newer version of this package; upgrade first"):
        lake.read_manifest(manifest.path)


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


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "orders/../../x", "orders//x", ""])
@pytest.mark.parametrize("field", ["files", "replaces", "path"])
def test_a_manifest_names_only_files_inside_the_lake(lake: Lake, path: str, field: str) -> None:
    manifest = published(lake, LINE)
    other = {"files": (LakeFile("orders", path, 1),), "replaces": (path,), "path": path}[field]
    changed = msgspec.structs.replace(manifest, **{field: other})
    Path(lake.absolute(manifest.path)).write_bytes(msgspec.json.encode(changed))
    with pytest.raises(IncompleteError, match="names a file outside of the lake"):
        lake.read_manifest(manifest.path)
