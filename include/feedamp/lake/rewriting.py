"""Takes rows out of files of the lake: a file that holds some is written once more without them, under another name.

A file is opened only as far as needed: the statistics of its row groups say whether they can hold an order, and of those
that can only the key columns are read. Row groups are streamed, so memory does not grow with a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from feedamp.errors import IncompleteError
from feedamp.lake.erasing import NUMBER, SELLER, without_erased
from feedamp.lake.manifest import LakeFile, refuse_miscount
from feedamp.rules.erased import Erased, mark_of
from feedamp.tables import LAKE_TABLES, REJECTED_ORDERS

if TYPE_CHECKING:
    import pyarrow as pa

    from feedamp.lake.store import Lake
    from feedamp.lake.writer import LakeWriter

ROWS_REWRITTEN_AT_ONCE = 5_000
FILES_LOOKED_AT_ONCE = 8
_PART = re.compile(r"-(\d+)\.parquet$")
BesideFile = Callable[[LakeFile, int], "LakeWriter"]
"""Makes a writer for the next part of a file."""


@dataclass(frozen=True)
class Leaving:
    """An order or, without a number, a seller whose rows are to go. Unlike a mark, it can be compared with statistics."""

    seller_id: str
    mp_order_number: str | None = None

    @cached_property
    def erased(self) -> Erased:
        """Recognizes its rows as the mark of it does, and those with its number that name no seller: they may be its."""
        number = self.mp_order_number
        sellers = [self.seller_id] if number is None else [self.seller_id, ""]
        return Erased([mark_of(str, seller, number) for seller in sellers], str)


def rewritten(
    lake: Lake, files: Iterable[LakeFile], erased: Erased, beside: BesideFile, leaving: Leaving | None = None
) -> list[LakeFile]:
    """The files without rows that were erased; those that hold none are the same, those that hold no other are left out.

    New files lie beside the old ones, which stay. With `leaving`, only its rows are looked for, which is faster.

    Raises:
        IncompleteError: a file is missing or damaged, or the store does not hold what was written.
    """
    given = list(files)
    with ThreadPoolExecutor(FILES_LOOKED_AT_ONCE) as threads:
        held = list(threads.map(partial(holds, lake, erased=erased, leaving=leaving), given))
    result: list[LakeFile] = []
    for file, is_held in zip(given, held, strict=True):
        if not is_held:
            result.append(file)
            continue
        # A manifest may have several files of a table, so that the number after this one's may be taken.
        part = 1 + max(_part(other) for other in given if other.table == file.table)
        result += _write_kept(lake, file, erased, beside(file, part))
    return result


def holds(lake: Lake, file: LakeFile, *, erased: Erased, leaving: Leaving | None = None) -> bool:
    """Whether a file has a row that was erased, or one of `leaving`; raises as `Lake.record_batches`."""
    if SELLER not in LAKE_TABLES[file.table].names:
        return False
    may_hold = None if leaving is None else partial(_may_hold, leaving, file.table)
    wanted = erased if leaving is None else leaving.erased
    return any(
        without_erased(batch, wanted, file.table).num_rows < batch.num_rows
        for batch in lake.key_batches(file, may_hold)
    )


def _write_kept(lake: Lake, file: LakeFile, erased: Erased, writer: LakeWriter) -> list[LakeFile]:
    read = 0

    def kept() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for batch in lake.record_batches(file, rows=ROWS_REWRITTEN_AT_ONCE):
            read += batch.num_rows
            rest = without_erased(batch, erased, file.table)
            if rest.num_rows:
                yield rest

    writer.copy(file.table, kept())
    refuse_miscount(file, read)
    made = list(writer.files())
    for new in made:
        if holds(lake, new, erased=erased):
            raise IncompleteError(f"{new.path} still holds rows that were erased; the store is at fault.")
    return made


def _part(file: LakeFile) -> int:
    found = _PART.search(file.path)
    return int(found[1]) if found else 0


def _may_hold(leaving: Leaving, table: str, group: Any) -> bool:
    """Whether a row group can hold a row of it, by the least and the greatest value of its key columns."""
    if table == REJECTED_ORDERS.name:  # as delivered: perhaps in a spelling that sorts elsewhere
        return True
    if not _is_within(group, SELLER, leaving.seller_id):
        return False
    return leaving.mp_order_number is None or _is_within(group, NUMBER, leaving.mp_order_number)


def _is_within(group: Any, name: str, value: str) -> bool:
    for at in range(group.num_columns):
        column = group.column(at)
        if column.path_in_schema == name:
            found = column.statistics
            # Text in Parquet is ordered by bytes of UTF-8, which is the order of Python.
            return found is None or not found.has_min_max or found.min <= value <= found.max
    return True
