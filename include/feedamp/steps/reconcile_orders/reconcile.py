"""Compares calendar days of orders in ledger, FeedAMP and warehouse; decides which orders those are.

What differs: `rules/comparison.py`; whether and how it is repaired: `rules/repair.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from feedamp.api.account import REQUESTS_PER_SECOND
from feedamp.api.clients import Clients
from feedamp.api.orders_by_number import chunks_of_numbers
from feedamp.api.rate_limit import SPACING
from feedamp.errors import FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.rules.reconciled_days import DAY, NOT_EXTRACTED
from feedamp.run import Run, shards
from feedamp.state import ledger, manifests, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.reconcile_orders.difference_table import DifferenceTable
from feedamp.steps.reconcile_orders.planned_days import Planned, record_gone, record_plan
from feedamp.steps.reconcile_orders.warehouse_lookup import WarehouseReader, purchased_orders
from feedamp.steps.step_result import StepResult

log = logging.getLogger(__name__)
SELLERS_SHOWN = 50


def plan_reconcile(
    resources: Resources,
    run: Run,
    start: datetime | None,
    end: datetime | None,
    seller_ids: list[str],
    *,
    with_stale: bool,
) -> list[dict[str, Any]]:
    """Shards of sellers with orders purchased from `start` (inclusive) to `end` (exclusive), UTC.

    Orders that only the warehouse knows count as well; a dry run does not open it before the first load,
    because that would create it. `with_stale` adds every order that has been open longer than `stale_after_days`; scheduled runs set it.
    In a dry run each shard has, as `expected`, its orders, requests and minutes at the allowed rate; the log has them by
    seller. Any other run records in `reconciliation_days` what it is to compare.

    Raises:
        BusyError: another process holds the warehouse.
    """
    began_at = resources.state.now()
    by_seller = _numbers(resources, start, end, seller_ids, with_stale=with_stale, dry_run=run.dry_run)
    if start and end:
        _log_not_covered(resources, start, end, seller_ids)
    planned = shards(sorted(by_seller), sellers_per_task=resources.settings.sellers_per_task)
    if run.dry_run:
        expected = _expected(resources, by_seller)
        _log_expected(expected)
        for shard in planned:
            shard["expected"] = expected_together(expected[seller_id] for seller_id in shard["sellers"])
    elif start and end:
        record_plan(resources, run, start, end, seller_ids, by_seller, began_at=began_at)
    return planned


def _log_not_covered(resources: Resources, start: datetime, end: datetime, seller_ids: Sequence[str]) -> None:
    """Says which days and sellers the run cannot compare."""
    with resources.state.read() as connection:
        blocked = [one.seller_id for one in sellers.find(connection, list(seller_ids)) if one.blocked_by]
        left_out = {row[0] for row in ledger.purchased(connection, start, end, blocked)} if blocked else set()
        first_order = ledger.first_day(connection)
    last = (end - timedelta.resolution).date()
    if last > (today := resources.state.now().date()):
        future = max(start.date(), today + DAY)
        log.info("%s to %s lie in the future: nothing to compare.", future, last)
    if first_order is not None and start.date() < first_order:
        log.info(
            "%s to %s are before the first order of the ledger.", start.date(), min(last, first_order - DAY)
        )
    if left_out:
        log.info(
            "%s with orders of these days left out, paused or without a grant: %s%s",
            counted(len(left_out), "seller"),
            ", ".join(sorted(left_out)[:SELLERS_SHOWN]),
            ", ..." if len(left_out) > SELLERS_SHOWN else "",
        )


def _numbers(
    resources: Resources,
    start: datetime | None,
    end: datetime | None,
    seller_ids: Sequence[str],
    *,
    with_stale: bool,
    dry_run: bool,
) -> dict[str, Planned]:
    """What to compare, by seller. An order that the ledger has belongs to the day it has there, and to no other."""
    now = resources.state.now()
    found: dict[str, Planned] = {}
    with resources.state.read() as connection:
        ready = [seller.seller_id for seller in sellers.workable(connection, seller_ids=list(seller_ids))]
        for seller_id, number, day in (
            ledger.purchased(connection, start, end, ready) if start and end else ()
        ):
            found.setdefault(seller_id, {})[number] = day
        stale_since = now - resources.settings.stale_after
        stale = ledger.open_longer_than(connection, stale_since, ready) if with_stale else {}
        is_opened = not dry_run or (resources.warehouse.is_there and manifests.has_loaded(connection))
    if start and end and ready and is_opened:
        stored = purchased_orders(resources.warehouse, ready, start, end)
        with resources.state.read() as connection:
            for seller_id, days in stored.items():
                of_seller = found.setdefault(seller_id, {})
                rest = {number: day for number, day in days.items() if number not in of_seller}
                elsewhere = ledger.days_of(connection, seller_id, rest)
                of_seller.update((number, day) for number, day in rest.items() if number not in elsewhere)
    for seller_id, numbers in stale.items():
        of_seller = found.setdefault(seller_id, {})
        of_seller.update((number, None) for number in numbers if number not in of_seller)
    return {seller_id: found[seller_id] for seller_id in sorted(found) if found[seller_id]}


def _expected(resources: Resources, by_seller: Mapping[str, Collection[str]]) -> dict[str, dict[str, float]]:
    """By seller: orders, requests to read them, and minutes at the allowed rate if nothing else wants requests."""
    with resources.state.read() as connection:
        conn_ids = {seller.seller_id: seller.conn_id for seller in sellers.find(connection, list(by_seller))}
    expected = {}
    for seller_id, numbers in by_seller.items():
        requests = sum(1 for _ in chunks_of_numbers(numbers))
        minutes = requests * SPACING / _rate(resources, conn_ids[seller_id]) / 60
        expected[seller_id] = {"orders": len(numbers), "requests": requests, "minutes": minutes}
    return expected


def expected_together(expected: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The same of several sellers or shards, which work at the same time."""
    each = list(expected)
    together: dict[str, float] = {name: sum(one[name] for one in each) for name in ("orders", "requests")}
    return together | {"minutes": round(max((one["minutes"] for one in each), default=0.0), 2)}


