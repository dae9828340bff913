"""An inbox file of orders that were not placed yet."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from order_samples import good_line, jsonl_row

JSONL = "orders.jsonl"
LINES = 2


def write_inbox(folder: Path, orders_each: int, sellers: int) -> Path:
    """The path of a JSONL file with so many orders of each seller, one seller after another."""
    path = folder / JSONL
    with path.open("wb") as file:
        for seller in range(sellers):
            for order in range(orders_each):
                number = f"MKT-{seller:03d}-{order:06d}"
                lines = [good_line(mp_line_number=f"{number}-{line}", quantity=2) for line in range(LINES)]
                file.write(jsonl_row(f"S{seller:03d}", mp_order_number=number, order_lines=lines) + b"\n")
    return path
