"""A lake in a bucket: each manifest is complete or absent after any crash, and the lake equals one in a folder."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from manifests import T0, Loader, closure, finding, order, placed, snapshot
from object_store import KEYS, ObjectStore

from feedamp import storage as storage_module
from feedamp.errors import ConfigurationError, IncompleteError, TransientError
from feedamp.lake.manifest import Manifest
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.tables import FINDINGS, ORDER_LINES, ORDERS, RECORDED_AT
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.newest_rows import newest_rows

HISTORY = (
    placed(0),
    snapshot(order(1), 1),
    snapshot(order(1, 1), 2) | finding(2, "to_report"),
    snapshot(order(2, cancelled=1), 3) | finding(3, "resolved"),
    closure(4),
)


def published(lake: Lake, rows: list[dict[str, Any]], slug: str = "extract-1") -> Manifest:
    writer = LakeWriter(lake, slug, 0, day=T0.date(), privacy=Privacy(None))
    writer.append("order_lines", rows)
    return writer.publish(created_at=T0, dag_id="d", run_id="r")


def line(number: int = 1, text: str = "") -> dict[str, Any]:
    key = {"seller_id": "S1", "mp_order_number": f"M-{number}", "mp_line_number": "A"}
    return {**key, "sku": text, RECORDED_AT: T0}


def test_the_warehouse_from_a_bucket_is_that_from_a_folder(s3: ObjectStore, tmp_path: Path) -> None:
    with closing(Loader(tmp_path)) as near, closing(Loader(tmp_path)) as far:
        far.lake = Lake(s3.storage())
        for rows in HISTORY:
            near.load(rows)
            far.load(rows)
        assert far.tables() == near.tables()
        for table in (ORDERS, ORDER_LINES, FINDINGS):
            rows, others = (
                newest_rows(
                    one.lake, table, table.names, "SELECT * FROM newest ORDER BY ALL", memory_limit="100MB"
                )
                for one in (near, far)
            )
            assert rows.num_rows
            assert rows == others
        warehouse = DuckDbWarehouse(str(tmp_path / "rebuilt.duckdb"), lock_wait_s=0.0)
        assert warehouse.rebuild(far.lake) == len(HISTORY)
        with closing(duckdb.connect(str(warehouse.path), read_only=True)) as rebuilt:
            rebuilt.execute("SET TimeZone = 'UTC'")
            tables = {
                name: sorted(map(repr, rebuilt.execute(f"FROM feedamp.{name}").fetchall()))
                for name in near.tables()
            }
        assert tables == near.tables()
    assert {path.name for path in tmp_path.iterdir()} == {"lake", "rebuilt.duckdb", "rebuilt.duckdb.lock"}


def test_publishing_puts_each_object_under_its_final_name(s3: ObjectStore) -> None:
    manifest = published(Lake(s3.storage()), [line()])
    assert s3.names() == [f"lake/{manifest.path}", f"lake/{manifest.files[0].path}"]


def test_a_manifest_is_seen_at_once_by_a_reader_that_has_looked_before(s3: ObjectStore) -> None:
    reader = Lake(s3.storage(use_listings_cache=True))
    published(Lake(s3.storage()), [line()])
    assert len(list(reader.manifests())) == 1
    published(Lake(s3.storage()), [line()], "extract-2")
    assert len(list(reader.manifests())) == 2


def test_a_file_of_many_pieces_is_read_back_whole(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "BLOCK_BYTES", 5 << 20)  # the smallest that S3 takes
    lake = Lake(s3.storage())
    noise = random.Random(1)
    rows = [line(number, noise.randbytes(600).hex()) for number in range(20_000)]
    manifest = published(lake, rows)
    [info] = [s3.fs().info(lake.absolute(file.path)) for file in manifest.files]
    assert info["size"] > 2 * (5 << 20)
    assert "-" in info["ETag"]  # S3's sign of an object that came in pieces
    read = [row["sku"] for batch in lake.batches(manifest, "order_lines") for row in batch]
    assert read == [row["sku"] for row in rows]


def test_a_writer_killed_between_two_pieces_leaves_nothing_to_read(s3: ObjectStore) -> None:
    lake = Lake(s3.storage())
    whole = published(lake, [line()], "extract-0")
    script = f"""
