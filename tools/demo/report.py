"""The result of the demo, read from the warehouse, the ledger and the sandbox's own counts."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

WITHIN_S = 60.0
DAY = "CAST(purchase_date AT TIME ZONE 'UTC' AS DATE)"
LOSE = f"""
    DELETE FROM feedamp.orders WHERE mp_order_number IN (
        SELECT mp_order_number FROM feedamp.orders WHERE {DAY} = ? ORDER BY mp_order_number LIMIT 5
    ) RETURNING mp_order_number
"""


def lines(home: Path, truth: dict[str, Any], days: Sequence[date]) -> Iterator[str]:
    """The report, line by line; `days` were backfilled."""
    with opened(home, read_only=True) as warehouse:
        yield from _from_warehouse(warehouse)
        yield from _from_backfill(warehouse, days)
    with closing(sqlite3.connect(home / "feedamp" / "state.db")) as ledger:
        yield from _still_open(ledger)
    yield ""
    broken = truth["broken_rules"]
    yield f"Rules of the API broken, as the sandbox counts them: {sum(rule['count'] for rule in broken)}"
    for rule in broken:
        yield f"    {rule['rule']} x {rule['count']}: {rule['example']}"


@contextmanager
def opened(home: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, once no task has it open."""
    give_up_at = time.monotonic() + WITHIN_S
    while True:
        try:
            warehouse = duckdb.connect(str(home / "feedamp" / "warehouse.duckdb"), read_only=read_only)
        except duckdb.IOException:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)
        else:
            break
    with closing(warehouse):
        yield warehouse


def lose_orders(home: Path, day: date) -> int:
    """Deletes the warehouse's rows of five orders of a day, as a careless statement would; returns how many."""
    with opened(home) as warehouse:
        return len(warehouse.execute(LOSE, [day]).fetchall())


def _from_warehouse(warehouse: duckdb.DuckDBPyConnection) -> Iterator[str]:
    def rows(sql: str) -> list[tuple[Any, ...]]:
        return warehouse.execute(sql).fetchall()

    placed, sellers, currencies = rows(
        "SELECT count(DISTINCT (seller_id, mp_order_number)), count(DISTINCT placements.seller_id), "
        "string_agg(DISTINCT orders.currency, ', ' ORDER BY orders.currency) "
        "FROM feedamp.placements placements JOIN feedamp.orders orders USING (seller_id, mp_order_number)"
    )[0]
    yield f"Placed       {placed} orders of {sellers} sellers in {currencies}"
    rejected = rows(
        "SELECT source, row_number, reasons FROM feedamp.rejected_orders WHERE superseded_at IS NULL ORDER BY ALL"
    )
    yield f"Rejected     {len(rejected)} rows, each with every reason:"
    for source, row_number, reasons in rejected:
        why = "; ".join(f"{r['field'] or 'row'}: {r['code']}" for r in json.loads(reasons))
        yield f"    {source} row {row_number}: {why}"
    seen, units = rows(
        "SELECT count(*), sum(units_shipped + units_cancelled) FROM feedamp.orders WHERE extracted_at IS NOT NULL"
    )[0]
    yield f"Extracted    {seen} orders, {units} units shipped or cancelled"
    found = rows(
        "SELECT kind, count(*), count(*) FILTER (WHERE reported_at IS NOT NULL), "
        "count(*) FILTER (WHERE state = 'resolved') FROM feedamp.findings GROUP BY kind ORDER BY kind"
    )
    yield f"Findings     {sum(row[1] for row in found)}"
    for kind, count, reported, fixed in found:
        yield f"    {kind}: {count} found, {reported} reported, {fixed} fixed by the seller"
    example = rows(
        "SELECT message FROM feedamp.findings WHERE kind = 'invalid_tracking' ORDER BY finding_id LIMIT 1"
    )
    if example:
        yield f"    a seller read: {example[0][0]}"
    closed = dict(rows("SELECT marketplace_state, count(*) FROM feedamp.closures GROUP BY ALL ORDER BY ALL"))
    yield f"Closed       {closed.get('SHIPPED', 0)} as SHIPPED, {closed.get('CANCELLED', 0)} as CANCELLED"


def _from_backfill(warehouse: duckdb.DuckDBPyConnection, days: Sequence[date]) -> Iterator[str]:
    compared, repaired, rest, found = (
        Counter[date](),
        Counter[date](),
        Counter[date](),
        dict[date, Counter[str]](),
    )
    for day, orders, differences, fixed, missed in warehouse.execute(
        "SELECT day, compared, differences, repaired, remaining + unread FROM feedamp.reconciliation_days "
        "WHERE day BETWEEN ? AND ? ORDER BY day",
        [days[0], days[-1]],
    ).fetchall():
        compared[day] += orders
        repaired[day] += fixed
        rest[day] += missed
        kinds = {kind: n for kind, n in json.loads(differences).items() if kind != "not_extracted_yet"}
        found.setdefault(day, Counter()).update(kinds)
    yield f"Reconciled   {compared.total()} orders on {len(found)} days"
    for day, kinds in found.items():
        if kinds or rest[day]:
            named = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
            yield f"    {day}: {kinds.total()} differences ({named}), {repaired[day]} repaired, {rest[day]} not compared"


def _still_open(ledger: sqlite3.Connection) -> Iterator[str]:
    open_orders = ledger.execute(
        """
        SELECT coalesce(CASE WHEN orders.phase = 'to_place' THEN orders.reason END, snapshots.waits_for, orders.reason,
                        'not read yet'), count(*)
        FROM orders LEFT JOIN snapshots USING (seller_id, mp_order_number)
        WHERE orders.phase IN ('to_place', 'settled', 'held') GROUP BY 1 ORDER BY 2 DESC, 1
        """
    ).fetchall()
    yield f"Still open   {sum(count for _, count in open_orders)}, and why:"
    for reason, count in open_orders:
        yield f"    {count} x {reason}"
