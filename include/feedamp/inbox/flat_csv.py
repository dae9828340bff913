"""Flat tables, CSV or Parquet: one order line per row; the rows of an order need not be adjacent.

Rows are collected in a temporary database on disk, so memory does not grow with the file. A file may deliver the same
order several times: `deliveries` separates the deliveries.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import IO, Any

from feedamp.inbox.csv_columns import (
    LINE_NUMBER,
    LINES,
    MONEY,
    NUMBER,
    QUANTITY,
    SELLER,
    columns,
    header_faults,
    order_of,
)
from feedamp.inbox.csv_records import Record, records
from feedamp.inbox.streams import MAX_UNPACKED_BYTES, TextStream
from feedamp.order_body import BadRow, BodyRules, OrderRow, Reason, is_storable
from feedamp.order_body.rows import MAX_ORDER_BYTES, Origin, judge, kept, reject, reject_file, sha256
from feedamp.order_body.shape import IDENTIFIERS
from feedamp.order_body.values import trimmed

# A stored row: its non-empty cells by column. If the row is damaged: the two ids as far as they are known, and under
# UNFIT, which cannot be the name of a column, all cells of a CSV row, or the words that say what is wrong.
Cells = Mapping[str, Any]
Row = tuple[int, Cells]  # its number and its cells
UNFIT = ""
_SIGNS_OF_TEXT = ('="', "'")
_KEPT_AS_TEXT = re.compile("'[0-9+=@-]")
_OR = " or "
_ROW_NAMES = ("", "Unnamed: 0")  # the second is how pandas reads the first, and writes it again
_MAY_BE_THOUSANDS = re.compile(r"\s*[+-]?(?!0+\.)[0-9]{1,3}\.[0-9]{3}\s*", re.ASCII)
MAX_ROWS_BYTES = 4 * MAX_ORDER_BYTES  # each row repeats the names and the order-level cells

MISFIT = "does not fit the header: it has more or fewer cells, or a quote is stray or not closed"

SCHEMA = "create table row (number integer primary key, seller text, mp_order_number text, apart integer, cells text)"
INSERT = "insert into row values (?, ?, ?, ?, ?)"
GATHER = """
    select min(number) over (partition by seller, mp_order_number, apart) as first, number, cells
    from row order by first, number
