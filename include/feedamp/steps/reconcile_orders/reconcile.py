"""Compares one calendar day of orders in ledger, FeedAMP and warehouse; decides which orders those are.

What differs: `rules/comparison.py`; whether and how it is repaired: `rules/repair.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Any

from feedamp.api.account import REQUESTS_PER_SECOND
from feedamp.api.clients import Clients
from feedamp.api.orders_by_number import chunks_of_numbers
from feedamp.api.rate_limit import SPACING
from feedamp.errors import FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run, shards
from feedamp.state import ledger, manifests, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.reconcile_orders.difference_table import DifferenceTable
from feedamp.steps.reconcile_orders.seller_comparison import SellerComparison
from feedamp.steps.reconcile_orders.warehouse_lookup import WarehouseReader, purchased_orders
from feedamp.steps.runner import (
    StepResult,
    run_per_seller,
)

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
    seller.

    Raises:
        BusyError: another process holds the warehouse.
    """
    by_seller = _numbers(resources, start, end, seller_ids, with_stale=with_stale, dry_run=run.dry_run)
    planned = shards(sorted(by_seller), sellers_per_task=resources.settings.sellers_per_task)
    if run.dry_run:
        expected = _expected(resources, by_seller)
        _log_expected(expected)
        for shard in planned:
            shard["expected"] = expected_together(expected[seller_id] for seller_id in shard["sellers"])
    return planned


def _numbers(
    resources: Resources,
    start: datetime | None,
    end: datetime | None,
    seller_ids: Sequence[str],
    *,
    with_stale: bool,
    dry_run: bool,
) -> dict[str, list[str]]:
    now = resources.state.now()
    with resources.state.read() as connection:
        ready = [seller.seller_id for seller in sellers.workable(connection, seller_ids=list(seller_ids))]
        sources = [ledger.by_purchase_day(connection, start, end, ready)] if start and end else []
        if with_stale:
            sources.append(ledger.open_longer_than(connection, now - resources.settings.stale_after, ready))
        is_opened = not dry_run or (resources.warehouse.is_there and manifests.has_loaded(connection))
    if start and end and ready and is_opened:
        sources.append(purchased_orders(resources.warehouse, ready, start, end))
    return {
        seller_id: list(dict.fromkeys(number for found in sources for number in found.get(seller_id, ())))
        for seller_id in sorted({seller_id for found in sources for seller_id in found})
    }


def _expected(resources: Resources, by_seller: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
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

    An order that its seller has changed since the last extraction began does not count as different: it is counted as
    `not_extracted_yet`, and the next extraction reads it.

    Reads orders by number and moves no watermark. Without `repair`, the only other change is that the ledger marks
    orders that FeedAMP does not have. With `repair`, ledger and warehouse are set to FeedAMP's state, and orders and
    states that FeedAMP has lost are sent again. Safe to repeat: a repaired difference is not found again, and there is
    one row per run, order and field.

    Raises:
        BusyError: another process holds the warehouse.
    """
    result, table = StepResult("reconcile", shard), DifferenceTable()
    numbers = {}
    if seller_ids:
        numbers = _numbers(resources, start, end, seller_ids, with_stale=with_stale, dry_run=run.dry_run)
    with resources.state.read() as connection:
        found = [seller for seller in sellers.workable(connection) if seller.seller_id in numbers]
    if run.dry_run:
        total = expected_together(_expected(resources, numbers).values())
        result.orders = int(total["orders"])
        result.extra = {
            "requests_expected": int(total["requests"]),
            "minutes_expected": ceil(total["minutes"]),
        }
        return result
    warehouse = WarehouseReader(resources.warehouse)

    async def work(seller: Seller, clients: Clients) -> None:
        client = await clients.client(seller)
        comparison = SellerComparison(
            resources, run, result, client, warehouse=warehouse, table=table, repair=repair
        )
        await comparison.compare(numbers[seller.seller_id])

    def at_end() -> None:
        result.orders = table.compared  # `SellerBatch` has counted the orders that it sent again
        result.extra |= {
            "differences": table.found.total(),
            "repaired": table.repaired.total(),
            "not_extracted_yet": table.not_extracted,
        }
        result.last_lines = table.lines()

    await run_per_seller(resources, run, result, found, work, at_end=at_end, gives_way=True)
    return result
