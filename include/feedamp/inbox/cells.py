"""Evaluates a table row of `seller_id` and `order`, from Parquet or SQL, as a row of JSON."""

from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from feedamp.inbox.jsonl import NotJsonError, decode
from feedamp.inbox.parquet_rows import ENCODER, plain
from feedamp.order_body import BadRow, BodyRules, OrderRow, Reason, storable
from feedamp.order_body.rows import MAX_ORDER_BYTES, Origin, judge, kept, reject, sha256, unreadable

EXACT_DIGITS = 15  # a binary float preserves any decimal of up to this many digits


def evaluate_cells(
    row: Mapping[str, object], source: str, row_number: int, rules: BodyRules, faults: tuple[Reason, ...] = ()
) -> OrderRow | BadRow:
    """The order or reject of a row; column `order` is a struct or JSON text. `faults` were found while reading the row."""
    try:
        content = plain(row)
        content["seller_id"] = _id_in(content.get("seller_id"))
        order = content.get("order")
        if isinstance(order, str):
            try:
                content["order"] = decode(order.lstrip("\ufeff").encode("utf-8", "backslashreplace"))
            except NotJsonError as error:
                faults = (*faults, Reason("order", "unreadable", f"the text {error}"))
        content = {name: value for name, value in content.items() if value is not None}
        raw = storable(ENCODER.encode(content).decode())
    except Exception as error:  # noqa: BLE001 - whatever a cell raises costs its row alone
        text = f"{row_number}: {type(error).__name__}"
        with suppress(Exception):
            text = ascii(row)  # the same in every run, although the row may be at another position
        origin = Origin(source, row_number, 1, sha256(text), "")
        return reject(origin, *faults, unreadable(error), content=row)
    if len(raw) > MAX_ORDER_BYTES:
        message = f"the row has more than {MAX_ORDER_BYTES} bytes"
        origin = Origin(source, row_number, 1, sha256(raw), kept(raw))
        return reject(origin, *faults, Reason("", "too_large", message), content=content)
    origin = Origin(source, row_number, 1, sha256(raw), raw)
    return reject(origin, *faults, content=content) if faults else judge(origin, content, rules)


def _id_in(value: object) -> object:
    """The digits of a whole number, which databases and data frames often use for ids; any other value as it is."""
    if type(value) is int:
        return str(value)
    whole, _, fraction = str(value).partition(".") if isinstance(value, Decimal) else ("", "", "")
    # With a fraction it may have been a float, which rounds longer numbers.
    is_exact = not fraction or len(whole) <= EXACT_DIGITS
    return whole if whole.isdecimal() and not fraction.strip("0") and is_exact else value


def cell_text(cell: Any) -> str:
    """A plain cell of a flat table as CSV shows it: numbers as they are, lists and objects as JSON, nothing for null."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return ENCODER.encode(cell).decode()
