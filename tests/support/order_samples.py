"""A good order to change one thing in, as several tests need it."""

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
CSV_ROW = {
    "seller_id": "S1",
    "mp_order_number": "M-1",
    "sales_channel": "market.example",
    "customer.full_name": "Robin Vale",
    "purchase_date": "2026-03-02T14:05:00Z",
    "currency": "USD",
    "shipping_address.full_name": "Robin Vale",
    "shipping_address.address1": "12 Harbor Way",
    "shipping_address.city": "Portland",
    "shipping_address.state": "OR",
    "shipping_address.postal_code": "01201",
    "shipping_address.country_code": "USA",
    "marketplace_state": "AWAITING_SHIPMENT",
    "order_lines.mp_line_number": "M-1-1",
    "order_lines.sku": "LAMP-22",
    "order_lines.product_name": "Desk lamp",
    "order_lines.quantity": "4",
    "order_lines.unit_price": "25.50",
}


def good_order(**changes: Any) -> dict[str, Any]:
    """A body in canonical form; `changes` replace its fields."""
    return deepcopy({**ORDER, **changes})


def good_line(**changes: Any) -> dict[str, Any]:
    return deepcopy({**LINE, **changes})


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
