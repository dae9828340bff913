"""Parquet on any fsspec store. What counts is the manifest, written last and whole.

`<lake_url>/<table>/date=YYYY-MM-DD/<slug>-<shard>-<part>.parquet`, zstd; `<lake_url>/_manifests/date=…/<slug>-<shard>.json`
names the files that belong together. Files without a manifest are leftovers of a killed task and never read.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from feedamp.errors import ConfigurationError
from feedamp.flatten import Privacy, Row
from feedamp.tables import LAKE_TABLES, WRITER_VERSION

ROWS_PER_GROUP = 10_000
# Rows are dicts only for so long: as Arrow they take a tenth of the memory until their group is full.
ROWS_PER_BATCH = 250
MANIFESTS = "_manifests"


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """One seller's part of an extraction; `watermark` is where the next one starts, None to leave it."""

    seller_id: str
    complete: bool
    watermark: datetime | None = None


class LakeFile(msgspec.Struct, frozen=True):
    """One Parquet file, its path relative to the lake."""

    table: str
    path: str
    rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What one writer published together."""

    path: str
    created_at: datetime
    dag_id: str
    run_id: str
    files: tuple[LakeFile, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    writer_version: int = WRITER_VERSION


class Lake:
    """The lake below one fsspec URL."""

    def __init__(self, url: str, *, storage_options: dict[str, Any] | None = None) -> None:
        try:
            self.fs, root = url_to_fs(url, **(storage_options or {}))
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"lake_url names a store that cannot be used: {error}") from error
        self.root = str(root).rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def absolute(self, path: str) -> str:
        """Where a relative path lies on the store."""
        return f"{self.root}/{path}"

    def writer(self, slug: str, shard: int, *, day: date, privacy: Privacy) -> LakeWriter:
        """A writer for one task's rows; `slug` must be new for every try of every run."""
        return LakeWriter(self, slug, shard, day, privacy)

    def publish(self, manifest: Manifest) -> None:
        """Makes the manifest's files count, all at once. Safe to repeat: the same manifest is written again."""
        data = msgspec.json.encode(manifest)
        target = self.absolute(manifest.path)
        self.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
        if self.is_local:
            draft = f"{PurePosixPath(target).parent}/.{uuid.uuid4().hex}"
            self.fs.pipe_file(draft, data)
            self.fs.mv(draft, target)
        else:  # a put to an object store is whole or absent
            self.fs.pipe_file(target, data)

    def read_manifest(self, path: str) -> Manifest | None:
        """The manifest, or None if it was never published.

        Raises:
            ConfigurationError: a newer version of this package wrote it.
        """
        try:
            data = self.fs.cat_file(self.absolute(path))
        except FileNotFoundError:
            return None
        manifest = msgspec.json.decode(data, type=Manifest)
        if manifest.writer_version > WRITER_VERSION:
            raise ConfigurationError(f"{path} was written by a newer version of this package; upgrade first.")
        return manifest

    def manifests(self) -> Iterator[Manifest]:
        """Every published manifest, oldest first."""
        folder = self.absolute(MANIFESTS)
        if not self.fs.exists(folder):
            return
        found = [p for p in self.fs.find(folder) if p.endswith(".json") and "/." not in p]
        read = [self.read_manifest(path[len(self.root) + 1 :]) for path in found]
        yield from sorted((m for m in read if m), key=lambda m: (m.created_at, m.path))

    def batches(self, manifest: Manifest, table: str, *, rows: int = 1_000) -> Iterator[list[Row]]:
        """Rows of one table of a manifest, a few at a time."""
        for file in manifest.files:
            if file.table == table:
                with self.fs.open(self.absolute(file.path), "rb") as handle:
                    for batch in pq.ParquetFile(handle).iter_batches(batch_size=rows):
                        yield batch.to_pylist()


class LakeWriter:
    """Streams rows into one Parquet file per table; nothing counts before `publish`."""

    def __init__(self, lake: Lake, slug: str, shard: int, day: date, privacy: Privacy) -> None:
        self._lake = lake
        self._name = f"{slug}-{shard}"
        self._day = f"date={day:%Y-%m-%d}"
        self._privacy = privacy
        self._pending: dict[str, list[Row]] = {}
        self._batches: dict[str, list[pa.RecordBatch]] = {}
        self._open: dict[str, tuple[str, Any, pq.ParquetWriter]] = {}
        self._rows: dict[str, int] = {}
        self.manifest_path = f"{MANIFESTS}/{self._day}/{self._name}.json"

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """Takes rows of a table; holds at most one row group of each in memory."""
        pending = self._pending.setdefault(table, [])
        pending.extend(self._privacy.hide(table, row) for row in rows)
        if len(pending) >= min(ROWS_PER_BATCH, ROWS_PER_GROUP):
            self._pack(table)

    def publish(
        self,
        *,
        created_at: datetime,
        dag_id: str,
        run_id: str,
        sweeps: Sequence[Sweep] = (),
    ) -> Manifest:
        """Closes the files and publishes the manifest."""
        self.close()
        files = tuple(LakeFile(table, path, self._rows[table]) for table, (path, _, _) in self._open.items())
        manifest = Manifest(
            path=self.manifest_path,
            created_at=created_at,
            dag_id=dag_id,
            run_id=run_id,
            files=files,
            sweeps=tuple(sweeps),
        )
        self._lake.publish(manifest)
        return manifest

    def close(self) -> None:
        """Ends all files; without a manifest they are leftovers."""
        for table in list(self._pending):
            self._pack(table)
            self._flush(table)
        for _, handle, writer in self._open.values():
            writer.close()
            handle.close()

    def _pack(self, table: str) -> None:
        """Turns the pending rows into a batch of Arrow, and a group's worth of batches into a row group."""
        rows = self._pending.pop(table, [])
        if not rows:
            return
        batches = self._batches.setdefault(table, [])
        batches.append(pa.RecordBatch.from_pylist(rows, schema=LAKE_TABLES[table].lake_schema))
        if sum(batch.num_rows for batch in batches) >= ROWS_PER_GROUP:
            self._flush(table)

    def _flush(self, table: str) -> None:
        batches = self._batches.pop(table, [])
        if not batches:
            return
        if table not in self._open:
            path = f"{table}/{self._day}/{self._name}-0.parquet"
            target = self._lake.absolute(path)
            self._lake.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
            handle = self._lake.fs.open(target, "wb")
            schema = LAKE_TABLES[table].lake_schema
            self._open[table] = (path, handle, pq.ParquetWriter(handle, schema, compression="zstd"))
            self._rows[table] = 0
        group = pa.Table.from_batches(batches)
        self._open[table][2].write_table(group)
        self._rows[table] += group.num_rows
