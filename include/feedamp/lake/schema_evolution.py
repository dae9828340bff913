"""Reads lake files of any earlier version with today's columns: one that a file lacks is null.

Files are streamed, a few thousand rows at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from feedamp.errors import IncompleteError
from feedamp.lake.erasing import NUMBER, SELLER, without_erased
from feedamp.lake.manifest import Manifest, refuse_miscount, rows_by_table
from feedamp.lake.store import Lake
from feedamp.progress import Progress
from feedamp.rules.failure_summary import counted
from feedamp.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_READ_AT_ONCE = 5_000


class LakeFiles:
    """The files of one manifest as record batches, without rows that were erased.

    `failure` is the original error of a file, which an engine that reads the batches hides behind its own error.
    `taken` counts the rows read from each table for which a reader was requested, `left_out` those of them that were erased.
    """

    def __init__(self, lake: Lake, manifest: Manifest) -> None:
        self._lake = lake
        self._manifest = manifest
        self.failure: Exception | None = None
        self.taken: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        # Asked where the engine's lock is held: an erasure after it finds in the warehouse what is loaded now.
        self._erased = lake.erased()
        self._progress = Progress(
            f"manifest {manifest.path}", "rows", sum(file.rows for file in manifest.files)
        )

    def __contains__(self, table: str) -> bool:
        return any(file.table == table for file in self._manifest.files)

    def reader(self, table: Table) -> pa.RecordBatchReader:
        """All rows of a table in the schema `Table.lake_schema`; can be read once."""
        import pyarrow as pa

        self.taken[table.name] = 0
        return pa.RecordBatchReader.from_batches(table.lake_schema, self.batches(table))

    def refuse_rest(self) -> None:
        """Raises an IncompleteError if not all rows that the manifest names were read from the readers."""
        named = rows_by_table([self._manifest])
        for table, taken in self.taken.items():
            if taken != named[table]:
                raise IncompleteError(
                    f"The manifest names {counted(named[table], 'row')} of {table}, but {taken} were read."
                )

    def batches(self, table: Table) -> Iterator[pa.RecordBatch]:
        """All rows of a table in the schema `Table.lake_schema`; raises as `Lake.record_batches`."""
        try:
            for file in self._manifest.files:
                if file.table == table.name:
                    read = 0
                    named = list(dict.fromkeys((*table.lake_schema.names, SELLER, NUMBER)))
                    for batch in self._lake.record_batches(file, rows=ROWS_READ_AT_ONCE, columns=named):
                        kept = without_erased(batch, self._erased, table.name)
                        self.left_out[table.name] += batch.num_rows - kept.num_rows
                        yield as_declared(kept, table)
                        read += batch.num_rows
                        self.taken[table.name] += batch.num_rows
                        self._progress.add(batch.num_rows)
                    refuse_miscount(file, read)
        except Exception as error:
            self.failure = error
            raise


def as_declared(batch: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """The rows in the schema `Table.lake_schema`: columns that the file lacks are null, others are left out."""
    import pyarrow as pa

    schema = table.lake_schema
    if batch.schema.equals(schema):
        return batch
    there = set(batch.schema.names)
    arrays = [
        batch.column(name).cast(kind) if name in there else pa.nulls(len(batch), kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