def _log_expected(expected: Mapping[str, Mapping[str, float]]) -> None:
    ordered = sorted(expected, key=lambda seller_id: (-expected[seller_id]["orders"], seller_id))
    named = {f"Seller {seller_id}": [expected[seller_id]] for seller_id in ordered[:SELLERS_SHOWN]}
    if rest := ordered[SELLERS_SHOWN:]:
        named[counted(len(rest), "more seller")] = [expected[seller_id] for seller_id in rest]
    named["All sellers"] = list(expected.values())
    for name, of_sellers in named.items():
        total = expected_together(of_sellers)
        orders, requests = counted(int(total["orders"]), "order"), counted(int(total["requests"]), "request")
        log.info("%s: %s, %s, at least %.1f minutes", name, orders, requests, total["minutes"])


def _rate(resources: Resources, conn_id: str) -> float:
    """Allowed requests a second."""
    try:
        return resources.connection(conn_id).requests_per_second
    except FeedAmpError:  # the run itself will say so
        return REQUESTS_PER_SECOND


async def reconcile(
    resources: Resources,
    run: Run,
    shard: int,
    seller_ids: list[str],
    start: datetime | None,
    end: datetime | None,
    *,
    with_stale: bool,
    repair: bool = False,
) -> StepResult:
    """Compares the orders of some sellers and writes every difference to `reconciliations`.

    An order that its seller has changed since the last extraction began does not count as different: it is recorded as
    `not_extracted_yet`, and the next extraction reads it. What was compared so far is in `reconciliation_days`.

    Reads orders by number and moves no watermark. Without `repair`, the only other change is that the ledger marks
    orders that FeedAMP does not have. With `repair`, ledger and warehouse are set to FeedAMP's state, and orders and
    states that FeedAMP has lost are sent again. Safe to repeat: a repaired difference is not found again, and there is
    one row per run, order and field.

    Raises:
        BusyError: another process holds the warehouse.
    """
    # Not above: `plan`, which runs on each day of a backfill, does not need it.
    from feedamp.steps.reconcile_orders.seller_comparison import SellerComparison

    result, table = StepResult("reconcile", shard), DifferenceTable()
    numbers = {}
    began_at = resources.state.now()  # before the ledger is read: an order that comes later is not compared
    if seller_ids:
        numbers = _numbers(resources, start, end, seller_ids, with_stale=with_stale, dry_run=run.dry_run)
        table.counts.planned = sum(map(len, numbers.values()))
    with resources.state.read() as connection:
        ready = [seller for seller in sellers.workable(connection) if seller.seller_id in set(seller_ids)]
    found = [seller for seller in ready if seller.seller_id in numbers]
    if run.dry_run:
        total = expected_together(_expected(resources, numbers).values())
        result.orders = int(total["orders"])
        result.extra = {
            "requests_expected": int(total["requests"]),
            "minutes_expected": ceil(total["minutes"]),
        }
        return result
    if start and end:
        ids = [seller.seller_id for seller in ready]
        record_gone(resources, run, start, end, ids, numbers, began_at=began_at)
    warehouse = WarehouseReader(resources.warehouse)

    async def work(seller: Seller, clients: Clients) -> None:
        client = await clients.client(seller)
        comparison = SellerComparison(
            resources, run, result, client, warehouse=warehouse, table=table, repair=repair, began_at=began_at
        )
        await comparison.compare(numbers[seller.seller_id])

    def at_end() -> None:
        counts = table.counts
        result.orders = counts.compared  # `SellerBatch` has counted the orders that it sent again
        result.extra |= {
            "differences": counts.differences.total(),
            "repaired": counts.repaired.total(),
            "left": counts.left.total(),
            NOT_EXTRACTED: counts.found[NOT_EXTRACTED],
        }
        result.last_lines = table.lines()
        result.outcome = counts.encode()

    await run_per_seller(
        resources, run, result, found, work, at_end=at_end, gives_way=True, planned=table.counts.planned
    )
    return result
