"""The bytes of an inbox file as its reader gets them: hashed as stored, unpacked, and UTF-16 turned into UTF-8."""

import codecs
import hashlib
import re
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO

from feedamp.order_body import ReasonCode

CHUNK_BYTES = 1 << 20
MAX_UNPACKED_BYTES = 1 << 30
MAX_LINES = 10_000_000  # a small packed file may hold nothing but line ends
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # starts with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WITHOUT_MARK = (
    (re.compile(rb"(?:[\t\n\r -~]\x00){8}"), "utf-16-le"),
    (re.compile(rb"(?:\x00[\t\n\r -~]){8}"), "utf-16-be"),
)


class HashedStream:
    """A stream that knows the checksum of what was read from it.

    `reached` translates the errors of the store, so that they are not taken for errors of the file.
    """

    def __init__(
        self,
        stream: IO[bytes],
        reached: Callable[[], AbstractContextManager[None]] = nullcontext,
        on_bytes: Callable[[int], object] = int,
    ) -> None:
        self._stream = stream
        self._reached = reached
        self._on_bytes = on_bytes
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        with self._reached():
            content = self._stream.read(size)
        self._digest.update(content)
        self._on_bytes(len(content))
        return content

    def checksum_to_the_end(self) -> str:
        """Reads what is left, and returns the SHA-256 checksum of everything in hex."""
        while self.read(CHUNK_BYTES):
            pass
        return self._digest.hexdigest()


@dataclass(frozen=True)
class Fault:
    """Why a stream ended before its end."""

    message: str
    code: ReasonCode = "unreadable"


_OTHER_KINDS = {
    re.compile(
        rb"\x1f\x8b\x08"
    ): "the file holds gzip instead of text: end its name in .gz, or unpack it once more",
    re.compile(
        rb"PK\x03\x04|\xd0\xcf\x11\xe0|\x28\xb5\x2f\xfd|BZh[1-9]|\xfd7zXZ|7z\xbc\xaf"
    ): "the file is a workbook or an archive: save it as CSV UTF-8, or unpack it",
    re.compile(rb"PAR1[^ -~]"): "the file is Parquet: its name must end in .parquet",
    re.compile(
        rb"(?:\xef\xbb\xbf)?\s*<[!?/a-zA-Z]"
    ): "the file is HTML or XML: export it as CSV UTF-8 or JSON Lines",
}


class TextStream:
    """The UTF-8 text of a file that may be packed with gzip, and may be UTF-16.

    If the file cannot be unpacked to its end, unpacks to more than `MAX_UNPACKED_BYTES`, or has more than `MAX_LINES`, the stream
    ends there and `fault` says why. `read` returns at least one byte before the end, and never much more than is asked for.
    """

    def __init__(self, stream: HashedStream, *, is_packed: bool) -> None:
        self.fault: Fault | None = None
        self._stream = stream
        self._unpacker = zlib.decompressobj(wbits=31) if is_packed else None
        self._packed = b""
        self._bytes_left, self._lines_left = MAX_UNPACKED_BYTES, MAX_LINES
        self._decoder: codecs.IncrementalDecoder | None = None
        self._start = self._unpacked(CHUNK_BYTES)
        if message := _other_kind(self._start):
            self.fault = Fault(message)
        encoding = _encoding(self._start)
        if encoding is not None:
            # Half a surrogate pair becomes U+FFFD, as everywhere in the inbox.
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        while True:
            content, self._start = self._start or self._unpacked(size), b""
            if self._decoder is not None:
                text = self._decoder.decode(content, final=not content)
                if content and not text:  # only a part of a character
                    continue
                content = text.encode("utf-8", "replace")
            self._lines_left -= content.count(b"\n")
            if self._lines_left < 0:
                self.fault = Fault("the file has more lines than the inbox reads: split it", "too_large")
                return b""
            return content

    def _unpacked(self, size: int) -> bytes:
        if self._unpacker is None or self.fault is not None:
            return b"" if self.fault is not None else self._stream.read(size)
        content, is_end = b"", False
        while not content and not is_end:
            if not self._packed:
                self._packed = self._stream.read(CHUNK_BYTES)
                is_end = not self._packed
            if self._unpacker.eof:  # gzip files may be written one after the other, and be padded with zeros
                self._packed = self._packed.lstrip(b"\0")
                if self._packed:
                    self._unpacker = zlib.decompressobj(wbits=31)
                continue
            try:
                content = self._unpacker.decompress(self._packed, size)
            except zlib.error:
                self.fault = Fault("the file is damaged or not packed with gzip")
                return b""
            self._packed = self._unpacker.unconsumed_tail or self._unpacker.unused_data
        if is_end and not content and not self._unpacker.eof:
            self.fault = Fault("the file breaks off: what came after it is not known")
        self._bytes_left -= len(content)
        if self._bytes_left < 0:
            self.fault = Fault("the file unpacks to more than the inbox reads: split it", "too_large")
            return b""
        return content


def _other_kind(start: bytes) -> str | None:
    """What a file is that is no text, whatever its name says; each of its lines would be a reject."""
    return next((message for begin, message in _OTHER_KINDS.items() if begin.match(start)), None)


def _encoding(start: bytes) -> str | None:
    """The encoding if it is not UTF-8, by the byte order mark or by the zero bytes between letters."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding
    return next((encoding for pattern, encoding in _WITHOUT_MARK if pattern.match(start)), None)
