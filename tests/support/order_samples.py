"""The one example order: what tests, crash trials and benchmarks change one thing in."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

from feedamp.inbox.files import InboxFile
from feedamp.storage import open_storage

LINE: dict[str, Any] = {
    "mp_line_number": "M-1-1",
    "sku": "LAMP-22",
    "product_name": "Desk lamp",
    "quantity": 4,
    "unit_price": Decimal("25.50"),
}
ORDER: dict[str, Any] = {
    "mp_order_number": "M-1",
    "sales_channel": "market.example",
    "customer": {"full_name": "Robin Vale"},
    "purchase_date": "2026-03-02T14:05:00Z",
    "currency": "USD",
    "shipping_address": {
        "full_name": "Robin Vale",
        "address1": "12 Harbor Way",
        "city": "Portland",
        "state": "OR",
        "postal_code": "01201",
        "country_code": "USA",
    },
    "order_lines": [LINE],
    "marketplace_state": "AWAITING_SHIPMENT",
}


def good_order(**changes: Any) -> dict[str, Any]:
    """A body in canonical form; `changes` replace its fields."""
    return deepcopy({**ORDER, **changes})


def good_line(**changes: Any) -> dict[str, Any]:
    return deepcopy({**LINE, **changes})


def example_order(number: str, *, units: int = 2, **changes: Any) -> dict[str, Any]:
    """The same with another number, and one line `<number>-1` of so many units."""
    line = good_line(mp_line_number=f"{number}-1", quantity=units)
    return good_order(**{"mp_order_number": number, "order_lines": [line]} | changes)


def flat(value: dict[str, Any], above: str = "") -> dict[str, str]:
    """The cells of a CSV row for everything but the lines of an order."""
    cells: dict[str, str] = {}
    for name, member in value.items():
        if isinstance(member, dict):
            cells |= flat(member, f"{above}{name}.")
        elif name != "order_lines" and member is not None:
            cells[above + name] = str(member)
    return cells


CSV_ROW = {"seller_id": "S1", **flat(ORDER), **flat(LINE, "order_lines.")}


def jsonl_row(seller_id: str = "S1", **changes: Any) -> bytes:
    """A line of a JSONL file, without its line end."""
    order = good_order(**changes)
    return json.dumps({"seller_id": seller_id, "order": order}, default=float).encode()


def csv_line(number: str, **changes: str) -> dict[str, str]:
    """A row of order M-1; keywords are fields of the line."""
    return (
        CSV_ROW | {"order_lines.mp_line_number": number} | {f"order_lines.{k}": v for k, v in changes.items()}
    )


def csv_text(*rows: dict[str, str], end: str = "\n") -> bytes:
    names = list(dict.fromkeys(name for row in rows or [CSV_ROW] for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def inbox_file(folder: Path, name: str, content: bytes) -> InboxFile:
    """A file as `discover` would give it."""
    path = folder / name
    path.write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    return InboxFile(name, len(content), checksum, "", open_storage("inbox_url", str(folder)))
