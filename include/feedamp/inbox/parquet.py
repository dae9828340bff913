"""Parquet: one order per row in the columns `seller_id` and `order`, or one order line per row as in a flat CSV file."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any, cast

from feedamp.inbox import parquet_rows
from feedamp.inbox.cells import cell_text, evaluate_cells
from feedamp.inbox.csv_columns import JSON_TEXT, NUMBER, SELLER, SHORT_NAMES, header_faults, without_blanks
from feedamp.inbox.flat_csv import UNFIT, Row, gather, unwrapped
from feedamp.inbox.jsonl import decode
from feedamp.inbox.lines import lines
from feedamp.inbox.streams import Fault, HashedStream
from feedamp.order_body import BadRow, BodyRules, OrderRow, Reason
from feedamp.order_body.rows import MAX_ORDER_BYTES, Origin, reject, reject_file, sha256

MAX_MEMORY_BYTES = 2 << 30
CPU_BYTES_PER_S = 100_000  # a small file must not take long, however many rows it unpacks to
MOST_ROWS = 10**9  # a footer that declares more is damaged
MAGIC = b"PAR1"
# Nothing else of the environment, which may hold secrets.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR")
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def read_parquet(
    stream: IO[bytes] | HashedStream, source: str, rules: BodyRules
) -> Iterator[OrderRow | BadRow]:
    """An order or reject per row, numbered from 1. A file that cannot be decoded to its end ends with a reject.

    The file is copied to disk first, so that a later error is caused by the file and not by the store. The reject of the
    file counts the rows that the footer declares and that were not read. A table with a column `mp_order_number` and
    none named `order` is flat.
    """
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        with _opened(copy) as table:
            if len(set(table.names)) < len(table.names):
                yield reject_file(source, "the table has a column more than once", rows=table.promised)
                return
            if NUMBER in table.names and "order" not in table.names:
                yield from table.flat_orders(source, rules)
            else:
                yield from table.orders(source, rules)
            if table.fault is not None:
                of = f" of {table.promised}" if table.promised else ""
                message = f"the file cannot be read after row {table.read}{of}: {table.fault.message}"
                yield reject_file(source, message, table.fault.code, rows=max(0, table.promised - table.read))


def footer_rows(stream: IO[bytes] | HashedStream) -> int:
    """The number of rows that the footer declares, for a file of any name; 0 if it is not Parquet."""
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        with _opened(copy) as table:
            return table.promised


class _Table:
    """What the process of `parquet_rows` prints: `names` of columns and `promised` rows, then the rows.

    `read` counts the rows so far. `fault` says at the end why the file could not be read to its end.
    """

    def __init__(self, printed: IO[bytes]) -> None:
        self._printed = lines(printed, 2 * MAX_ORDER_BYTES)
        self.names: list[str] = []
        self._fields: dict[str, str] = {}
        self.promised = self.read = 0
        self.fault: Fault | None = Fault(
            "it is damaged or not Parquet, or takes too much memory or time to decode"
        )
        first = self._next()
        if first[0] == parquet_rows.NAMES:
            self.names = without_blanks(first[2])
            self._fields = dict(zip(first[2], self.names, strict=True))
            self.promised = first[1] if 0 <= first[1] <= MOST_ROWS else 0

    def orders(self, source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
        for row, faults in self._rows():
            if row is None:
                origin = Origin(source, self.read, 1, sha256(f"{self.read}: too large"), "")
                message = f"the row has more than {MAX_ORDER_BYTES} bytes"
                yield reject(origin, Reason("", "too_large", message))
            else:
                reasons = (Reason(path.removeprefix("order."), "unreadable", _UNREADABLE) for path in faults)
                yield evaluate_cells(row, source, self.read, rules, tuple(reasons))

    def flat_orders(self, source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
        names = [SHORT_NAMES.get(name, name) for name in self.names]
        reasons = list(header_faults(names))
        if reasons:
            yield reject_file(
                source, "; ".join(f"{r.field}: {r.message}" for r in reasons), rows=self.promised
            )
            self.fault = None
        else:
            for row in gather(self._flat_rows(), source, rules):
                if isinstance(row, BadRow) and row.file_fault:
                    self.fault = None  # no second one
                    row = replace(row, rows=max(row.rows, self.promised))
                yield row

    def _flat_rows(self) -> Iterator[Row]:
        for row, faults in self._rows():
            if row is None:
                yield self.read, {UNFIT: f"has more than {MAX_ORDER_BYTES} bytes"}
                continue
            cells = {
                SHORT_NAMES.get(name, name): unwrapped(name, cell_text(cell)) for name, cell in row.items()
            }
            nested = [name for name, cell in row.items() if isinstance(cell, list | dict)]
            misplaced = [name for name in nested if SHORT_NAMES.get(name, name) not in JSON_TEXT]
            if faults or misplaced:
                cells = {name: cells[name] for name in (SELLER, NUMBER) if name in cells}
                said = _UNREADABLE if faults else "holds a list or an object where a single value belongs"
                cells[UNFIT] = f"{said}: {', '.join((faults or misplaced)[:10])}"
            yield self.read, {name: cell for name, cell in cells.items() if cell.strip()}

    def _rows(self) -> Iterator[tuple[dict[str, Any] | None, list[str]]]:
        """The rows, None for one that is too large."""
        while (printed := self._next())[0] in (parquet_rows.ROW, parquet_rows.LARGE):
            self.read += 1
            if printed[0] == parquet_rows.LARGE:
                yield None, []
                continue
            yield {self._fields.get(name, name): cell for name, cell in printed[1].items()}, printed[2]

    def _next(self) -> list[Any]:
        line = next(self._printed, None)
        printed: Any = [None]  # the process has ended early, or has printed a line without end
        if line is not None and line.has_end and not line.is_cut:
            printed = decode(line.content)
        if printed[0] == parquet_rows.END:
            is_short = self.read < self.promised
            self.fault = Fault("it is damaged (rows are missing)") if is_short else None
        elif printed[0] == parquet_rows.DAMAGED:
            self.fault = Fault(printed[2], printed[1])
        return list(printed)


_UNREADABLE = (
    "holds a value that cannot be read, such as a date beyond the calendar or bytes that are not UTF-8"
)


@contextmanager
def _opened(copy: IO[bytes]) -> Iterator[_Table]:
    """The table in a file, read by a process that ends with the block."""
    copy.seek(0)
    starts = copy.read(len(MAGIC)) == MAGIC
    if not starts or not copy.seek(-len(MAGIC), os.SEEK_END) or copy.read() != MAGIC:
        yield _Table(io.BytesIO())  # not worth a process
        return
    max_cpu_s = 60 + copy.seek(0, os.SEEK_END) // CPU_BYTES_PER_S
    copy.seek(0)
    limits = (str(MAX_ORDER_BYTES), str(MAX_MEMORY_BYTES), str(max_cpu_s))
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ENVIRONMENT
    with subprocess.Popen(  # noqa: S603 - a program of this package
        [sys.executable, "-P", parquet_rows.__file__, *limits],
        stdin=copy,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        try:
            yield _Table(cast("IO[bytes]", process.stdout))
        finally:
            process.kill()
