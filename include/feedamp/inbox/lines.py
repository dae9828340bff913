"""Splits a byte stream into lines; memory is bounded, however long a line is."""

import codecs
import hashlib
import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from feedamp.inbox.streams import CHUNK_BYTES, TextStream
from feedamp.order_body.rows import MAX_ORDER_BYTES

_BLANK = re.compile(r"[\s\0\x1a\ufeff\u200b]*")


class Line(NamedTuple):
    """A line without its `\\n` and byte order mark. If `is_cut`, `content` is only its beginning; `sha256` is of all of it.

    `has_end` is False for a last line without `\\n`, which may mean that the file was cut off.
    """

    number: int
    content: bytes
    is_cut: bool = False
    has_end: bool = True
    sha256: str = ""  # only of a line that is cut


class _Collector:
    """A line that several chunks hold: its beginning, its hash so far, whether something was dropped."""

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
        sha256 = self.digest.hexdigest() if self.is_cut else ""
        return Line(number, _without_marks(bytes(self.content)), self.is_cut, has_end, sha256)


def is_blank(text: str) -> bool:
    """Whether a line or cell holds no data: blanks of any kind, byte order marks, NULs, or an old mark of the file's end."""
    return _BLANK.fullmatch(text) is not None


def lines(stream: IO[bytes] | TextStream, max_bytes: int = MAX_ORDER_BYTES) -> Iterator[Line]:
    """Every line, including blank ones, numbered from 1.

    Text after the last `\\n` is a line if it is not empty, and if the stream does not say that it breaks off there.
    """
    number = 1
    open_line: _Collector | None = None
    while chunk := stream.read(CHUNK_BYTES):
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            if open_line is None and len(piece) <= max_bytes:
                yield Line(number, _without_marks(piece))
            else:
                open_line = open_line or _Collector(max_bytes)
                open_line.add(piece)
                yield open_line.line(number)
                open_line = None
            number += 1
        if rest:
            open_line = open_line or _Collector(max_bytes)
            open_line.add(rest)
    if open_line is not None and not getattr(stream, "fault", None):
        yield open_line.line(number, has_end=False)


def _without_marks(content: bytes) -> bytes:
    """The line without byte order marks, which also a later line has where two files were joined."""
    while content.startswith(codecs.BOM_UTF8):
        content = content.removeprefix(codecs.BOM_UTF8)
    return content
