"""Writes rows into Parquet files, one per table, and publishes them together with one manifest."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feedamp.errors import FeedAmpError, IncompleteError
from feedamp.lake.erasing import SELLER, rows_without_erased, without_erased
from feedamp.lake.flatten import OrderColumns
from feedamp.lake.manifest import LakeFile, Manifest, SellerProgress
from feedamp.lake.privacy import Privacy
from feedamp.lake.rewriting import rewritten
from feedamp.lake.store import Lake, file_path, manifest_path, not_written
from feedamp.rules.failure_summary import counted
from feedamp.tables import LAKE_TABLES, ORDERS, SNAPSHOT_HASH, Row, refuse_misfits

ROWS_PER_GROUP = 10_000
ROWS_FOR_DICTIONARIES = 5_000
# A dictionary of these would hold each value, and makes a file larger after zstd.
HARDLY_REPEATED = frozenset(
    ("mp_order_number", "mp_line_number", SNAPSHOT_HASH, "snapshot", "tracking_number", "tracking_url")
)
# Pending dicts are converted to Arrow this often: until the row group is full, Arrow needs a tenth of the memory.
ROWS_PER_BATCH = 250
# So many small batches are joined: each array that Arrow holds takes some hundred bytes beside its values.
LOOSE_BATCHES = 64
# Sooner if the rows are large, so that memory does not grow with what an order may hold.
TEXT_PER_BATCH, BYTES_PER_GROUP = 16 << 20, 64 << 20
# Of tables whose row groups are full at once, one is written, and the others with the next orders, so that no page waits for all.
# Such a group may be larger by this share.
GROUP_MAY_WAIT = 0.2


class LakeWriter:
    """Streams rows into one Parquet file per table; nothing is valid before `publish`.

    It counts the appended rows, and publishes only files with exactly as many. After any failure it is broken: earlier
    rows may be lost too, so it accepts and publishes nothing more, and the caller must start again from the beginning.

    Rows of orders and sellers that were erased are left out, and counted as `left_out`. `part` is in the names of its files.
    """

    def __init__(
        self, lake: Lake, slug: str, shard: int, day: date, privacy: Privacy, *, part: int = 0
    ) -> None:
        self._lake = lake
        self._erased = lake.erased()
        self._name = f"{slug}-{shard}"
        self._day = day
        self._part = part
        self._privacy = privacy
        self._pending: dict[str, list[Row]] = {}
        self._pending_text = Counter[str]()
        self._groups: dict[str, _Group] = {}
        self._open: dict[str, tuple[str, _HashedFile, pq.ParquetWriter]] = {}
        self._failure: Exception | None = None
        self._is_closed = False
        self.appended: Counter[str] = Counter()
        self.left_out = 0
        self.manifest_path = manifest_path(day, self._name)

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """Appends rows of one table, as `append_all`."""
        self.append_all({table: list(rows)})

    def append_all(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Appends rows of several tables, all or none; at most one row group per table is held in memory.

        Raises:
            MisfitError: a row does not fit its table; none of these rows was appended, and others may follow.
            IncompleteError: the writer is broken; nothing it wrote will be published.
        """
        self._refuse_if_broken()
        kept = {table: rows_without_erased(some, self._erased, table) for table, some in rows.items()}
        self.left_out += sum(map(len, rows.values())) - sum(map(len, kept.values()))
        hidden = {table: [self._privacy.hide(table, row) for row in some] for table, some in kept.items()}
        for table, some in hidden.items():
            refuse_misfits(table, some)
        with self._breaking():
            for table, some in hidden.items():
                self._pending.setdefault(table, []).extend(some)
                self.appended[table] += len(some)
                self._pending_text[table] += sum(
                    len(value) for row in some for value in row.values() if isinstance(value, str)
                )
                is_full = self._pending_text[table] >= TEXT_PER_BATCH
                if is_full or len(self._pending[table]) >= min(ROWS_PER_BATCH, ROWS_PER_GROUP):
                    self._pack(table)

    def append_columns(self, found: OrderColumns) -> None:
        """Appends rows of orders, all or none, as `append_all`; they are checked by column.

        Raises:
            MisfitError: a row does not fit its table; `append_all` says which.
            IncompleteError: the writer is broken; nothing it wrote will be published.
        """
        self._refuse_if_broken()
        key = found.key
        batches = {ORDERS.name: self._batch(ORDERS.name, key | found.tables[ORDERS.name], len(key[SELLER]))}
        # As they are in the batch: hidden, and each made once.
        shared = {name: batches[ORDERS.name].column(name) for name in key}
        for table, columns in found.tables.items():
            of = found.orders_of.get(table)
            if of:
                positions = pa.array(of, pa.int32())
                of_rows = {name: values.take(positions) for name, values in shared.items()}
                batches[table] = self._batch(table, {**of_rows, **columns}, len(of))
            elif of is None and table != ORDERS.name:
                batches[table] = self._batch(table, {**shared, **columns}, len(key[SELLER]))
        kept = {table: without_erased(batch, self._erased, table) for table, batch in batches.items()}
        with self._breaking():
            for table, batch in kept.items():
                self.left_out += batches[table].num_rows - batch.num_rows
                if batch.num_rows:
                    self.appended[table] += batch.num_rows
                    self._add(table, batch, more=int(ROWS_PER_GROUP * GROUP_MAY_WAIT))
            full = [table for table, group in self._groups.items() if group.rows >= ROWS_PER_GROUP]
            if full:
                self._flush(max(full, key=lambda table: self._groups[table].rows))

    def _batch(self, table: str, columns: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        return LAKE_TABLES[table].batch(self._privacy.hide_columns(table, columns), rows)

    def copy(self, table: str, batches: Iterable[pa.RecordBatch]) -> None:
        """Appends rows that were in the lake before, as they are; IncompleteError if `batches` could not be read."""
        self._refuse_if_broken()
        with self._breaking():
            for batch in batches:
                self.appended[table] += batch.num_rows
                self._add(table, batch)

    def publish(
        self,
        *,
        created_at: datetime,
        dag_id: str,
        run_id: str,
        sweeps: Sequence[SellerProgress] = (),
        follows: Sequence[str] = (),
        replaces: Sequence[str] = (),
        compacted_at: datetime | None = None,
        full_snapshots: Mapping[str, datetime] = MappingProxyType({}),
    ) -> Manifest:
        """Closes the files, reads back what they hold, and publishes the manifest.

        What was erased since the rows were appended is taken out first. So the manifest must be announced before: either
        this sees the mark of an erasure, or the erasure sees that a manifest is on its way, and waits for it.

        Raises:
            IncompleteError: the files do not hold what was appended, or the manifest cannot be read back.
        """
        manifest = Manifest(
            path=self.manifest_path,
            created_at=created_at,
            dag_id=dag_id,
            run_id=run_id,
            files=self._without_erased_since(self.files()),
            sweeps=tuple(sweep for sweep in sweeps if not self._erased.has_seller(sweep.seller_id)),
            follows=tuple(follows),
            replaces=tuple(replaces),
            compacted_at=compacted_at,
            full_snapshots=dict(full_snapshots),
        )
        self._lake.publish(manifest)
        if self._lake.read_manifest(manifest.path) != manifest:
            raise IncompleteError(
                f"{manifest.path} was published, but the store returns different content; the store is at fault."
            )
        return manifest

    def files(self) -> tuple[LakeFile, ...]:
        """Closes the files and returns them; IncompleteError if the store does not hold all rows that were appended."""
        self.close()
        files = tuple(
            LakeFile(table, self._open[table][0], rows, self._open[table][1].sha256.hexdigest())
            if table in self._open
            else LakeFile(table, "", rows)
            for table, rows in self.appended.items()
            if rows
        )
        for file in files:
            stored = self._lake.rows_in(file) if file.path else 0
            if stored != file.rows:
                raise IncompleteError(
                    f"{counted(file.rows, 'row', 'were')} to be written of {file.table}, but {file.path or 'no file'} holds "
                    f"{stored}. None of them is published; the next try writes them again."
                )
        return files

    def _without_erased_since(self, files: tuple[LakeFile, ...]) -> tuple[LakeFile, ...]:
        erased = self._lake.erased()
        if erased.marks == self._erased.marks:
            return files
        kept = rewritten(self._lake, files, erased, self._next_part)
        self._erased = erased
        for path in {file.path for file in files} - {file.path for file in kept}:
            self._lake.remove(path)  # no manifest names it
        return tuple(kept)

    def _next_part(self, file: LakeFile, part: int) -> "LakeWriter":
        slug, _, shard = self._name.rpartition("-")
        return LakeWriter(self._lake, slug, int(shard), self._day, Privacy(None), part=part)

    def close(self) -> None:
        """Closes all files; without a manifest they are leftovers. Safe to repeat."""
        self._refuse_if_broken()
        if self._is_closed:
            return
        with self._breaking():
            self._leave_out_erased_since()
            for table in list(self._pending):
                self._pack(table)
            for table in list(self._groups):  # a table whose last row filled a batch has nothing pending
                self._flush(table)
            with self._lake.storage.reached():
                for _, handle, writer in self._open.values():
                    writer.close()
                    handle.close()
        self._is_closed = True

    def _leave_out_erased_since(self) -> None:
        """Takes out of memory what was erased since, so that not even a file that is never published has it.

        What is in a file by now, or in an upload that is not completed yet, `publish` takes out.
        """
        if not self._pending and not self._groups:
            return
        erased = self._lake.erased()
        if erased.marks == self._erased.marks:
            return
        gone: Counter[str] = Counter()
        for table, rows in self._pending.items():
            self._pending[table] = rows_without_erased(rows, erased, table)
            gone[table] += len(rows) - len(self._pending[table])
        for table, group in list(self._groups.items()):
            kept = [without_erased(batch, erased, table) for batch in group.batches]
            gone[table] += group.rows - sum(batch.num_rows for batch in kept)
            group.batches = [batch for batch in kept if batch.num_rows]
            if not group.batches:
                del self._groups[table]
        self.appended.subtract(gone)
        self.left_out += gone.total()

    def _refuse_if_broken(self) -> None:
        if self._failure is not None:
            raise not_written(self._failure) from self._failure

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """Any failure in this block breaks the writer: it may affect rows of earlier calls."""
        try:
            yield
        except FeedAmpError as error:
            self._failure = error
            raise
        except Exception as error:
            self._failure = error
            raise not_written(error) from error

    def _pack(self, table: str) -> None:
        rows = self._pending[table]
        if rows:
            self._pending[table] = []
            self._pending_text[table] = 0
            self._add(table, pa.RecordBatch.from_pylist(rows, schema=LAKE_TABLES[table].lake_schema))

    def _add(self, table: str, batch: pa.RecordBatch, *, more: int = 0) -> None:
        group = self._groups.setdefault(table, _Group())
        group.add(batch)
        if group.nbytes >= BYTES_PER_GROUP or group.rows >= ROWS_PER_GROUP + more:
            self._flush(table)

    def _flush(self, table: str) -> None:
        if table not in self._groups:
            return
        group = pa.Table.from_batches(self._groups.pop(table).batches)
        with self._lake.storage.reached():
            if table not in self._open:
                path = file_path(table, self._day, self._name, self._part)
                target = self._lake.absolute(path)
                self._lake.prepare(target)
                handle = _HashedFile(self._lake.fs.open(target, "wb", **self._lake.storage.open_options))
                # In a short file a dictionary makes no column smaller after zstd: one page more to write and to read.
                is_long = group.num_rows >= ROWS_FOR_DICTIONARIES
                repeating = [name for name in group.schema.names if name not in HARDLY_REPEATED]
                # To find the least and greatest texts takes an eighth of the time of a file. Erasures look at those of keys.
                compared = [
                    field.name
                    for field in group.schema
                    if field.name in ORDERS.key or not pa.types.is_string(field.type)
                ]
                writer = pq.ParquetWriter(
                    handle,
                    group.schema,
                    compression="zstd",
                    use_dictionary=repeating if is_long else False,
                    write_statistics=compared,
                )
                self._open[table] = (path, handle, writer)
            self._open[table][2].write_table(group)


class _HashedFile:
    """Writes through to an open file; `sha256` is of all bytes written so far."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self._file.write(data)  # an SFTP file does not say how much
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Group:
    """Record batches that will be one row group."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.rows = self.nbytes = self._loose = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.rows += batch.num_rows
        # To add up `nbytes` of many small arrays takes longer than to make them.
        is_small = batch.num_rows < ROWS_PER_BATCH
        self.nbytes += batch.get_total_buffer_size() if is_small else batch.nbytes
        self._loose += 1
        if self._loose >= LOOSE_BATCHES:
            loose = pa.Table.from_batches(self.batches[-LOOSE_BATCHES:])
            self.batches[-LOOSE_BATCHES:] = loose.combine_chunks().to_batches()
            self._loose = 0
