"""A large inbox file is taken with the memory of a small one (promise 11)."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from inbox_rows import Row, encoded

from feedamp.inbox import OrderRow, read_rows
from feedamp.inbox.files import InboxFile
from feedamp.order_body import BodyRules
from feedamp.storage import open_storage

MEGABYTE = 1 << 20


def write_file(path: Path, kind: str, size: int) -> InboxFile:
    """Orders of one line each until the file has that many bytes."""
    whole = encoded(kind, [Row("M-0000000")])
    head = whole[: whole.index(b"\n") + 1] if kind == "csv" else b""
    row = whole[len(head) :].replace(b"Desk lamp", b"Desk lamp " * 200)  # few rows: tracing is slow
    with path.open("wb") as file:
        file.write(head)
        for number in range(size // len(row)):
            file.write(row.replace(b"0000000", b"%07d" % number))
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return InboxFile(
        path.name, path.stat().st_size, checksum, "", open_storage("inbox_url", str(path.parent))
    )


def peak_bytes(rows: Iterator[object]) -> int:
    tracemalloc.start()
    try:
        assert all(isinstance(row, OrderRow) for row in rows)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    small, large = (write_file(tmp_path / f"{size}.{kind}", kind, size * MEGABYTE) for size in (1, 3))
    peaks = [peak_bytes(read_rows(file, BodyRules())) for file in (small, large)]
    assert peaks[1] < peaks[0] + MEGABYTE // 2
