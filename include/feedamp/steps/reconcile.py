"""One calendar day of orders: ledger, FeedAMP and warehouse compared, differences written down."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from feedamp.comparing import Difference, compare
from feedamp.models import Order
from feedamp.parts import Parts, Run, shards
from feedamp.state import ledger, outbox, sellers
from feedamp.state.ledger import LedgerOrder
from feedamp.state.sellers import Seller
from feedamp.steps.edge import Tally, each_seller, record_run
from feedamp.sweep import read_by_number
from feedamp.tables import RECONCILIATIONS

log = logging.getLogger(__name__)
NUMBERS_PER_QUERY = 500


def plan_reconcile(
    parts: Parts, start: datetime | None, end: datetime | None, seller_ids: list[str], *, with_stale: bool
) -> list[dict[str, Any]]:
    """Shards of sellers with orders bought from `start` (inclusive) to `end` (exclusive), UTC.

    `with_stale` adds every order open longer than `stale_after_days`, which scheduled runs do.
    """
    by_seller = _numbers(parts, start, end, seller_ids, with_stale=with_stale)
    return shards(sorted(by_seller), sellers_per_task=parts.rules.sellers_per_task)


def _numbers(
    parts: Parts, start: datetime | None, end: datetime | None, seller_ids: Sequence[str], *, with_stale: bool
) -> dict[str, list[str]]:
    now = parts.state.now()
    with parts.state.read() as connection:
        ready = [seller.seller_id for seller in sellers.workable(connection, seller_ids=list(seller_ids))]
        found = ledger.by_purchase_day(connection, start, end, ready) if start and end else {}
        stale = (
            ledger.open_longer_than(connection, now - parts.rules.stale_after, ready) if with_stale else {}
        )
    return {
        seller_id: list(dict.fromkeys([*found.get(seller_id, []), *stale.get(seller_id, [])]))
        for seller_id in sorted(found.keys() | stale.keys())
    }


async def reconcile(
    parts: Parts,
    run: Run,
    shard: int,
    seller_ids: list[str],
    start: datetime | None,
    end: datetime | None,
    *,
    with_stale: bool,
) -> Tally:
    """Compares the orders of some sellers and writes every difference to `reconciliations`.

    Reads by number, touches no watermark, changes nothing at FeedAMP. Safe to repeat.
    """
    started_at = parts.state.now()
    tally = Tally("reconcile", shard)
    numbers = _numbers(parts, start, end, seller_ids, with_stale=with_stale) if seller_ids else {}
    with parts.state.read() as connection:
        found = [s for s in sellers.workable(connection) if s.seller_id in numbers]
    if run.dry_run:
        tally.orders = sum(map(len, numbers.values()))
        return tally
    warehouse = _warehouse_view(parts, numbers)
    differences: list[dict[str, Any]] = []
    async with parts.clients(run) as clients:

        async def work(seller: Seller) -> None:
            wanted = numbers[seller.seller_id]
            fresh = await read_by_number(await clients.client(seller), wanted)
            with parts.state.read() as connection:
                ours = ledger.read_many(connection, seller.seller_id, wanted)
            shown = {order.mp_order_number: order for order, _ in fresh.orders}
            tally.orders += len(wanted)
            tally.orders_unread += len(fresh.unread)
            for error in fresh.failed:
                tally.leave(seller.seller_id, error)
            for number in wanted:
                if number in shown or number in fresh.missing:
                    view = warehouse.get((seller.seller_id, number), {})
                    differences.extend(_rows(run, ours[number], shown.get(number), view))

        try:
            await each_seller(clients, found, tally, work)
        finally:
            now = parts.state.now()
            with parts.state.begin() as connection:
                outbox.put(connection, RECONCILIATIONS.name, differences, recorded_at=now)
            record_run(parts, run, tally, started_at)
    tally.extra["differences"] = len(differences)
    for row in differences[:50]:
        log.info(
            "%(seller_id)s %(mp_order_number)s %(field)s: ledger %(ledger_value)s, FeedAMP %(feedamp_value)s, "
            "warehouse %(warehouse_value)s",
            row,
        )
    return tally


def _rows(run: Run, ours: LedgerOrder, shown: Order | None, view: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[Difference] = compare(ours, shown, view)
    return [
        {
            "run_id": run.run_id,
            "seller_id": ours.seller_id,
            "mp_order_number": ours.mp_order_number,
            "field": difference.field,
            "ledger_value": difference.ledger,
            "feedamp_value": difference.feedamp,
            "warehouse_value": difference.warehouse,
            "repaired_at": None,
        }
        for difference in found
    ]


def _warehouse_view(
    parts: Parts, numbers: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], dict[str, str]]:
    """What the warehouse holds of these orders, field by field, as text."""
    view: dict[tuple[str, str], dict[str, str]] = {}
    with parts.warehouse.session() as warehouse:
        for seller_id, wanted in numbers.items():
            for start in range(0, len(wanted), NUMBERS_PER_QUERY):
                part = list(wanted[start : start + NUMBERS_PER_QUERY])
                for row in warehouse.orders(seller_id, part):
                    fields = view.setdefault((seller_id, row["mp_order_number"]), {"order": "present"})
                    if row["marketplace_state"] is not None:
                        fields["marketplace_state"] = row["marketplace_state"]
                    if row["extracted_at"] is not None and row["status"] is not None:
                        fields["status"] = row["status"]
                for row in warehouse.order_lines(seller_id, part):
                    fields = view.setdefault((seller_id, row["mp_order_number"]), {"order": "present"})
                    for name in ("quantity", "units_shipped", "units_cancelled"):
                        fields[f"order_lines[{row['mp_line_number']}].{name}"] = str(row[name])
    return view
