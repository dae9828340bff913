"""What a row of an inbox file turns into: an order to place, or a reject with every reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from feedamp.order_body import BodyRules, Reason, check_body, is_storable, storable

__all__ = ["BadRow", "OrderRow", "Origin", "Reason", "judge", "reject", "reject_file"]

MAX_KEPT_CHARS = 100_000  # of the raw text of a row without an order in it; an order's is kept whole


@dataclass(frozen=True)
class Origin:
    """Where a row stands and what it says.

    `row_number` is the line (JSONL, Parquet) or spreadsheet row (CSV, the header is 1; the first one of the
    order), 0 for a fault of the file as a whole. `rows` is how many rows of the file it stands for. `raw` is
    its text as read, for CSV a JSON list with an object per row; `row_hash` the SHA-256 of that.
    """

    source: str
    row_number: int
    rows: int
    row_hash: str
    raw: str = field(repr=False)


@dataclass(frozen=True)
class OrderRow(Origin):
    """A good row; `body` is the canonical PUT body (see `order_body.check_body`)."""

    seller_id: str
    mp_order_number: str
    body: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class BadRow(Origin):
    """A row that no order can be made from; the ids are None where they cannot be read.

    `file_fault` says why the file as a whole could not be read to its end; None where the row alone is bad. With row
    number 0 the reject stands for the rest of the file, and `rows` is how many rows are known to be lost with it.
    """

    seller_id: str | None
    mp_order_number: str | None
    reasons: tuple[Reason, ...]
    file_fault: str | None = None


def judge(
    origin: Origin, content: object, rules: BodyRules, faults: tuple[Reason, ...] = ()
) -> OrderRow | BadRow:
    """The verdict on `content`, `{"seller_id": …, "order": …}`; `faults` are reasons found while reading it."""
    body, reasons = check_body(content, rules)
    if body is None or faults or not isinstance(content, Mapping):
        return reject(origin, *faults, *reasons, content=content)
    return OrderRow(
        **vars(origin), seller_id=content["seller_id"], mp_order_number=body["mp_order_number"], body=body
    )


def reject_file(source: str, row_hash: str, message: str, *, rows: int = 0, raw: str = "") -> BadRow:
    """The reject of a file that could not be read to its end; `rows` of it are lost."""
    origin = Origin(source, 0, rows, row_hash, raw)
    return BadRow(
        **vars(origin),
        seller_id=None,
        mp_order_number=None,
        reasons=(Reason("", "wrong_type", message),),
        file_fault=message,
    )


def reject(origin: Origin, *reasons: Reason, content: object = None) -> BadRow:
    """A reject, with the ids of `content` as far as they can be read."""
    order = content.get("order") if isinstance(content, Mapping) else None
    return BadRow(
        **vars(origin),
        seller_id=_identifier(content, "seller_id"),
        mp_order_number=_identifier(order, "mp_order_number"),
        reasons=reasons,
    )


def kept(raw: str) -> str:
    """`raw` fit to be stored, and cut if it is far longer than an order can be."""
    return storable(raw if len(raw) <= MAX_KEPT_CHARS else raw[:MAX_KEPT_CHARS])


def _identifier(content: object, name: str) -> str | None:
    value = content.get(name) if isinstance(content, Mapping) else None
    return value if isinstance(value, str) and is_storable(value) and 1 <= len(value) <= 128 else None
