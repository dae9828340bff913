"""Splits a byte stream into lines; memory is bounded, however long a line is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 8 << 20  # an order of thirty thousand lines
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """A line without its `\\n`. If `is_cut`, `content` is only its beginning; `sha256` is always of the whole line.

    `has_end` is False for a last line without `\\n`, which may mean that the file was cut off.
    """

    number: int
    content: bytes
    sha256: str
    is_cut: bool = False
    has_end: bool = True


class _Collector:
    """The line being read: its beginning, its hash so far, whether something was dropped."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.content = bytearray()
        self.digest = hashlib.sha256()
        self.is_cut = False

    def add(self, piece: bytes) -> None:
        self.digest.update(piece)
        room = self.max_bytes - len(self.content)
        self.content += piece[:room]
        self.is_cut = self.is_cut or len(piece) > room

    def line(self, number: int, *, has_end: bool = True) -> Line:
        return Line(number, bytes(self.content), self.digest.hexdigest(), self.is_cut, has_end)


def lines(stream: IO[bytes], max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Every line, including blank ones, numbered from 1; a byte order mark at the start is dropped.

    Text after the last `\\n` is a line if it is not empty.
    """
    number = 1
    chunk = stream.read(CHUNK_BYTES).removeprefix(BOM)
    open_line = _Collector(max_bytes)
    while chunk:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            open_line.add(piece)
            yield open_line.line(number)
            number += 1
            open_line = _Collector(max_bytes)
        open_line.add(rest)
        chunk = stream.read(CHUNK_BYTES)
    if open_line.content or open_line.is_cut:
        yield open_line.line(number, has_end=False)
