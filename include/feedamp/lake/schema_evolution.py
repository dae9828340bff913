"""Reads lake files of any earlier version with today's columns.

A column that a file lacks is null, or is read from `extra` if the field was stored there before it had a column; a
narrower type is widened. Files are streamed, a few thousand rows at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from feedamp.errors import IncompleteError
from feedamp.lake.manifest import Manifest, refuse_miscount, rows_by_table
from feedamp.lake.store import Lake
from feedamp.tables import EXTRA, Column, Table, Type

ROWS_READ_AT_ONCE = 5_000
_JSON = msgspec.json.Decoder(float_hook=Decimal)
_TO_JSON = msgspec.json.Encoder(decimal_format="number")
_PYTHON: dict[Type, Any] = {
    Type.INTEGER: int,
    Type.BOOLEAN: bool,
    Type.MONEY: Decimal,
    Type.NUMBER: float,
    Type.TIMESTAMP: datetime,
    Type.DATE: date,
}


class LakeFiles:
    """The files of one manifest as record batches.

    `failure` is the original error of a file, which an engine that reads the batches hides behind its own error.
    `taken` counts the rows read from each table for which a reader was requested.
    """

    def __init__(self, lake: Lake, manifest: Manifest) -> None:
        self._lake = lake
        self._manifest = manifest
        self.failure: Exception | None = None
        self.taken: Counter[str] = Counter()

    def __contains__(self, table: str) -> bool:
        return any(file.table == table for file in self._manifest.files)

    def reader(self, table: Table) -> pa.RecordBatchReader:
        """All rows of a table in the schema `Table.lake_schema`; can be read once."""
        self.taken[table.name] = 0
        return pa.RecordBatchReader.from_batches(table.lake_schema, self.batches(table))

    def refuse_rest(self) -> None:
        """Compares, for every table with a reader, the rows that were read with the number in the manifest.

        Raises:
            IncompleteError: rows of a table were not read.
        """
        named = rows_by_table([self._manifest])
        for table, taken in self.taken.items():
            if taken != named[table]:
                raise IncompleteError(
                    f"The manifest names {named[table]} rows of {table}, but {taken} were read."
                )

    def batches(self, table: Table) -> Iterator[pa.RecordBatch]:
        """All rows of a table in the schema `Table.lake_schema`.

        Raises:
            IncompleteError: a file is missing or damaged; earlier rows may have been yielded.
        """
        try:
            for file in self._manifest.files:
                if file.table == table.name:
                    read = 0
                    for batch in self._lake.record_batches(file, rows=ROWS_READ_AT_ONCE):
                        yield as_declared(batch, table)
                        read += batch.num_rows
                        self.taken[table.name] += batch.num_rows
                    refuse_miscount(file, read)
        except Exception as error:
            self.failure = error
            raise


def as_declared(batch: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """The rows with the columns and types of `Table.lake_schema`; other columns are left out."""
    schema = table.lake_schema
    columns = {column.name: column for column in table.lake_columns}
    arrays = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        column = columns.get(field.name)
        if at >= 0:
            arrays.append(_widened(batch.column(at), field.type))
        elif column is not None and column.from_extra and EXTRA.name in batch.schema.names:
            extras = batch.column(EXTRA.name).to_pylist()
            arrays.append(pa.array([value_in_extra(column, text) for text in extras], field.type))
        else:
            arrays.append(pa.nulls(len(batch), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _widened(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The same values in another type; one that does not fit is an error."""
    if pa.types.is_integer(array.type) and pa.types.is_decimal(wanted):
        # Arrow casts integers only to a decimal type that is wide enough for any integer.
        array = array.cast(pa.decimal128(38, wanted.scale))
    return array.cast(wanted)


def value_in_extra(column: Column, extra: str | None) -> Any:
    """The value of a column that was stored in `extra`; None if it is absent or does not fit the column's type.

    `extra` itself does not change, so a value that does not fit is still there.
    """
    fields = _JSON.decode(extra) if extra else None
    value = fields.get(column.from_extra) if isinstance(fields, dict) else None
    if value is None:
        return None
    if column.type is Type.JSON or (column.type is Type.TEXT and not isinstance(value, str)):
        return _TO_JSON.encode(value).decode()
    if column.type is Type.TEXT:
        return value
    try:
        # Numbers may be stored as text (promise 12); timestamps and dates are never stored as numbers.
        lax = column.type not in (Type.TIMESTAMP, Type.DATE)
        read = msgspec.convert(value, _PYTHON[column.type], strict=not lax)
        if isinstance(read, datetime) and read.tzinfo is None:
            read = read.replace(tzinfo=UTC)
        return pa.scalar(read, column.type.arrow).as_py()
    except (msgspec.ValidationError, pa.ArrowException, OverflowError):
        return None
