"""Reads one inbox file by its ending, or the stored text of a row again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, cast

from feedamp.errors import TransientError
from feedamp.inbox.files import HASH_CHUNK_BYTES, InboxFile
from feedamp.inbox.flat_csv import evaluate_order, kept_rows, read_csv
from feedamp.inbox.jsonl import read_jsonl, read_line
from feedamp.inbox.parquet import footer_rows, read_parquet
from feedamp.inbox.query import QUERY_PREFIX, read_kept
from feedamp.order_body import BodyRules, Reason
from feedamp.order_body.rows import BadRow, OrderRow, Origin, reject, reject_file

OTHER_KIND = "the inbox takes files that end in .jsonl, .csv or .parquet"
READERS = {".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}


def read_rows(file: InboxFile, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """Every order and reject of the file, in the file's order; each row of the file is counted exactly once.

    The same order may occur several times. For a file that cannot be read to its end, or whose name has another ending,
    the last item is a `BadRow` with row number 0 whose `file_fault` says why.

    Safe to repeat: nothing is written.

    Raises:
        TransientError: the store failed, or the file was changed, while it was read; rows yielded before are valid. Read
            the file again.
    """
    reader = READERS.get(PurePosixPath(file.name).suffix.lower())
    try:
        with file.store.reached(), closing(file.open()) as stream:
            if reader is None:
                yield reject_file(file.name, file.checksum, OTHER_KIND, rows=footer_rows(stream))
                return
            hashed = _HashedStream(stream)
            for row in reader(cast("IO[bytes]", hashed), file.name, rules):
                yield _of_file(row, file)
                if isinstance(row, BadRow) and row.file_fault and row.row_number:
                    yield reject_file(file.name, file.checksum, row.file_fault)
            if file.checksum and hashed.checksum_to_the_end() != file.checksum:
                # Its checksum would be remembered, although other bytes were read: the rest of the rows would be lost.
                raise TransientError(
                    f"inbox file {file.name} was changed while it was read; the next run reads it again"
                )
    except OSError as error:
        message = f"inbox file {file.name} could not be read to its end: {type(error).__name__}"
        raise TransientError(message) from error


class _HashedStream:
    """A stream that knows the checksum of what was read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._digest.update(content)
        return content

    def checksum_to_the_end(self) -> str:
        """Reads what is left, and returns the SHA-256 checksum of everything in hex."""
        while self.read(HASH_CHUNK_BYTES):
            pass
        return self._digest.hexdigest()


def _of_file(row: OrderRow | BadRow, file: InboxFile) -> OrderRow | BadRow:
    """The row; a reject of the whole file gets the file's checksum as its hash, so that each version has its own."""
    is_whole_file = isinstance(row, BadRow) and row.row_number == 0
    return replace(row, row_hash=file.checksum) if is_whole_file and file.checksum else row


def read_again(source: str, row_number: int, raw: str, rules: BodyRules) -> OrderRow | BadRow:
    """The order or reject of a stored `raw`, e.g. after an option has changed.

    Rows of a CSV order are numbered consecutively from `row_number`, even if they were not adjacent in the file.
    """
    if source.startswith(QUERY_PREFIX):
        return read_kept(source, row_number, raw, rules)
    if PurePosixPath(source).suffix.lower() != ".csv":
        return read_line(raw.encode(), source, row_number, rules)
    rows = kept_rows(raw)
    if not rows:
        origin = Origin(source, row_number, 1, hashlib.sha256(raw.encode()).hexdigest(), raw)
        return reject(
            origin, Reason("", "wrong_type", "the stored text does not hold an order: send its file again")
        )
    return evaluate_order(source, list(enumerate(rows, row_number)), rules)
