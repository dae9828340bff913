"""How long it takes to prove that nothing is missing in the warehouse, and how much memory.

python benchmarks/completeness.py                      100,000 and 1,000,000 orders of 50 sellers
python benchmarks/completeness.py --orders 20000

Every fourth order is closed, every second one has a snapshot. State and warehouse are filled directly. "added" is the
most the process held (VmHWM) less what it held before the first comparison; Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from memory import furnish, resources_in, status_mb

from feedamp.state.schema import orders, snapshots
from feedamp.steps.completeness_proof import compare
from feedamp.steps.completeness_proof.compare import find_quickly
from feedamp.steps.completeness_proof.found_differences import FoundDifferences

API = "http://127.0.0.1:9/api/v1"
SELLERS = 50
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
ROWS_AT_ONCE = 20_000


def fill(folder: Path, count: int) -> None:
    """Fills state and warehouse with this many orders."""
    furnish(folder)
    parts = resources_in(folder, API)
    for start in range(0, count, ROWS_AT_ONCE):
        rows, shown = [], []
        for at in range(start, min(count, start + ROWS_AT_ONCE)):
            key = {"seller_id": f"S{at % SELLERS:03d}", "mp_order_number": f"MKT-{at:09d}"}
            is_closed = at % 4 == 0
            state = "SHIPPED" if is_closed else "AWAITING_SHIPMENT"
            rows.append(
                {
                    **key,
                    "phase": "closed" if is_closed else "settled",
                    "body": "{}",
                    "body_hash": "",
                    "desired_state": state,
                    "accepted_state": state,
                    "body_kind": "whole",
                    "delivered": "[]",
                    "purchase_date": NOON,
                    "source": "a.jsonl",
                    "source_row": at,
                    "row_hash": "",
                    "taken_at": NOON,
                    "first_put_at": NOON + timedelta(seconds=1),
                    "placed_at": NOON + timedelta(seconds=2),
                    "attempts": 0,
                    "closing_state": "SHIPPED" if is_closed else None,
                    "closed_at": NOON + timedelta(days=1) if is_closed else None,
                }
            )
            if at % 2:
                shown.append(
                    {
                        **key,
                        "read_at": NOON + timedelta(hours=1),
                        "snapshot_hash": "",
                        "snapshot": "{}",
                        "closable": False,
                        "needs_person": False,
                    }
                )
        with parts.state.begin() as connection:
            connection.execute(sa.insert(orders), rows)
            if shown:
                connection.execute(sa.insert(snapshots), shown)
    with parts.warehouse.session() as session:
        run = session._engine.execute  # noqa: SLF001 - no session takes rows but of a lake
        key = f"printf('S%03d', n % {SELLERS}), printf('MKT-%09d', n)"
        numbers = f"FROM range({count}) r(n)"
        moment = "TIMESTAMPTZ '2026-03-10 12:00:00+00'"
        run(
            f"INSERT INTO feedamp.orders (seller_id, mp_order_number, units_ordered, units_shipped, units_cancelled, "
            f"placed_at, extracted_at) SELECT {key}, 2, 2, 0, {moment} + INTERVAL 2 SECOND, "
            f"CASE WHEN n % 2 = 1 THEN {moment} + INTERVAL 1 HOUR END {numbers}"
        )
        run(
            f"INSERT INTO feedamp.order_lines (seller_id, mp_order_number, mp_line_number, quantity, units_shipped, "
            f"units_cancelled) SELECT {key}, '1', 2, 2, 0 {numbers}"
        )
        run(
            f"INSERT INTO feedamp.shipments (seller_id, mp_order_number, mp_line_number, shipment_index, quantity) "
            f"SELECT {key}, '1', 0, 2 {numbers}"
        )
        run(
            f"INSERT INTO feedamp.placements (seller_id, mp_order_number, marketplace_state, placed_at) "
            f"SELECT {key}, 'AWAITING_SHIPMENT', {moment} + INTERVAL 2 SECOND {numbers}"
        )
        run(
            f"INSERT INTO feedamp.closures (seller_id, mp_order_number, marketplace_state, closed_at) "
            f"SELECT {key}, 'SHIPPED', {moment} + INTERVAL 1 DAY {numbers} WHERE n % 4 = 0"
        )
    parts.state.close()


def work(what: str, folder: Path) -> dict[str, float]:
    """One comparison here: seconds and megabytes."""
    import duckdb  # noqa: F401 - part of the process before any row

    parts = resources_in(folder, API)
    before_mb, began = status_mb("VmRSS"), time.monotonic()
    with FoundDifferences() as found:
        compare.ORDERS_COMPARED_QUICKLY = sys.maxsize if what == "all" else 0
        find_quickly(parts, parts.warehouse, found)
        if found:
            raise SystemExit(f"{found.counts()} {found.first(3)}")
    took_s = time.monotonic() - began
    parts.state.close()
    return {"s": round(took_s, 1), "added_mb": round(status_mb("VmHWM") - before_mb)}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--orders", type=int, action="append")
    asked.add_argument("--work", nargs=2, metavar=("WHAT", "FOLDER"))
    given = asked.parse_args()
    if given.work:
        print(json.dumps(work(given.work[0], Path(given.work[1]))))
        return
    for count in given.orders or (100_000, 1_000_000):
        with TemporaryDirectory() as made:
            fill(Path(made), count)
            for what, words in (("all", "each order compared"), ("counted", "counted by seller")):
                command = [sys.executable, __file__, "--work", what, made]
                done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                print(f"{count:>9} orders, {words}: {done['s']} s, {done['added_mb']} MB added", flush=True)


if __name__ == "__main__":
    main()
