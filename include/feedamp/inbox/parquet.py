"""Parquet: one order per row, with the columns `seller_id` and `order`; `order` is a struct or JSON text."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feedamp.inbox.cells import evaluate_cells
from feedamp.order_body import BodyRules, Reason
from feedamp.order_body.rows import BadRow, OrderRow, Origin, reject, reject_file

ROWS_DECODED_AT_ONCE = 1_000
MOST_ROWS = 10**9  # a footer that declares more is damaged
MAGIC = b"PAR1"
PANDAS_INDEX = "__index_level_"  # a column that `DataFrame.to_parquet` adds unasked


class _DamagedError(Exception):
    """The rest of the file cannot be decoded; the message says why."""


def read_parquet(stream: IO[bytes], source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """An order or reject per row, numbered from 1. A file that cannot be decoded to its end ends with a reject.

    The file is copied to disk first, so that a later error is caused by the file and not by the store. The reject of the
    file counts the rows that the footer declares and that were not read.
    """
    row_number = 0
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        promised = _promised(copy)
        try:
            for row in _rows(copy):
                row_number += 1
                if row is None:
                    yield _unreadable(source, row_number)
                else:
                    yield evaluate_cells(row, source, row_number, rules)
            if row_number < promised:
                raise _DamagedError("rows are missing")
        except _DamagedError as error:
            of = f" of {promised}" if promised else ""
            message = (
                f"the file cannot be read after row {row_number}{of}: it is damaged or not Parquet ({error})"
            )
            row_hash = hashlib.sha256(message.encode()).hexdigest()
            yield reject_file(source, row_hash, message, rows=max(0, promised - row_number))


def footer_rows(stream: IO[bytes]) -> int:
    """The number of rows that the footer declares, for a file of any name; 0 if it is not Parquet."""
    with tempfile.TemporaryFile() as copy:
        copy.write(stream.read(len(MAGIC)))
        copy.seek(0)
        if copy.read() != MAGIC:
            return 0
        shutil.copyfileobj(stream, copy)
        return _promised(copy)


def _promised(copy: IO[bytes]) -> int:
    copy.seek(0, os.SEEK_SET)
    try:
        rows = pq.ParquetFile(copy).metadata.num_rows
    except (pa.ArrowException, OSError, ValueError):
        return 0
    return rows if 0 <= rows <= MOST_ROWS else 0


def _unreadable(source: str, row_number: int) -> BadRow:
    message = "the row holds a value that cannot be read, such as a date beyond the calendar"
    row_hash = hashlib.sha256(f"{row_number}: {message}".encode()).hexdigest()
    return reject(Origin(source, row_number, 1, row_hash, ""), Reason("", "wrong_type", message))


def _rows(copy: IO[bytes]) -> Iterator[dict[str, Any] | None]:
    """Each row; None for a row with a value that Python cannot represent."""
    try:
        file = pq.ParquetFile(copy, page_checksum_verification=True)
        for batch in file.iter_batches(batch_size=ROWS_DECODED_AT_ONCE):
            for row in _as_python(batch):
                yield row and {n: value for n, value in row.items() if not n.startswith(PANDAS_INDEX)}
    except Exception as error:  # any error of the decoder means that this file is damaged
        raise _DamagedError(type(error).__name__) from error


def _as_python(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; they are converted one by one if one of them makes the whole batch fail."""
    rows = _converted(batch)
    if rows is not None:
        yield from rows
        return
    for at in range(batch.num_rows):
        yield from _converted(batch.slice(at, 1)) or (None,)


def _converted(batch: pa.RecordBatch) -> list[dict[str, Any]] | None:
    try:
        return list(batch.to_pylist())
    except Exception:  # noqa: BLE001 - any error of the conversion rejects this row alone
        return None
