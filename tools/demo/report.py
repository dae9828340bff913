"""The result of the demo, read from the warehouse, the ledger and the sandbox's own counts.

A program of its own, with the demo's environment: python report.py HOME CONTROL FIRST LAST, where CONTROL is the address
of the sandbox's `/_sandbox` and FIRST to LAST are the days of the backfill.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

WITHIN_S = 60.0
KEY = ["seller_id", "mp_order_number"]


def lines(home: Path, truth: dict[str, Any], first: date, last: date) -> Iterator[str]:
    """The report, line by line; the days from `first` to `last` were backfilled."""
    yield from _from_warehouse()
    yield from _from_backfill(first, last)
    with closing(sqlite3.connect(home / "feedamp" / "state.db")) as ledger:
        yield from _still_open(ledger)
    yield ""
    broken = truth["broken_rules"]
    yield f"Rules of the API broken, as the sandbox counts them: {sum(rule['count'] for rule in broken)}"
    for rule in broken:
        yield f"    {rule['rule']} x {rule['count']}: {rule['example']}"


@contextmanager
def opened(home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse for writing, once no task has it open."""
    give_up_at = time.monotonic() + WITHIN_S
    while True:
        try:
            warehouse = duckdb.connect(str(home / "feedamp" / "warehouse.duckdb"))
        except duckdb.IOException:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)
        else:
            break
    with closing(warehouse):
        yield warehouse


def _read(table: str, where: str | None = None, *columns: str) -> pd.DataFrame:
    from feedamp_airflow import frames

    return frames.read(table, where, columns or None)


def _from_warehouse() -> Iterator[str]:
    orders = _read("orders", None, *KEY, "currency", "extracted_at", "units_shipped", "units_cancelled")
    placed = _read("placements", None, *KEY).drop_duplicates().merge(orders, on=KEY)
    currencies = ", ".join(sorted(placed["currency"].unique()))
    yield f"Placed       {len(placed)} orders of {placed['seller_id'].nunique()} sellers in {currencies}"
    rejected = _read("rejected_orders", "superseded_at IS NULL", "source", "row_number", "reasons")
    yield f"Rejected     {len(rejected)} rows, each with every reason:"
    for row in rejected.sort_values(["source", "row_number"]).itertuples():
        why = "; ".join(f"{r['field'] or 'row'}: {r['code']}" for r in json.loads(row.reasons))
        yield f"    {row.source} row {row.row_number}: {why}"
    seen = orders[orders["extracted_at"].notna()]
    units = (seen["units_shipped"] + seen["units_cancelled"]).sum()
    yield f"Extracted    {len(seen)} orders, {units} units shipped or cancelled"
    found = _read("findings").sort_values("finding_id")
    yield f"Findings     {len(found)}"
    for kind, rows in found.groupby("kind"):
        fixed = (rows["state"] == "resolved").sum()
        yield f"    {kind}: {len(rows)} found, {rows['reported_at'].count()} reported, {fixed} fixed by the seller"
    for message in found.loc[found["kind"] == "invalid_tracking", "message"].head(1):
        yield f"    a seller read: {message}"
    closed = _read("closures")["marketplace_state"].value_counts()
    yield f"Closed       {closed.get('SHIPPED', 0)} as SHIPPED, {closed.get('CANCELLED', 0)} as CANCELLED"


def _from_backfill(first: date, last: date) -> Iterator[str]:
    rows = _read("reconciliation_days", f"day BETWEEN DATE '{first}' AND DATE '{last}'")
    yield f"Reconciled   {rows['compared'].sum()} orders on {rows['day'].nunique()} days"
    for day, of_day in rows.groupby("day"):
        kinds = sum((Counter(json.loads(found)) for found in of_day["differences"]), Counter[str]())
        del kinds["not_extracted_yet"]
        rest = (of_day["remaining"] + of_day["unread"]).sum()
        if kinds or rest:
            named = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
            repaired = of_day["repaired"].sum()
            yield f"    {day}: {kinds.total()} differences ({named}), {repaired} repaired, {rest} not compared"


def _still_open(ledger: sqlite3.Connection) -> Iterator[str]:
    open_orders = ledger.execute(
        """
        SELECT coalesce(CASE WHEN orders.phase = 'to_place' THEN orders.reason END, snapshots.waits_for, orders.reason,
                        'not read yet: the seller has done nothing yet'), count(*)
        FROM orders LEFT JOIN snapshots USING (seller_id, mp_order_number)
        WHERE orders.phase IN ('to_place', 'settled', 'held') GROUP BY 1 ORDER BY 2 DESC, 1
        """
    ).fetchall()
    if ledger.execute("SELECT 1 FROM switches WHERE name = 'read_only'").fetchone():
        yield "Stopped      sending: read-only is on"
    yield f"Still open   {sum(count for _, count in open_orders)}, and why:"
    for reason, count in open_orders:
        yield f"    {count} x {reason}"


def main() -> None:
    home, control, first, last = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from demo.programs import http

    truth = http("GET", f"{control}/report")
    print("\n".join(lines(Path(home), truth, date.fromisoformat(first), date.fromisoformat(last))))


if __name__ == "__main__":
    main()