"""


def read_csv(stream: IO[bytes] | TextStream, source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """The orders by their first rows, each with all its deliveries; blank rows are skipped but counted.

    A row that does not fit the header makes the order whose number it shows a reject, because one of its lines is lost.
    If such a row is the last one and has no line end, the file was cut off, and a reject of the file follows at the end.
    """
    found = records(stream)
    header = next((record for record in found if not record.is_blank), None)
    names = columns(header.cells) if header else []
    faults = list(_file_faults(header, names))
    if faults:
        rows = sum(1 for record in found if not record.is_blank)
        yield _file_reject(source, header, rows, faults)
        return
    cut_at: list[int] = []
    yield from gather(_kept_rows(found, header.cells if header else [], names, cut_at), source, rules)
    for number in cut_at:
        message = f"the file breaks off within row {number}: what came after it is not known"
        yield reject_file(source, message)


def gather(rows: Iterable[Row], source: str, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """The orders of these rows, by their first rows. One whose rows have more than `MAX_ROWS_BYTES` is rejected unread.

    If the cells of all rows have more than `MAX_UNPACKED_BYTES`, nothing is taken: further lines of an order may follow.
    """
    with closing(sqlite3.connect("", check_same_thread=False)) as gathered:
        gathered.execute("pragma journal_mode = off")
        gathered.execute(SCHEMA)
        file_size = 0
        for rows_before, (row_number, cells) in enumerate(rows):
            stored = _stored(row_number, cells)
            file_size += len(stored[-1]) - sum(map(len, cells))  # the names are only in the header
            if file_size > MAX_UNPACKED_BYTES:
                message = f"the cells of the file hold more than {MAX_UNPACKED_BYTES} bytes: split it"
                yield reject_file(source, message, "too_large", rows=rows_before + 1)
                return
            gathered.execute(INSERT, stored)
        for _, members in groupby(gathered.execute(GATHER), key=itemgetter(0)):
            rows_of_order: list[Row] = []
            count = size = 0
            for _, number, text in members:
                count += 1
                size += len(text)
                if size <= MAX_ROWS_BYTES or not rows_of_order:
                    rows_of_order.append((number, json.loads(text)))
            if size > MAX_ROWS_BYTES:
                yield _too_large(source, rows_of_order[0], count)
                continue
            for delivery in deliveries(rows_of_order):
                yield evaluate_order(source, delivery.rows, rules, repeats=delivery.repeats)


def evaluate_order(
    source: str, rows: Sequence[Row], rules: BodyRules, *, repeats: int = 0
) -> OrderRow | BadRow:
    """The order or reject of one delivery's rows (at least one); if they hold several deliveries, the last one counts.

    `repeats`: how many further rows of the file are exact repeats of these; they are counted in `rows`.
    """
    faults = [
        Reason("order_lines", "unreadable", f"row {number} {cells[UNFIT]}")
        if isinstance(cells[UNFIT], str)
        else Reason("order_lines", "wrong_type", f"row {number} {MISFIT}")
        for number, cells in rows
        if UNFIT in cells
    ]
    raw = json.dumps([cells for _, cells in rows], ensure_ascii=False)
    if not is_storable(raw):
        raw = json.dumps([cells for _, cells in rows])
    text = raw if len(raw) <= MAX_ORDER_BYTES else kept(raw)
    origin = Origin(source, rows[0][0], len(rows) + repeats, sha256(raw), text)
    whole = deliveries([row for row in rows if UNFIT not in row[1]])
    if not whole:
        return reject(origin, *faults, content={**rows[0][1], "order": rows[0][1]})
    last = whole[-1].rows
    faults += _differences(last)
    content = {SELLER: last[0][1].get(SELLER), "order": order_of([cells for _, cells in last])}
    return judge(origin, content, rules, tuple(faults), is_table=True)


@dataclass
class Delivery:
    """The rows, with their numbers, that together describe an order once; `repeats` counts exact repeats left out."""

    rows: list[Row] = field(default_factory=list)
    line_numbers: set[str] = field(default_factory=set)
    repeats: int = 0

    def add(self, rows: Sequence[Row], repeats: int) -> None:
        self.rows += rows
        self.line_numbers |= {cells[LINE_NUMBER] for _, cells in rows if LINE_NUMBER in cells}
        self.repeats += repeats


def deliveries(rows: Sequence[Row]) -> list[Delivery]:
    """The deliveries of one order, in the order of their first rows.

    Rows with equal order-level cells belong to the same delivery, wherever they are in the file; an exact repeat of a
    row is only counted. Rows with other order-level cells start a new delivery if they name a line number that the
    previous delivery already has; otherwise they are added to that delivery, whose cells then differ, and it is
    rejected. An order with a row that does not fit the header is one delivery, because it is unknown which delivery
    lacks the line.
    """
    if any(UNFIT in cells for _, cells in rows):
        return [Delivery(list(rows))]
    alike: dict[frozenset[tuple[str, str]], Delivery] = {}
    seen: set[frozenset[tuple[str, str]]] = set()
    for number, cells in rows:
        everything = frozenset(cells.items())
        whole_order = frozenset(item for item in everything if not item[0].startswith(LINES))
        group = alike.setdefault(whole_order, Delivery())
        if LINE_NUMBER in cells and everything in seen:
            group.repeats += 1
        else:
            seen.add(everything)
            group.add([(number, cells)], 0)
    found: list[Delivery] = []
    for group in alike.values():
        if found and group.line_numbers.isdisjoint(found[-1].line_numbers):
            found[-1].add(group.rows, group.repeats)
        else:
            found.append(group)
    for delivery in found:
        delivery.rows.sort(key=itemgetter(0))
    return found


def kept_rows(raw: str) -> list[Cells]:
    """The rows of the order that is stored as `raw`; none if it holds something else, such as a header."""
    try:
        rows = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    is_order = isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(cell, str) for name, cell in row.items() if name != UNFIT)
        for row in rows
    )
    return rows if is_order else []


def _differences(rows: Sequence[Row]) -> Iterator[Reason]:
    (first_number, first), *others = rows
    differing: dict[str, list[int]] = {}
    for number, cells in others:
        for name in first.keys() | cells.keys():
            if not name.startswith(LINES) and first.get(name) != cells.get(name):
                differing.setdefault(name, []).append(number)
    for name, numbers in sorted(differing.items()):
        shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
        message = f"row {first_number} differs from row {shown}: repeat the same text on every row"
        yield Reason(name, "body_changed", message)


def _kept_rows(
    found: Iterator[Record], header: list[str], names: list[str], cut_at: list[int]
) -> Iterator[Row]:
    """Every row that holds data; adds the number of a row that is cut off to `cut_at`.

    Numbers of rows in the first column, which pandas and R add unasked, are left out.
    """
    has_row_names = trimmed(header[0]) in _ROW_NAMES
    for record in found:
        if record.is_blank or record.cells == header:  # where two files were joined, the header comes again
            continue
        cells = [
            unwrapped(name, cell) if cell.startswith(_SIGNS_OF_TEXT) else cell
            for name, cell in zip(chain(names, repeat("")), record.cells, strict=False)
        ]
        if record.separator != ",":
            cells = list(map(_unclear, chain(names, repeat("")), cells))
        if not any(map(str.strip, cells[len(names) :])):
            cells = cells[: len(names)]
        if not record.has_end and (record.fault or len(cells) < len(names)):
            cut_at.append(record.row_number)
        kept_cells = dict(zip(names, cells, strict=False))
        if record.fault or len(cells) != len(names):
            ids = {name: cell for name, cell in kept_cells.items() if name in (SELLER, NUMBER)}
            yield record.row_number, {**ids, UNFIT: cells}
        else:
            if has_row_names and cells[0].isdecimal():
                del kept_cells[names[0]]
            if kept_cells := {name: cell for name, cell in kept_cells.items() if cell.strip()}:
                yield record.row_number, kept_cells


def _unclear(name: str, cell: str) -> str:
    """A number that is a thousand to a spreadsheet that writes decimals with commas, with both readings, so that it is rejected."""
    if name in (QUANTITY, *MONEY) and _MAY_BE_THOUSANDS.fullmatch(cell):
        return f"{cell}{_OR}{cell.strip().replace('.', '')}"
    return cell


def as_delivered(rows: Sequence[Cells]) -> list[Cells]:
    """Kept rows whose cells are as the file has them: of a number with both readings, only the first."""
    return [{name: _first_reading(name, cell) for name, cell in row.items()} for row in rows]


def _first_reading(name: str, cell: Any) -> Any:
    first = str(cell).partition(_OR)[0]
    return first if _unclear(name, first) == cell else cell


def unwrapped(name: str, cell: str) -> str:
    """The text in `="01220"`, or in an identifier behind the apostrophe of `'01220`.

    Both tell a spreadsheet to leave the text as it is; some exports put the apostrophe in front of each `+` or digit.
    """
    if cell.startswith('="') and cell.endswith('"'):
        return cell[2:-1].replace('""', '"')
    return cell[1:] if name in IDENTIFIERS and _KEPT_AS_TEXT.match(cell) else cell


def _stored(number: int, cells: Cells) -> tuple[int, str, str, int, str]:
    """A row for the temporary table; `apart` keeps rows without seller or order number from forming one order."""
    seller, order_number = trimmed(cells.get(SELLER, "")), cells.get(NUMBER, "")
    apart = 0 if seller and order_number.strip() else number
    if seller:
        cells = {**cells, SELLER: seller}
    return number, _escaped(seller), _escaped(order_number), apart, json.dumps(cells)


def _escaped(text: str) -> str:
    """Text that SQLite can store; different texts stay different."""
    return text if is_storable(text) and "\\" not in text else json.dumps(text)


def _too_large(source: str, first: Row, count: int) -> BadRow:
    number, cells = first
    message = f"the rows of the order ({count}) hold more than {MAX_ROWS_BYTES} bytes, which is more than an order may have"
    raw = json.dumps([cells])
    origin = Origin(source, number, count, sha256(f"{count}: {raw}"), kept(raw))
    return reject(origin, Reason("order_lines", "too_large", message), content={**cells, "order": cells})


def _file_faults(header: Record | None, names: list[str]) -> Iterator[Reason]:
    if header is None:
        yield Reason("", "missing", "the file or its first row is empty: the first row must name the columns")
    elif header.fault:
        yield Reason("", "unreadable", f"the header {header.fault}")
    elif not all(is_storable(cell) for cell in header.cells):
        yield Reason("", "unreadable", "the header is not UTF-8: save the file as CSV UTF-8")
    else:
        yield from header_faults(names)


def _file_reject(source: str, header: Record | None, rows: int, faults: list[Reason]) -> BadRow:
    raw = kept(json.dumps([header.cells if header else []], ensure_ascii=False))
    said = "; ".join(f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in faults)
    return replace(reject(Origin(source, 0, rows, sha256(raw), raw), *faults), file_fault=said)