import random, time
from datetime import UTC, date, datetime
from s3fs import S3FileSystem
from feedamp import storage
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
storage.BLOCK_BYTES = 5 << 20
fs = S3FileSystem(key="a", secret="b", endpoint_url={s3.endpoint!r})
lake = Lake(storage.Storage("lake_url", "s3://", fs, "{s3.bucket}/lake"))
writer = LakeWriter(lake, "extract-1", 0, day=date(2026, 3, 10), privacy=Privacy(None))
row = {{"seller_id": "S1", "mp_order_number": "M", "mp_line_number": "A", "recorded_at": datetime.now(UTC)}}
while True:
    writer.append("order_lines", [row | {{"sku": random.randbytes(600).hex()}} for _ in range(10_000)])
    print("more", flush=True)
"""
    include = str(Path(storage_module.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": include, "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        give_up_at = time.monotonic() + 60
        while not s3.unfinished_uploads():
            assert time.monotonic() < give_up_at
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert s3.unfinished_uploads() == 1
    assert s3.names() == [f"lake/{whole.path}", f"lake/{whole.files[0].path}"]
    assert list(lake.manifests()) == [whole]


def test_parts_without_a_manifest_do_not_count(s3: ObjectStore, tmp_path: Path) -> None:
    lake = Lake(s3.storage())
    writer = LakeWriter(lake, "extract-1", 0, day=T0.date(), privacy=Privacy(None))
    writer.append("order_lines", [line()])
    writer.close()
    assert len(s3.names()) == 1
    assert list(lake.manifests()) == []
    assert lake.read_manifest(writer.manifest_path) is None


def test_a_lake_with_a_hole_leaves_the_warehouse_alone(s3: ObjectStore, tmp_path: Path) -> None:
    lake = Lake(s3.storage())
    writer = LakeWriter(lake, "extract-1", 0, day=T0.date(), privacy=Privacy(None))
    for table, rows in snapshot(order(1), 1).items():
        writer.append(table, rows)
    manifest = writer.publish(created_at=T0, dag_id="d", run_id="r")
    [shipments] = [file.path for file in manifest.files if file.table == "shipments"]
    lake.fs.rm_file(lake.absolute(shipments))
    with pytest.raises(IncompleteError, match="was not changed"):
        DuckDbWarehouse(str(tmp_path / "w.duckdb"), lock_wait_s=0.0).rebuild(lake)


@pytest.mark.parametrize("act", ["publish", "list", "read"])
def test_a_missing_bucket_is_an_error_and_never_made(s3: ObjectStore, act: str) -> None:
    lake = Lake(s3.storage(bucket="nowhere"))
    acts = {
        "publish": lambda: published(lake, [line()]),
        "list": lambda: list(lake.manifests()),
        "read": lambda: lake.read_manifest("_manifests/date=2026-03-10/a.json"),
    }
    with pytest.raises(ConfigurationError, match=r"lake_url: there is no bucket nowhere"):
        acts[act]()
    assert not s3.fs().exists("nowhere")


@pytest.mark.parametrize("act", ["publish", "list", "read"])
def test_refused_keys_are_an_error_without_the_keys(s3: ObjectStore, act: str) -> None:
    lake = Lake(s3.storage())
    acts = {
        "publish": lambda: published(lake, [line()]),
        "list": lambda: list(lake.manifests()),
        "read": lambda: lake.read_manifest("_manifests/date=2026-03-10/a.json"),
    }
    with s3.refusing(), pytest.raises(ConfigurationError, match=r"lake_url: .*access denied") as caught:
        acts[act]()
    assert not any(secret in str(caught.value) for secret in KEYS.values())


def test_a_server_that_is_away_is_worth_another_try() -> None:
    from s3fs import S3FileSystem

    fs = S3FileSystem(
        key="a", secret="b", endpoint_url="http://127.0.0.1:1", config_kwargs={"retries": {"max_attempts": 1}}
    )
    lake = Lake(storage_module.Storage("lake_url", "s3://b/lake", fs, "b/lake"))
    with pytest.raises(TransientError, match=r"lake_url: .*could not be reached"):
        list(lake.manifests())
