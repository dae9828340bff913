"""Parquet: one order a row, column `seller_id` and column `order` as a struct or as JSON text."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from feedamp.inbox.jsonl import NotJsonError, decode
from feedamp.inbox.rows import BadRow, OrderRow, Origin, judge, reject
from feedamp.order_body import BodyRules, Reason, storable

ROWS_PER_BATCH = 1_000
PANDAS_INDEX = "__index_level_"  # a column that `DataFrame.to_parquet` adds unasked

_ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


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
                yield _judge_row(row, source, row_number, rules)
        except _DamagedError as error:
            message = (
                f"the file cannot be read after row {row_number}: it is damaged or not Parquet ({error})"
            )
            row_hash = hashlib.sha256(message.encode()).hexdigest()
            yield reject(Origin(source, 0, 0, row_hash, ""), Reason("", "wrong_type", message))


def _rows(copy: IO[bytes]) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(copy).iter_batches(batch_size=ROWS_PER_BATCH):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _DamagedError(type(error).__name__) from error


def _judge_row(row: dict[str, Any], source: str, row_number: int, rules: BodyRules) -> OrderRow | BadRow:
    content = {name: _plain(value) for name, value in row.items() if not name.startswith(PANDAS_INDEX)}
    faults: tuple[Reason, ...] = ()
    if isinstance(content.get("order"), str):
        try:
            content["order"] = decode(content["order"].encode())
        except NotJsonError as error:
            faults = (Reason("order", "wrong_type", f"the text {error}"),)
    content = {name: value for name, value in content.items() if value is not None}
    raw = storable(_ENCODER.encode(content).decode())
    origin = Origin(source, row_number, 1, hashlib.sha256(raw.encode()).hexdigest(), raw)
    return reject(origin, *faults, content=content) if faults else judge(origin, content, rules)


def _plain(value: object) -> Any:
    """A cell as a JSON decoder would give it; members that are null are left out, since every row has all."""
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo is None else f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return value.isoformat() if isinstance(value, date) else value
