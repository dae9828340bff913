"""The result of reading an inbox row: an order to place, or a reject with every reason."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from feedamp.order_body.body_options import BodyRules
from feedamp.order_body.check import check_body
from feedamp.order_body.reject_reasons import BadValueError, Reason, ReasonCode, capped, is_storable, storable
from feedamp.order_body.values import MAX_KEY_CHARS, marketplace_state, seller_id, trimmed

# Limit of an order's text: thirty thousand lines. FeedAMP states no limit (contract Q30).
MAX_ORDER_BYTES = 8 << 20
# Limit of the raw text of a row that holds no order; an order's text is stored whole.
MAX_KEPT_CHARS = 100_000
# Fields, and places of faults, without which it is not known which order is to change to which state.
_OF_THE_ORDER = {"", "order", "seller_id", "mp_order_number", "marketplace_state"}


@dataclass(frozen=True)
class Origin:
    """The place and the text of a row.

    `row_number` is the line (JSONL), the row (Parquet) or the spreadsheet row of the order's first line (CSV; the header
    is 1); 0 for a fault of the whole file. `rows` is the number of file rows that it covers. `raw` is the text as read,
    for CSV a JSON list with an object per row; `row_hash` is its SHA-256.
    """

    source: str
    row_number: int
    rows: int
    row_hash: str
    raw: str = field(repr=False)


@dataclass(frozen=True)
class OrderRow(Origin):
    """A valid row; `body` is the canonical PUT body (see `order_body.check_body`).

    `was_delivered`: the ledger has the order from the same text, so it changes nothing; then `raw` and `body` are empty.
    """

    seller_id: str
    mp_order_number: str
    body: dict[str, Any] = field(repr=False)
    was_delivered: bool = False


@dataclass(frozen=True)
class BadRow(Origin):
    """A rejected row; the ids are None if they cannot be read.

    `state` is the `marketplace_state` that it gives its order, None unless all its faults are of other fields.
    `file_fault` says why the file could not be read to its end; None if only this row is bad. A reject with row number 0
    covers the rest of the file, and `rows` is the number of rows known to be lost.
    """

    seller_id: str | None
    mp_order_number: str | None
    reasons: tuple[Reason, ...]
    file_fault: str | None = None
    state: str | None = None


def judge(
    origin: Origin,
    content: object,
    rules: BodyRules,
    faults: tuple[Reason, ...] = (),
    *,
    is_table: bool = False,
) -> OrderRow | BadRow:
    """The order or reject of `content`, `{"seller_id": …, "order": …}`; `faults` were found while reading it."""
    try:
        body, reasons = check_body(content, rules, is_table=is_table)
    except Exception as error:  # noqa: BLE001 - whatever a value raises costs its row alone
        return reject(origin, *faults, unreadable(error), content=content)
    if body is None or faults or not isinstance(content, Mapping):
        rejected = reject(origin, *faults, *reasons, content=content)
        return replace(rejected, state=_state(content, (*faults, *reasons)))
    return OrderRow(
        **vars(origin),
        seller_id=trimmed(content["seller_id"]),
        mp_order_number=body["mp_order_number"],
        body=body,
    )


def _state(content: object, reasons: Iterable[Reason]) -> str | None:
    """The state in `content`, if neither it nor the order's identity is at fault."""
    if not isinstance(content, Mapping) or _OF_THE_ORDER.intersection(reason.field for reason in reasons):
        return None
    return marketplace_state(content["order"]["marketplace_state"])


def unreadable(error: Exception) -> Reason:
    """The reason for a row that raised an unexpected error."""
    return Reason("", "unreadable", f"the row holds a value that cannot be read ({type(error).__name__})")


def reject_file(source: str, message: str, code: ReasonCode = "unreadable", *, rows: int = 0) -> BadRow:
    """The reject of a file that could not be read to its end; `rows` is the number of lost rows."""
    origin = Origin(source, 0, rows, sha256(message), "")
    return replace(reject(origin, Reason("", code, message)), file_fault=message)


def reject(origin: Origin, *reasons: Reason, content: object = None) -> BadRow:
    """A reject with the ids of `content`, if they can be read."""
    order = content.get("order") if isinstance(content, Mapping) else None
    return BadRow(
        **vars(origin),
        seller_id=_identifier(content, "seller_id"),
        mp_order_number=_identifier(order, "mp_order_number"),
        reasons=capped(reasons),
    )


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def kept(raw: str) -> str:
    """`raw` made safe to store, and cut if it is far longer than an order can be."""
    return storable(raw if len(raw) <= MAX_KEPT_CHARS else raw[:MAX_KEPT_CHARS])


def _identifier(content: object, name: str) -> str | None:
    value = content.get(name) if isinstance(content, Mapping) else None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        value = _digits(value)
    if not isinstance(value, str) or not is_storable(value):
        return None
    if name == "seller_id":
        try:
            return seller_id(value)
        except BadValueError:  # no seller can have it, and a log or a page would show it
            return None
    return value if 1 <= len(value) <= MAX_KEY_CHARS else None


def _digits(value: float | Decimal) -> str | None:
    """A whole number as the text that it should have been."""
    if not isinstance(value, int) and not math.isfinite(value):
        return None
    if not 0 <= value < 10**MAX_KEY_CHARS or value != int(value):
        return None
    return str(int(value))
