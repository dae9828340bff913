"""The output of commands: sentences, tables, JSON; times in UTC with a Z. A terminal gets it wrapped and with colors."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import msgspec

from feedamp_airflow.moments import moment

if (
    TYPE_CHECKING
):  # they bring SQLAlchemy, which `feedamp init` does without, and rich, which only a terminal needs
    from feedamp_airflow.audience import Audience
    from feedamp_airflow.cli.terminal import Working

WIDEST_CELL = 100
# Where a spreadsheet may begin a formula: in a cell, or behind what divides cells in some countries. In front of an apostrophe
# too, so that ours can be told from it.
_FORMULA = re.compile(r"(^\s*|[;,|\t\r\n]\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20'])")


@dataclass(frozen=True)
class Output:
    """`out` receives only the answer of a command; `err` receives messages about it.

    `for_reader` is who reads the answer, None for who may read every word. `user` is Airflow's name of who asks, None on a
    command line.
    """

    out: TextIO
    err: TextIO
    for_reader: "Audience | None" = None
    user: str | None = None
    working: "Working | None" = None  # where a person sees what is being done
    changes: list[str] = field(default_factory=list)  # the lines that `did` said

    @property
    def reader(self) -> "Audience":
        """Who has the say on each row and sentence of the answer."""
        from feedamp_airflow.audience import EDITOR

        return self.for_reader or EDITOR

    def say(self, text: str) -> None:
        """One line of the answer."""
        self._hide_work()
        self.out.write(f"{plain(text)}\n")
        self.out.flush()

    def did(self, text: str) -> None:
        """One line of the answer, of something that was changed; the rest of the command may be refused."""
        self.say(text)
        self.changes.append(text)

    def item(self, mark: str, text: str, *, style: str) -> None:
        """A line with a mark before it; on a terminal the mark has the style, and the line is wrapped beside it."""
        if not self.out.isatty():
            self.say(f"{mark}  {text}")
            return
        from feedamp_airflow.cli.terminal import print_item

        self._hide_work()
        print_item(self.out, mark, plain(text), style=style)

    def doing(self, text: str) -> None:
        """Says on a terminal what is being done, until the next line."""
        if self.working is not None:
            self.working.show(text)

    def _hide_work(self) -> None:
        if self.working is not None:
            self.working.hide()

    def complain(self, text: str) -> None:
        """One line on stderr."""
        self._hide_work()
        self.err.write(f"feedamp: {plain(text)}\n")
        self.err.flush()

    def document(self, value: Any) -> None:
        """The answer as one JSON document."""
        self._hide_work()
        self.out.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
        self.out.flush()

    def listing(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
        """The rows as one JSON document, or these columns of them as a table; says so if there are none."""
        if as_json:
            self.document(rows)
        elif not rows:
            self.say("There are none.")
        else:
            self.table(columns, [[row[name] for name in columns] for row in rows])

    def table(self, names: Sequence[str], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        """Aligned columns under their names; only the names if there are no rows. On a terminal, no wider than it is.

        What `reader` may not read of a column is left out; of single cells it has to be taken out before.
        """
        self._hide_work()
        seen = self.reader.columns(names)
        if not seen:
            return
        shown = [name in seen for name in names]
        lines = [tuple(names), *(tuple(cell(value) for value in row) for row in rows)]
        lines = [tuple(compress(line, shown)) for line in lines]
        if self.out.isatty():
            from feedamp_airflow.cli.terminal import print_table

            print_table(self.out, lines[0], lines[1:], indent=indent)
            return
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            text = "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True))
            self.out.write(" " * indent + text.rstrip() + "\n")
        self.out.flush()


@contextlib.contextmanager
def replaced_file(target: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that appears under its name once it is complete, in place of an earlier one; the umask narrows `mode`.

    A device or a pipe is written to and stays.
    """
    draft, flags = target, os.O_WRONLY
    if target.is_file() or not target.exists():
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        flags |= os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(draft, flags, mode), "wb") as file:
            yield file
        if draft != target:
            draft.replace(target.resolve() if target.is_symlink() else target)
    except OSError as error:
        if error.filename in (None, str(draft)):  # of a full disk, or a name that no one has given
            error.filename = str(target)
        raise
    finally:
        if draft != target:
            with contextlib.suppress(OSError):  # as what went wrong is raised already
                draft.unlink()


def cell(value: object) -> str:
    """A value as text of one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    text = plain(str(value))
    return text if len(text) <= WIDEST_CELL else f"{text[: WIDEST_CELL - 1]}…"


def spreadsheet_cell(value: object) -> object:
    """A value of a CSV file that a spreadsheet shows and does not run: an apostrophe stands before what could begin a formula."""
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value


def plain(text: str) -> str:
    """`text` without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
