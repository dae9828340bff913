"""How a person's terminal shows the output of commands; files and pipes get plain lines instead (`output.py`)."""

import logging
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

NARROWEST_TEXT = 24  # of a column with sentences; below it, each row becomes a block of lines
GAP = 2
EMPTY = "-"  # as `output.cell` writes it; a column of nothing else is left out


def print_table(out: TextIO, names: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int) -> None:
    """A table within the width of the terminal: sentences are wrapped, ids and times never.

    If even that does not fit, each row is a block with a line for each column that has a value.
    """
    console = Console(file=out, highlight=False)
    columns = [one for one in zip(names, *rows, strict=True) if not rows or set(one[1:]) != {EMPTY}]
    names, *rows = zip(*columns, strict=True)
    widths = [max(map(len, column)) for column in columns]
    is_text = [any(" " in value for value in column[1:]) for column in columns]
    room = console.width - indent - GAP * (len(names) - 1)
    room -= sum(width for width, text in zip(widths, is_text, strict=True) if not text)
    texts = [width for width, text in zip(widths, is_text, strict=True) if text]
    fits = room >= sum(min(width, NARROWEST_TEXT) for width in texts)
    if not rows or fits:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for name, text in zip(names, is_text, strict=True):
            table.add_column(Text(name), no_wrap=not text, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        _show(console, table, indent)
    for number, row in enumerate(() if fits else rows):
        block = _grid(max(map(len, names)), "bold")
        for name, value in zip(names, row, strict=True):
            if value != EMPTY:
                block.add_row(Text(name), Text(value))
        _show(console, block, indent, above=min(number, 1))


def print_item(out: TextIO, mark: str, text: str, *, style: str) -> None:
    """A mark in a style, such as `bold red`, and a sentence beside it, wrapped."""
    row = _grid(len(mark), style)
    row.add_row(Text(mark), Text(text))
    _show(Console(file=out, highlight=False), row, 0)


def _grid(first: int, style: str) -> Table:
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(width=first, no_wrap=True, style=style)
    grid.add_column(overflow="fold")
    return grid


def _show(console: Console, what: RenderableType, indent: int, *, above: int = 0) -> None:
    console.print(Padding(what, (above, 0, 0, indent), expand=False))


class Working(logging.Handler):
    """The last line of the terminal, which says what is being done; gone as soon as something else is written."""

    def __init__(self, err: TextIO) -> None:
        super().__init__()
        self._status = Status("", console=Console(file=err), spinner="line")

    def show(self, text: str) -> None:
        self._status.update(Text(text, overflow="ellipsis", no_wrap=True))
        self._status.start()

    def hide(self) -> None:
        self._status.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a line of the log of long work."""
        self.show(record.getMessage())
