"""Orders that FeedAMP holds and we never placed -> lake and ledger, from a moment on (contract 7.4, Q27).

Two sweeps find them. `imported_after` brings what came to FeedAMP since then, also what no seller has touched;
`seller_updated_after`, the filter of the extraction, brings older orders that a seller has worked on since.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from itertools import count

from sqlalchemy.engine import Connection

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import (
    Filters,
    OrderPage,
    UnreadableOrder,
)
from feedamp.api.pagination import OrderPages, fetch_complete
from feedamp.errors import IncompleteError, TransientError, UnclearError
from feedamp.lake.flatten import order_rows
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.rules.adoption import adopt as adopted
from feedamp.run import Run
from feedamp.state import ledger, manifests, open_orders, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.runner import (
    FAILURES_THAT_END_A_SELLER,
    StepResult,
    record_run,
    run_per_seller,
)

FIRST_NAMED = 5
ORDERS_PER_PORTION = 200  # held for every seller that is read at the same time
COUNTED = ("adopted", "closed_before", "known", "not_adoptable")
Read = tuple[Order, datetime]


async def adopt(resources: Resources, run: Run, seller_ids: list[str], *, since: datetime) -> StepResult:
    """Takes the orders of some sellers (all when none are named) that FeedAMP imported, or a seller changed, since.

    `since` is inclusive. `result.extra` counts orders: `adopted` and open, `closed_before` (in the ledger as closed),
    `known` to the ledger before, `not_adoptable` (in the lake only; a note says why). A dry run reads and counts.
    Touches no watermark and sends nothing. Safe to repeat: an order that the ledger knows is left as it stands.
    """
    started_at = resources.state.now()
    result = StepResult("adopt", extra=dict.fromkeys(COUNTED, 0))
    with resources.state.read() as connection:
        found = sellers.find(connection, seller_ids)
    for seller in found:
        if seller.blocked_by:
            result.failed_sellers.add(seller.seller_id)
            result.add_warning(seller.seller_id, f"left out: {seller.blocked_by}")
    ready = [seller for seller in found if not seller.blocked_by]
    portions = count()
    # On disk, for the orders of an account may be many; the same one comes with both sweeps.
    with closing(sqlite3.connect("")) as seen:
        seen.execute(
            "CREATE TABLE seen (seller TEXT, number TEXT, PRIMARY KEY (seller, number)) WITHOUT ROWID"
        )
        async with resources.clients(run) as clients:

            async def work(seller: Seller) -> None:
                adopter = _Adopter(resources, run, result, portions, seen, await clients.client(seller))
                try:
                    await adopter.sweep(Filters(imported_after=since, page_size=resources.settings.page_size))
                    await adopter.sweep(
                        Filters(seller_updated_after=since, page_size=resources.settings.page_size)
                    )
                finally:
                    adopter.end()

            try:
                await run_per_seller(clients, ready, result, work)
            finally:
                if not run.dry_run:
                    record_run(resources, run, result, started_at)
    return result


class _Adopter:
    """Adopts the orders of one seller."""

    def __init__(
        self,
        resources: Resources,
        run: Run,
        result: StepResult,
        portions: Iterator[int],
        seen: sqlite3.Connection,
        client: FeedAmpClient,
    ) -> None:
        self._resources = resources
        self._run = run
        self._result = result
        self._portions = portions
        self._seen = seen
        self._waiting: list[Read] = []
        self._client = client
        self._seller_id = client.seller_id
        self._left: dict[str, list[str]] = {}  # why -> numbers, the first few
        self._counts: Counter[str] = Counter()

    async def sweep(self, filters: Filters) -> None:
        """All pages of a filter.

        Raises:
            IncompleteError: not everything could be read; what was read is adopted.
        """
        sweep = OrderPages(self._client, filters)
        lost: list[TransientError] = []
        async for page in sweep.pages():
            self._waiting += await self._whole(page, lost)
            if len(self._waiting) >= ORDERS_PER_PORTION:
                self._take()
        if lost or not sweep.complete:
            why = f"{len(lost)} orders: {lost[0]}" if lost else sweep.missing
            raise IncompleteError(f"not everything could be read: {why}; adopt again")

    async def _whole(self, page: OrderPage, lost: list[TransientError]) -> list[Read]:
        """Those orders of a page that no page before it has brought."""
        orders: list[Read] = []
        for item in page.items:
            if item.mp_order_number is not None and self._was_seen(item.mp_order_number):
                continue
            try:
                read = await fetch_complete(self._client, item)
            except UnclearError as error:
                lost.append(error)
                if len(lost) >= FAILURES_THAT_END_A_SELLER:
                    raise
                continue
            if isinstance(read, UnreadableOrder):
                self._result.orders_unread += 1
                self._leave(f"cannot be read: {read.where}", read.mp_order_number or "(no number)")
                continue
            self._mark_seen(read[0].mp_order_number)
            orders.append((read[0], read[1] or page.read_at))
        return orders

    def end(self) -> None:
        """Takes what still waits, and notes what was left in the lake alone."""
        self._take()
        self._explain()

    def _take(self) -> None:
        """A portion: into the lake first, for the ledger must not know an order that no warehouse will ever show."""
        orders, self._waiting = self._waiting, []
        if not orders:
            return
        self._result.orders += len(orders)
        if not self._run.dry_run:
            self._publish(orders)
        begin = self._resources.state.read if self._run.dry_run else self._resources.state.begin
        with begin() as connection:
            counts = self._adopt(connection, orders)
        for name, orders_of in counts.items():
            self._result.extra[name] += orders_of

    def _publish(self, orders: list[Read]) -> None:
        writer = self._resources.lake_writer(self._run, "adopt", next(self._portions))
        for order, read_at in orders:
            writer.append_all(order_rows(self._seller_id, order, read_at=read_at))
        now = self._resources.state.now()
        with self._resources.state.begin() as connection:
            manifests.announce(connection, writer.manifest_path, now=now)
        writer.publish(created_at=now, dag_id=self._run.dag_id, run_id=self._run.run_id)

    def _adopt(self, connection: Connection, orders: list[Read]) -> Counter[str]:
        """Ledger and snapshots of a portion, in one transaction."""
        counts: Counter[str] = Counter()
        known = ledger.read_many(connection, self._seller_id, [order.mp_order_number for order, _ in orders])
        now = self._resources.state.now()
        for order, _ in orders:
            if order.mp_order_number in known:
                counts["known"] += 1
                continue
            found = adopted(self._seller_id, order, now=now)
            if isinstance(found, str):
                counts["not_adoptable"] += 1
                self._leave(f"cannot be adopted: {found}", order.mp_order_number)
                continue
            counts["closed_before" if found.phase == "closed" else "adopted"] += 1
            if not self._run.dry_run:
                ledger.write(connection, found)
        if not self._run.dry_run:
            shown = [(order.snapshot(), read_at) for order, read_at in orders]
            open_orders.keep_open(connection, self._seller_id, shown)
        return counts

    def _explain(self) -> None:
        """Notes what was left in the lake alone, a line for each reason: it may be most of an account."""
        for why, orders in self._counts.items():
            first = ", ".join(self._left[why])
            self._result.add_warning(self._seller_id, f"{orders} orders {why}; first: {first}")

    def _leave(self, why: str, number: str) -> None:
        self._counts[why] += 1
        if self._counts[why] <= FIRST_NAMED:
            self._left.setdefault(why, []).append(number)

    def _was_seen(self, number: str) -> bool:
        query = "SELECT 1 FROM seen WHERE seller = ? AND number = ?"
        return self._seen.execute(query, (self._seller_id, number)).fetchone() is not None

    def _mark_seen(self, number: str) -> None:
        self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (self._seller_id, number))
