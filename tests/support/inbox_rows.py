"""Rows of inbox files with one thing or several spoiled, and the reasons each of them must be given."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from order_samples import csv_text, flat, good_line, good_order

Reasons = frozenset[tuple[str, str]]
Body = dict[str, Any]
LINE = "order_lines[0]."


@dataclass(frozen=True)
class Spoil:
    """A way to spoil an order, and what must be said of it; `csv` where a cell cannot tell the same apart."""

    change: Callable[[Body], None]
    field: str
    code: str
    csv: str | None = None

    def reason(self, kind: str) -> tuple[str, str]:
        return self.field, (self.csv or self.code) if kind == "csv" else self.code


def _set(name: str, value: object) -> Callable[[Body], None]:
    return lambda order: order.update({name: value})


def _line(name: str, value: object) -> Callable[[Body], None]:
    return lambda order: order["order_lines"][0].update({name: value})


def _number(number: str) -> Callable[[Body], None]:
    return lambda order: order.update(mp_order_number=number.format(order["mp_order_number"]))


SPOILS: Mapping[str, Spoil] = {
    "no currency": Spoil(_set("currency", None), "currency", "missing"),
    "unknown currency": Spoil(_set("currency", "ZZZ"), "currency", "out_of_range"),
    "no customer": Spoil(_set("customer", None), "customer", "missing"),
    "no city": Spoil(lambda o: o["shipping_address"].pop("city"), "shipping_address.city", "missing"),
    "naive time": Spoil(_set("purchase_date", "2026-03-02T14:05:00"), "purchase_date", "bad_date"),
    "31 February": Spoil(_set("purchase_date", "2026-02-31T14:05:00Z"), "purchase_date", "bad_date"),
    "unknown state": Spoil(_set("marketplace_state", "LOST"), "marketplace_state", "illegal_transition"),
    "unknown field": Spoil(_set("gift_wrap", "red"), "gift_wrap", "unknown_field"),
    "set by the seller": Spoil(_set("acknowledged", "yes"), "acknowledged", "unknown_field"),
    "a long number": Spoil(_number("{:x<129}"), "mp_order_number", "out_of_range"),
    "a comma": Spoil(_number("{},1"), "mp_order_number", "out_of_range"),
    "a slash": Spoil(_number("{}/../x"), "mp_order_number", "out_of_range"),
    "a smile": Spoil(_number("{}\N{GRINNING FACE}"), "mp_order_number", "out_of_range"),
    "a quote": Spoil(_number('{}"'), "mp_order_number", "out_of_range"),
    "no units": Spoil(_line("quantity", 0), f"{LINE}quantity", "out_of_range"),
    "half a unit": Spoil(_line("quantity", Decimal("2.5")), f"{LINE}quantity", "wrong_type"),
    "units in words": Spoil(_line("quantity", "two"), f"{LINE}quantity", "wrong_type", csv="bad_number"),
    "negative price": Spoil(_line("unit_price", Decimal("-1.00")), f"{LINE}unit_price", "out_of_range"),
    "a tenth of a cent": Spoil(_line("unit_price", Decimal("1.005")), f"{LINE}unit_price", "bad_number"),
    "no sku": Spoil(_line("sku", None), f"{LINE}sku", "missing"),
    "a line twice": Spoil(
        lambda o: o["order_lines"].append({**o["order_lines"][0], "product_name": "Another lamp"}),
        "order_lines[1].mp_line_number",
        "duplicate_line",
    ),
}


@dataclass(frozen=True)
class Row:
    """One order of a file, and the names of what is wrong with it."""

    number: str
    spoiled_by: tuple[str, ...] = ()
    seller: str = "seller-001"
    lines: int = 1

    @property
    def body(self) -> Body:
        lines = [good_line(mp_line_number=f"{self.number}-{i}") for i in range(self.lines)]
        order = good_order(mp_order_number=self.number, order_lines=lines)
        for name in self.spoiled_by:
            SPOILS[name].change(order)
        return order

    def reasons(self, kind: str) -> Reasons:
        said = frozenset(SPOILS[name].reason(kind) for name in self.spoiled_by)
        if "a line twice" not in self.spoiled_by:
            return said
        # The second line is a copy of the first, with all that is wrong with it.
        again = {(f.replace(LINE, "order_lines[1]."), c) for f, c in said if f.startswith(LINE)}
        return said | again


def encoded(kind: str, rows: Sequence[Row]) -> bytes:
    """A file of these rows; in a CSV the lines of an order lie apart."""
    if kind == "jsonl":
        return b"".join(_json(row) + b"\n" for row in rows)
    if kind == "parquet":
        columns = {
            "seller_id": [row.seller for row in rows],
            "order": [json.dumps(row.body, default=float) for row in rows],
        }
        out = io.BytesIO()
        pq.write_table(pa.table(columns), out)
        return out.getvalue()
    cells = [
        (i, {"seller_id": row.seller, **flat(row.body), **line}) for row in rows for i, line in _lines(row)
    ]
    return csv_text(*(row for _, row in sorted(cells, key=lambda cell: cell[0])))


def _json(row: Row) -> bytes:
    return json.dumps(
        {"seller_id": row.seller, "order": row.body}, default=float, ensure_ascii=False
    ).encode()


def _lines(row: Row) -> list[tuple[int, dict[str, str]]]:
    return [(i, flat(line, "order_lines.")) for i, line in enumerate(row.body["order_lines"])]
