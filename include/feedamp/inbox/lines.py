"""Split a byte stream into lines without ever holding more than a bounded piece of it."""

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
    """A line without its `\\n`. Where `is_cut`, `content` is its beginning; `sha256` always counts all of it.

    `has_end` is False for what follows the last `\\n`: a file that was cut ends so.
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
    """Every line, blank ones too, numbered from 1; a byte order mark in front of the first is dropped.

    What follows the last `\\n` is a line if it is not empty.
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
