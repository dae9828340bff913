"""Converts a table row of `seller_id` and `order`, from Parquet or SQL, to the types that a JSON decoder returns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from feedamp.inbox.jsonl import NotJsonError, decode
from feedamp.order_body import BodyRules, Reason, storable
from feedamp.order_body.rows import BadRow, OrderRow, Origin, judge, reject

_ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


def evaluate_cells(
    row: Mapping[str, object],
    source: str,
    row_number: int,
    rules: BodyRules,
    faults: tuple[Reason, ...] = (),
) -> OrderRow | BadRow:
    """The order or reject of a row; column `order` is a struct or JSON text. `faults` were found while reading the row."""
    content = {name: _plain(value) for name, value in row.items()}
    if isinstance(content.get("order"), str):
        try:
            content["order"] = decode(content["order"].encode("utf-8", "backslashreplace"))
        except NotJsonError as error:
            faults = (*faults, Reason("order", "wrong_type", f"the text {error}"))
    content = {name: value for name, value in content.items() if value is not None}
    raw = storable(_ENCODER.encode(content).decode())
    origin = Origin(source, row_number, 1, hashlib.sha256(raw.encode()).hexdigest(), raw)
    return reject(origin, *faults, content=content) if faults else judge(origin, content, rules)


def _plain(value: object) -> Any:
    """A cell as a JSON decoder would return it.

    Null members are left out, because every row of a Parquet struct has all members. Dates and times become text,
    floats become exact decimals.
    """
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo is None else f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return value.isoformat() if isinstance(value, date) else value
