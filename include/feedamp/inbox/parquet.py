"""Parquet: one order a row, column `seller_id` and column `order` as a struct or as JSON text."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feedamp.inbox.cells import judge_cells
from feedamp.inbox.rows import BadRow, OrderRow, Origin, reject
from feedamp.order_body import BodyRules, Reason

ROWS_PER_BATCH = 1_000
PANDAS_INDEX = "__index_level_"  # a column that `DataFrame.to_parquet` adds unasked


class _DamagedError(Exception):
    """The rest of the file cannot be decoded."""


def read_parquet(stream: IO[bytes], source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """Each row in turn, numbered from 1. What cannot be decoded ends the file with a reject that says so.

    The file is copied to disk first: after that an error is the file's own and not the store's.
    """
    row_number = 0
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        try:
            for row in _rows(copy):
                row_number += 1
                yield judge_cells(row, source, row_number, rules)
        except _DamagedError as error:
            message = (
                f"the file cannot be read after row {row_number}: it is damaged or not Parquet ({error})"
            )
            row_hash = hashlib.sha256(message.encode()).hexdigest()
            yield reject(Origin(source, 0, 0, row_hash, ""), Reason("", "wrong_type", message))


def _rows(copy: IO[bytes]) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(copy).iter_batches(batch_size=ROWS_PER_BATCH):
            for row in batch.to_pylist():
                yield {name: value for name, value in row.items() if not name.startswith(PANDAS_INDEX)}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _DamagedError(type(error).__name__) from error
