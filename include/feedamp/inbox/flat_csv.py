"""Flat CSV: one order line a row; the rows of an order may lie apart.

Rows are gathered in a temporary database on disk, so memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

from feedamp.inbox.csv_columns import LINES, NUMBER, SELLER, columns, header_faults, order_of
from feedamp.inbox.csv_records import Record, records
from feedamp.inbox.rows import BadRow, OrderRow, Origin, judge, kept, reject
from feedamp.order_body import BodyRules, Reason, is_storable

# A row as it is kept: its filled cells by column. Where they do not fit the header, the two ids as far as
# they can be told, and all cells in a list under UNFIT, which no column is called.
Cells = Mapping[str, Any]
UNFIT = ""

MISFIT = "does not fit the header: it has more or fewer cells, or a quote is stray or not closed"

SCHEMA = "create table row (number integer primary key, seller text, mp_order_number text, apart integer, cells text)"
INSERT = "insert into row values (?, ?, ?, ?, ?)"
GATHER = """
    select min(number) over (partition by seller, mp_order_number, apart) as first, number, cells
    from row order by first, number
"""


def read_csv(stream: IO[bytes], source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """Each order where its first row stands; blank rows are skipped but counted.

    A row that does not fit the header spoils the order whose number it shows, since a line of it is lost.
    """
    found = records(stream)
    header = next(found, None)
    names = columns(header.cells) if header else []
    faults = list(_file_faults(header, names))
    if faults:
        rows = sum(1 for record in found if any(record.cells))
        yield _file_reject(source, header, rows, faults)
        return
    with closing(sqlite3.connect("", check_same_thread=False)) as gathered:
        gathered.execute("pragma journal_mode = off")
        gathered.execute(SCHEMA)
        gathered.executemany(INSERT, (_kept_row(record, names) for record in found if any(record.cells)))
        for _, members in groupby(gathered.execute(GATHER), key=itemgetter(0)):
            yield judge_order(source, [(number, json.loads(cells)) for _, number, cells in members], rules)


def judge_order(source: str, rows: Sequence[tuple[int, Cells]], rules: BodyRules) -> OrderRow | BadRow:
    """The verdict on one order by its rows, `(row number, cells)`, at least one."""
    whole = [(number, cells) for number, cells in rows if UNFIT not in cells]
    faults = [
        Reason("order_lines", "wrong_type", f"row {number} {MISFIT}")
        for number, cells in rows
        if UNFIT in cells
    ]
    raw = json.dumps([cells for _, cells in rows], ensure_ascii=False)
    if not is_storable(raw):
        raw = json.dumps([cells for _, cells in rows])
    origin = Origin(source, rows[0][0], len(rows), hashlib.sha256(raw.encode()).hexdigest(), raw)
    if not whole:
        return reject(origin, *faults, content={**rows[0][1], "order": rows[0][1]})
    faults += _differences(whole)
    first = whole[0][1]
    content = {SELLER: first.get(SELLER), "order": order_of([cells for _, cells in whole])}
    return judge(origin, content, rules, tuple(faults))


def kept_rows(raw: str) -> list[Cells]:
    """The rows of an order that was kept as `raw`; none if it holds something else, such as a header."""
    try:
        rows = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    is_order = isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(cell, str) for name, cell in row.items() if name != UNFIT)
        for row in rows
    )
    return rows if is_order else []


def _differences(rows: Sequence[tuple[int, Cells]]) -> Iterator[Reason]:
    """Fields of the order as a whole that its rows do not agree on."""
    (first_number, first), *others = rows
    differing: dict[str, list[int]] = {}
    for number, cells in others:
        for name in first.keys() | cells.keys():
            if not name.startswith(LINES) and first.get(name) != cells.get(name):
                differing.setdefault(name, []).append(number)
    for name, numbers in sorted(differing.items()):
        shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
        message = f"row {first_number} says otherwise than row {shown}: repeat the same text on every row"
        yield Reason(name, "body_changed", message)


def _kept_row(record: Record, names: list[str]) -> tuple[int, str, str, int, str]:
    """A row for the temporary table; `apart` keeps rows without an order number from making up one order."""
    cells = record.cells
    ids = {name: cell for name, cell in zip(names, cells, strict=False) if name in (SELLER, NUMBER)}
    seller, number = ids.get(SELLER, ""), ids.get(NUMBER, "")
    apart = 0 if seller.strip() and number.strip() else record.row_number
    kept_cells: Cells = {**ids, UNFIT: cells}
    if not record.fault and len(cells) == len(names):
        kept_cells = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
    return record.row_number, _escaped(seller), _escaped(number), apart, json.dumps(kept_cells)


def _escaped(text: str) -> str:
    """Text that SQLite takes; two texts that differ stay different."""
    return text if is_storable(text) and "\\" not in text else json.dumps(text)


def _file_faults(header: Record | None, names: list[str]) -> Iterator[Reason]:
    if header is None or not any(header.cells):
        yield Reason("", "missing", "the file is empty or its first row is: that row must name the columns")
    elif header.fault:
        yield Reason("", "wrong_type", f"the header {header.fault}")
    elif not all(is_storable(cell) for cell in header.cells):
        yield Reason("", "wrong_type", "the header is not UTF-8: save the file as CSV UTF-8")
    else:
        yield from header_faults(names)


def _file_reject(source: str, header: Record | None, rows: int, faults: list[Reason]) -> BadRow:
    raw = kept(json.dumps([header.cells if header else []], ensure_ascii=False))
    digest = hashlib.sha256(raw.encode()).hexdigest()
    return reject(Origin(source, 1 if header else 0, rows, digest, raw), *faults)
