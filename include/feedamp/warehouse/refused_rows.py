"""Finds the rows of a manifest that an engine refuses, by trying ever fewer of them, and leaves them out.

An order is tried together with its lines, shipments and cancellations, so that none of it is loaded without the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedamp.column_types import Type
from feedamp.errors import MisfitError
from feedamp.lake.manifest import Manifest
from feedamp.lake.schema_evolution import LakeFiles, as_declared
from feedamp.lake.store import Lake
from feedamp.tables import CHILDREN, ORDERS, RECORDED_AT, Row, Table

if TYPE_CHECKING:
    import pyarrow as pa

# More refused rows than this are not the fault of rows, but of the warehouse, for example of its encoding.
MOST_REFUSED = 1_000
_COLUMNS_NAMED = 20  # of so many rows the column is looked for, which takes a dozen tries each
# DuckDB holds a longer value in a block of its own, and runs out of memory over a few dozen of 10 MB.
MOST_BYTES_OF_A_VALUE = 1 << 16
_TEXT_KEPT = 1_000  # characters
_READ = (*ORDERS.key, RECORDED_AT)  # what an order has in common with the children that were read with it
_CHILDREN = {child.name for child in CHILDREN}


@dataclass(frozen=True)
class RefusedRow:
    """A row of the lake that the warehouse cannot hold.

    `place` counts the rows of its table in its manifest, from 0. `column` is the one whose value is at fault, or empty if
    it is a value of the key, of more than one column, or of a child of an order.
    """

    manifest: str
    table: str
    place: int
    row: Row
    column: str = ""


class BoundedFiles(LakeFiles):
    """The files of a manifest as they are loaded: without refused rows, and without values that are too long."""

    def __init__(self, lake: Lake, manifest: Manifest, without: Sequence[RefusedRow] = ()) -> None:
        super().__init__(lake, manifest)
        self._places = {(refused.table, refused.place) for refused in without}
        self._reads = {
            tuple(refused.row[name] for name in _READ) for refused in without if refused.table == ORDERS.name
        }

    def batches(self, table: Table) -> Iterator[pa.RecordBatch]:
        """As of `LakeFiles`, without the rows and values that are left out."""
        place = 0
        for batch in super().batches(table):
            kept = batch
            if self._places and table.name in _CHILDREN:
                kept = _filtered(batch, (read not in self._reads for read in _reads(batch)))
            elif self._places:
                places = range(place, place + len(batch))
                kept = _filtered(batch, ((table.name, at) not in self._places for at in places))
            place += len(batch)
            yield _bounded(kept, table)


class PartOfFiles:
    """Some rows of a manifest, as `LakeFiles` gives all of them."""

    def __init__(self, rows: Mapping[str, Sequence[pa.RecordBatch]]) -> None:
        self._rows = rows

    def __contains__(self, table: str) -> bool:
        return table in self._rows

    def reader(self, table: Table) -> pa.RecordBatchReader:
        """The rows of a table in the schema `Table.lake_schema`, which may have fewer columns than they."""
        import pyarrow as pa

        rows = (as_declared(batch, table) for batch in self._rows[table.name])
        return pa.RecordBatchReader.from_batches(table.lake_schema, rows)


def find_refused(
    manifest: Manifest, files: LakeFiles, tables: Mapping[str, Table], accepts: Callable[[PartOfFiles], bool]
) -> list[RefusedRow]:
    """The rows of a manifest that `accepts` returns False for, each alone or with its children.

    Raises:
        MisfitError: there are more than `MOST_REFUSED`.
        IncompleteError: a file is missing or cannot be read.
    """
    found: list[RefusedRow] = []

    def search(
        table: Table, batch: pa.RecordBatch, children: Mapping[str, list[pa.RecordBatch]], at: int
    ) -> None:
        part = {table.name: [batch]}
        part |= {name: _read_with(rows, batch) for name, rows in children.items() if name in _CHILDREN}
        if accepts(PartOfFiles(part)):
            return
        if len(batch) > 1:
            half = len(batch) // 2
            search(table, batch.slice(0, half), part, at)
            search(table, batch.slice(half), part, at + half)
            return
        column = ""
        may_name = len(found) < _COLUMNS_NAMED
        if may_name and (len(part) == 1 or not accepts(PartOfFiles({table.name: [batch]}))):
            # No child is at fault.
            column = _column_at_fault(table, lambda names: accepts(_with_nulls(batch, table, names)))
        found.append(RefusedRow(manifest.path, table.name, at, batch.to_pylist()[0], column))
        if len(found) > MOST_REFUSED:
            raise MisfitError(
                f"Manifest {manifest.path} cannot be loaded: the warehouse refuses more than {MOST_REFUSED} of its rows."
            )

    for table in tables.values():
        if table.name not in files or table.name in _CHILDREN:
            continue
        place = 0
        for batch in files.batches(table):
            children: dict[str, list[pa.RecordBatch]] = {}
            if table.name == ORDERS.name:
                present = [tables[name] for name in _CHILDREN if name in files]
                children = {child.name: _read_with(files.batches(child), batch) for child in present}
            search(table, batch, children, place)
            place += len(batch)
    return found


def _read_with(
    rows: Iterator[pa.RecordBatch] | Sequence[pa.RecordBatch], orders: pa.RecordBatch
) -> list[pa.RecordBatch]:
    """The children that were read together with one of the orders."""
    reads = set(_reads(orders))
    return [_filtered(batch, (read in reads for read in _reads(batch))) for batch in rows]


def _filtered(batch: pa.RecordBatch, keeps: Iterable[bool]) -> pa.RecordBatch:
    import pyarrow as pa

    return batch.filter(pa.array(keeps, pa.bool_()))  # typed, or no row would be a filter of nulls


def _reads(batch: pa.RecordBatch) -> Iterator[tuple[object, ...]]:
    return zip(*(batch.column(name).to_pylist() for name in _READ), strict=True)


def _column_at_fault(table: Table, accepts_without: Callable[[Sequence[str]], bool]) -> str:
    """The one column without whose value the row is accepted; empty if there is none."""
    names = [name for name in table.names if name not in (*table.key, RECORDED_AT)]
    while names and accepts_without(names):
        if len(names) == 1:
            return names[0]
        half = len(names) // 2
        names = names[:half] if accepts_without(names[:half]) else names[half:]
    return ""


def _with_nulls(batch: pa.RecordBatch, table: Table, names: Sequence[str]) -> PartOfFiles:
    import pyarrow as pa

    for name in names:
        at = batch.schema.get_field_index(name)
        field = batch.schema.field(at)
        batch = batch.set_column(at, field, pa.nulls(len(batch), field.type))
    return PartOfFiles({table.name: [batch]})


def _bounded(batch: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """The rows with longer values cut (text) or replaced by their length (JSON); the lake keeps them as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for at, column in enumerate(table.lake_columns):
        array = batch.column(at)
        if column.name in table.key or not pa.types.is_string(array.type):
            continue
        longest = pc.max(pc.binary_length(array)).as_py()
        if longest is None or longest <= MOST_BYTES_OF_A_VALUE:
            continue
        shorter = [_shortened(value, column.type) for value in array.to_pylist()]
        batch = batch.set_column(at, batch.schema.field(at), pa.array(shorter, array.type))
    return batch


def _shortened(value: str | None, kind: Type) -> str | None:
    if value is None or (size := len(value.encode())) <= MOST_BYTES_OF_A_VALUE:
        return value
    if kind is Type.TEXT:
        return f"{value[:_TEXT_KEPT]}… ({size} bytes, whole in the lake)"
    left_out = f'{{"left_out": "{size} bytes, whole in the lake"}}'
    return f"[{left_out}]" if value.lstrip().startswith("[") else left_out
