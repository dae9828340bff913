"""Splits CSV into records as a stream; a broken record costs only the line on which it starts.

`pandas.read_csv` is not used: on a stray or unclosed quote, a surplus cell or a byte that is not UTF-8 it either
fails for the whole file or silently drops the row, and it silently pads short rows.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO

from feedamp.inbox.lines import Line, is_blank, lines
from feedamp.inbox.streams import TextStream

MAX_RECORD_BYTES = 1 << 20
MAX_LINES_BEFORE_HEADER = 100
_SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?[\r,;\t]*', re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """The cells of a record as text, none for a blank line; `fault` says what is wrong with the whole record.

    `has_end` is False for the last record of a file that does not end with a line end. `separator` is what the file has
    between its cells.

    `row_number` is counted as in a spreadsheet: a record with line breaks inside quotes is one row. Bytes that are
    not UTF-8 become lone surrogates.
    """

    row_number: int
    cells: list[str]
    fault: str | None = None
    has_end: bool = True
    separator: str = ","

    @property
    def is_blank(self) -> bool:
        return all(is_blank(cell) for cell in self.cells)


class _Feed:
    """An iterator of lines as text that can go back to the start of the current record."""

    def __init__(self, source: Iterator[Line]) -> None:
        self.source = source
        self.again: deque[Line] = deque()
        self.taken: list[Line] = []
        self.taken_bytes = 0
        self.alone = 0  # how many of the next lines are records of their own

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self.taken and (self.taken_bytes > MAX_RECORD_BYTES or self.alone):
            raise StopIteration  # no order is that long, so a quote was not closed
        line = self.again.popleft() if self.again else next(self.source)
        self.taken.append(line)
        self.taken_bytes += len(line.content)
        return _text(line) + "\n"

    def accept(self) -> list[Line]:
        taken, self.taken, self.taken_bytes = self.taken, [], 0
        self.alone = max(0, self.alone - 1)
        return taken

    def keep_first(self) -> Line:
        """The line on which the record starts; the lines after it are read again.

        Those that the quote has swallowed are then records of their own, so that no line is read more than three times,
        however many quotes are open. The line where the quote turned out to be wrong may start a record of several lines.
        """
        first, *others = self.accept()
        self.again.extendleft(reversed(others))
        self.alone = max(self.alone, len(others) - 1)
        return first


def records(stream: IO[bytes] | TextStream) -> Iterator[Record]:
    """Every record, also blank ones, the first as row 1.

    A first line such as `sep=;`, which Excel understands, is not a record: it names the character between the cells.
    Without it, that is a comma, or a tab if the header has tabs and no comma (Excel's "Unicode text").
    """
    source = lines(stream)
    feed = _Feed(source)
    separator = ","
    for line in islice(source, MAX_LINES_BEFORE_HEADER):
        named = None if feed.again else _SEPARATOR.fullmatch(_text(line))
        if named:
            separator = named[1]
            break
        feed.again.append(line)
        if not is_blank(_text(line)):  # the header
            if b"\t" in line.content and b"," not in line.content:
                separator = "\t"
            break
    reader = csv.reader(feed, strict=True, delimiter=separator)
    row_number = 0
    while True:
        row_number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            line = feed.keep_first()
            reader = csv.reader(feed, strict=True, delimiter=separator)
            fault: str | None = "has a stray or unclosed quote, or lines end in CR alone"
            yield Record(row_number, _best_effort(line, separator), fault, line.has_end, separator)
        else:
            taken = feed.accept()
            fault = "is longer than a line may be" if any(line.is_cut for line in taken) else None
            yield Record(row_number, cells, fault, all(line.has_end for line in taken), separator)


def _text(line: Line) -> str:
    return line.content.decode("utf-8", "surrogateescape")


def _best_effort(line: Line, separator: str) -> list[str]:
    """The cells as far as they can be separated, to identify the order that the line belongs to."""
    try:
        return next(csv.reader([_text(line)], delimiter=separator), [])
    except csv.Error:
        return [_text(line)]
