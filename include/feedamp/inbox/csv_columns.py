"""Maps the columns of a flat CSV file to the fields of an order and their types."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from feedamp.inbox.jsonl import NotJsonError, decode
from feedamp.order_body import Reason, storable
from feedamp.order_body.spreadsheet_damage import NOTHING
from feedamp.order_body.values import trimmed

SELLER, NUMBER, LINES = "seller_id", "mp_order_number", "order_lines."
SHORT_NAMES = {"taxes": "order_lines.taxes", "discounts": "order_lines.discounts"}
MAX_COLUMNS = 1_000
LINE_NUMBER = "order_lines.mp_line_number"
QUANTITY = "order_lines.quantity"
MONEY = ("order_lines.unit_price", "order_lines.shipping_price")
JSON_TEXT = ("order_lines.taxes", "order_lines.discounts")

SPREADSHEET_ERRORS = ("#", "Err:", "Loading...")

# A zero of 18 decimals is 0E-18 to Spark and Parquet; of another number, an exponent may have cost digits.
_NUMBER = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+|0(\.0*)?[eE][+-]?[0-9]{1,3})\s*", re.ASCII)
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,18})(\.0*)?\s*", re.ASCII)  # spreadsheets write 4 as 4.0


def columns(header: list[str]) -> list[str]:
    """Full names of the columns; see `without_blanks`."""
    return [storable(SHORT_NAMES.get(name, name)) for name in without_blanks(header)]


def without_blanks(header: list[str]) -> list[str]:
    """The names without blanks and byte order marks around them; an unnamed column has its position from 1, e.g. `column_3`."""
    return [trimmed(name) or f"column_{position}" for position, name in enumerate(header, 1)]


def header_faults(names: list[str]) -> Iterator[Reason]:
    """Why no order can be read with these columns."""
    missing = [name for name in (SELLER, NUMBER) if name not in names]
    # Not guessed: a spreadsheet that writes semicolons usually writes numbers with commas, too, which are not read.
    other = next((sign for sign in ";|" if len(names) == 1 and sign in names[0]), None)
    way_out = f": put the line sep={other} above the header, or save the file with commas" if other else ""
    for name in missing:
        message = f"the header has no such column; columns are separated by commas{way_out}"
        yield Reason(name, "missing", message)
    if missing:  # the row may be an order and not a header, so the messages must not repeat its values
        return
    if len(names) > MAX_COLUMNS:
        yield Reason("", "too_large", f"the header has more than {MAX_COLUMNS} columns")
        return
    for name, times in Counter(names).items():
        if times > 1:
            yield Reason(name, "wrong_type", "the header has this column more than once")
    for name in sorted(set(names)):
        if any(other.startswith(f"{name}.") for other in names):
            yield Reason(name, "wrong_type", "the header has this column and columns for its members too")


def order_of(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The order that these rows describe, with one line per row, from their non-empty cells."""
    order: dict[str, Any] = {}
    order_lines = []
    for row in rows:
        line: dict[str, Any] = {}
        for name, cell in row.items():
            if name == SELLER:
                continue
            if name.startswith(LINES):
                _put(line, name.removeprefix(LINES), _value(name, cell))
            else:
                _put(order, name, cell)
        order_lines.append(line)
    return {**order, "order_lines": order_lines}


def _put(target: dict[str, Any], name: str, value: object) -> None:
    *above, last = name.split(".")
    for step in above:
        target = target.setdefault(step, {})
    target[last] = value


def _value(name: str, cell: str) -> object:
    """The cell as the type of its field; if it cannot be converted, `check_body` rejects it later."""
    if cell.lstrip().startswith(SPREADSHEET_ERRORS) or cell.strip() in NOTHING:
        return cell  # as it is, for `check_body` to say what it is
    if name in MONEY:
        return _number(cell)
    if name == QUANTITY:
        whole = _WHOLE.fullmatch(cell)
        return int(whole[1]) if whole else _number(cell)
    if name in JSON_TEXT:
        try:
            return decode(cell.encode("utf-8", "surrogateescape"))
        except NotJsonError:
            return cell
    return cell


def _number(cell: str) -> Decimal:
    """The cell as a number; other text becomes NaN, which `check_body` rejects as a bad number."""
    return Decimal(cell.strip()) if _NUMBER.fullmatch(cell) else Decimal("NaN")
