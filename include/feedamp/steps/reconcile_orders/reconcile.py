"""Compares one calendar day of orders in ledger, FeedAMP and warehouse; decides which orders those are.

What differs: `rules/comparison.py`; whether and how it is repaired: `rules/repair.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feedamp.api.clients import Clients
from feedamp.resources import Resources
from feedamp.run import Run, shards
from feedamp.state import ledger, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.reconcile_orders.difference_table import DifferenceTable
from feedamp.steps.reconcile_orders.seller_comparison import SellerComparison
from feedamp.steps.reconcile_orders.warehouse_lookup import WarehouseReader, purchased_orders
from feedamp.steps.runner import (
    StepResult,
    run_per_seller,
)

log = logging.getLogger(__name__)


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

    Orders that only the warehouse knows count as well, except in a dry run, because opening the warehouse may create
    it. `with_stale` adds every order that has been open longer than `stale_after_days`; scheduled runs set it.

    Raises:
        BusyError: another process holds the warehouse.
    """
    by_seller = _numbers(resources, start, end, seller_ids, with_stale=with_stale, dry_run=run.dry_run)
    return shards(sorted(by_seller), sellers_per_task=resources.settings.sellers_per_task)


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
    if start and end and ready and not dry_run:
        sources.append(purchased_orders(resources.warehouse, ready, start, end))
    return {
        seller_id: list(dict.fromkeys(number for found in sources for number in found.get(seller_id, ())))
        for seller_id in sorted({seller_id for found in sources for seller_id in found})
    }


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
        result.orders = sum(map(len, numbers.values()))
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
