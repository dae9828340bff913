"""Reads one inbox file by its ending, or the stored text of a row again."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import PurePosixPath

from feedamp.errors import FeedAmpError, TransientError
from feedamp.inbox.files import InboxFile
from feedamp.inbox.flat_csv import evaluate_order, kept_rows, read_csv
from feedamp.inbox.jsonl import Hashes, no_hashes, read_jsonl, read_line
from feedamp.inbox.parquet import footer_rows, read_parquet
from feedamp.inbox.query import QUERY_PREFIX, read_kept
from feedamp.inbox.streams import HashedStream, TextStream
from feedamp.order_body import BadRow, BodyRules, OrderRow, Reason
from feedamp.order_body.rows import Origin, reject, reject_file, sha256

OTHER_KIND = (
    "the inbox takes files that end in .jsonl, .csv or .parquet, and .jsonl.gz or .csv.gz if they are packed"
)
NOT_OF_THE_FILE = (OSError, sqlite3.Error, MemoryError)  # the store, the disk or the memory of this machine
TEXTS = (".jsonl", ".csv")  # these may be packed


def read_rows(
    file: InboxFile,
    rules: BodyRules,
    enough: Callable[[], str | None] = lambda: None,
    on_bytes: Callable[[int], object] = int,
    hashes: Hashes = no_hashes,
) -> Iterator[OrderRow | BadRow]:
    """Every order and reject of the file, in the file's order; each row of the file is counted exactly once.

    The same order may occur several times. For a file that cannot be read to its end, or whose name has another ending,
    the last item is a `BadRow` with row number 0 whose `file_fault` says why. So is the rest of the file as soon as
    `enough` returns a message. `on_bytes` is told how many bytes of the file each read has brought. `hashes` is as for `read_jsonl`.

    Safe to repeat: nothing is written.

    Raises:
        TransientError: the store failed, or the file was changed, while it was read; rows yielded before are valid. Read
            the file again.
    """
    if file.fault:
        yield _of_file(reject_file(file.name, file.fault), file)
        return
    try:
        with file.store.reached(), closing(file.open()) as stream:
            hashed = HashedStream(stream, file.store.reached, on_bytes)
            for row in _contained(hashed, file.name, rules, hashes):
                yield _of_file(row, file)
                if isinstance(row, BadRow) and row.file_fault and row.row_number:
                    yield _of_file(reject_file(file.name, row.file_fault), file)
                elif message := enough():
                    yield _of_file(reject_file(file.name, message, "too_large"), file)
                    break
            if hashed.checksum_to_the_end() != file.checksum:
                # Its checksum would be remembered, although other bytes were read: the rest of the rows would be lost.
                raise TransientError(
                    f"inbox file {file.name} was changed while it was read; the next run reads it again"
                )
    except NOT_OF_THE_FILE as error:
        message = f"inbox file {file.name} could not be read to its end: {type(error).__name__}"
        raise TransientError(message) from error


def _contained(
    stream: HashedStream, name: str, rules: BodyRules, hashes: Hashes
) -> Iterator[OrderRow | BadRow]:
    """The rows of a file; an error that no reader expects becomes the reject of this file, so that others are read."""
    try:
        yield from _rows(stream, name, rules, hashes)
    except (FeedAmpError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a file raises costs this file alone
        yield reject_file(name, f"the file cannot be read ({type(error).__name__})")


def _rows(stream: HashedStream, name: str, rules: BodyRules, hashes: Hashes) -> Iterator[OrderRow | BadRow]:
    kind, is_packed = kind_of(name)
    if kind == ".parquet":
        yield from read_parquet(stream, name, rules)
    elif kind in TEXTS:
        text = TextStream(stream, is_packed=is_packed)
        if text.fault is None:
            yield from (
                read_csv(text, name, rules) if kind == ".csv" else read_jsonl(text, name, rules, hashes)
            )
        if text.fault is not None:
            yield reject_file(name, text.fault.message, text.fault.code)
    else:
        yield reject_file(name, OTHER_KIND, rows=footer_rows(stream))


def kind_of(name: str) -> tuple[str, bool]:
    """The ending of a file's name in small letters, and whether it is followed by `.gz`."""
    path = PurePosixPath(name.lower())
    kind = PurePosixPath(path.stem).suffix
    return (kind, True) if path.suffix == ".gz" and kind in TEXTS else (path.suffix, False)


def _of_file(row: OrderRow | BadRow, file: InboxFile) -> OrderRow | BadRow:
    """The row; a reject of the whole file gets the file's checksum as its hash, so that each version has its own."""
    is_whole_file = isinstance(row, BadRow) and row.row_number == 0
    return replace(row, row_hash=file.checksum) if is_whole_file else row


def read_again(source: str, row_number: int, raw: str, rules: BodyRules) -> OrderRow | BadRow:
    """The order or reject of a stored `raw`, e.g. after an option has changed.

    Rows of a CSV order are numbered consecutively from `row_number`, even if they were not adjacent in the file.
    """
    if source.startswith(QUERY_PREFIX):
        return read_kept(source, row_number, raw, rules)
    kind, _ = kind_of(source)
    rows = [] if kind == ".jsonl" else kept_rows(raw)
    if not rows and kind != ".csv":
        return read_line(raw.encode(), source, row_number, rules)
    if not rows:
        origin = Origin(source, row_number, 1, sha256(raw), raw)
        message = "the stored text does not hold an order: send its file again"
        return reject(origin, Reason("", "unreadable", message))
    return evaluate_order(source, list(enumerate(rows, row_number)), rules)
