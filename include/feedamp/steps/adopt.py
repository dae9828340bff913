"""Orders that FeedAMP has but this ledger never placed -> lake and ledger (contract 7.4, Q27).

Whether an order is adopted, and as what: `rules/adoption.py`.

Two lists are read for each seller. `imported_after` finds the orders that came to FeedAMP since a moment, even if no
seller has touched them. `seller_updated_after`, the filter of the extraction, finds older orders that a seller has
changed since then.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import count

from sqlalchemy.engine import Connection

from feedamp.api.clients import Clients
from feedamp.api.orders_by_number import fetch_complete
from feedamp.api.pages import Filters, OrderPage, UnreadableOrder
from feedamp.api.pagination import OrderPages
from feedamp.errors import IncompleteError, MisfitError, TransientError, UnclearError
from feedamp.lake.flatten import order_rows
from feedamp.models import ReadOrder
from feedamp.resources import Resources
from feedamp.rules.adoption import adopt as adopt_order
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import Phase
from feedamp.rules.order_story import of_ledger
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER
from feedamp.run import Run
from feedamp.state import ledger, manifests, open_orders, order_events, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.refused_grants import decide_refusals
from feedamp.steps.seller_job import Job, SellerJob
from feedamp.steps.step_result import StepResult

FIRST_NAMED = 5
ORDERS_PER_BATCH = 200  # in memory for each seller that is read at the same time
COUNTED = ("adopted", "closed_before", "known", "not_adoptable")


async def adopt(resources: Resources, run: Run, seller_ids: list[str], *, since: datetime) -> StepResult:
    """Adopts the orders of some sellers that were imported to FeedAMP or changed by a seller since a moment.

    `since` is inclusive; an empty `seller_ids` means all sellers. `result.extra` counts orders: `adopted` (open),
    `closed_before` (in the ledger as closed), `known` (in the ledger already), `not_adoptable` (only in the lake; a
    warning says why). A dry run only reads and counts. Moves no watermark and sends nothing. Safe to repeat: an order
    that the ledger knows is left unchanged.
    """
    result = StepResult("adopt", extra=dict.fromkeys(COUNTED, 0))
    with resources.state.read() as connection:
        found = sellers.find(connection, seller_ids)
    for seller in found:
        if seller.blocked_by:
            result.failed_sellers.add(seller.seller_id)
            result.add_warning(seller.seller_id, f"skipped: {seller.blocked_briefly}")
    ready = [seller for seller in found if not seller.blocked_by]
    batches = count()

    async def work(seller: Seller, clients: Clients) -> None:
        adopter = _Adopter(resources, run, result, await clients.client(seller), batches=batches)
        try:
            await adopter.read(Filters(imported_after=since, page_size=resources.settings.page_size))
            await adopter.read(Filters(seller_updated_after=since, page_size=resources.settings.page_size))
        finally:
            adopter.finish()

    await run_per_seller(resources, run, result, ready, work, is_recorded=not run.dry_run)
    if not run.dry_run:
        result.undone += decide_refusals(resources.state, run)
    return result


class _Adopter(SellerJob):
    def __init__(self, *job: *Job, batches: Iterator[int]) -> None:
        super().__init__(*job)
        self._batches = batches
        self._seen: set[str] = set()  # numbers alone, of one account: 100 MB for a million orders
        self._waiting: list[ReadOrder] = []
        self._first_skipped: dict[str, list[str]] = {}  # reason -> the first order numbers
        self._skipped_counts: Counter[str] = Counter()  # reason -> orders

    async def read(self, filters: Filters) -> None:
        """Adopts the orders of all pages of a filter; IncompleteError if some of them could not be read."""
        pages = OrderPages(self._client, filters)
        failed: list[TransientError] = []
        async for page in pages.pages():
            self._waiting += await self._new_orders(page, failed)
            if len(self._waiting) >= ORDERS_PER_BATCH:
                self._adopt_waiting()
        if failed or not pages.complete:
            reason = f"{counted(len(failed), 'order')}; first: {failed[0]}" if failed else pages.missing
            raise IncompleteError(f"not all orders could be read: {reason}; run `feedamp adopt` again")

    async def _new_orders(self, page: OrderPage, failed: list[TransientError]) -> list[ReadOrder]:
        """The orders of a page that were not on an earlier page; errors of single orders are added to `failed`."""
        orders: list[ReadOrder] = []
        for item in page.items:
            if item.mp_order_number in self._seen:
                continue
            try:
                read = await fetch_complete(self._client, item, page.read_at)
            except UnclearError as error:
                failed.append(error)
                if len(failed) >= FAILURES_THAT_END_A_SELLER:
                    raise
                continue
            if isinstance(read, UnreadableOrder):
                self._count(orders_unread=1)
                self._record_skipped(f"cannot be read: {read.where}", read.mp_order_number or "(no number)")
                continue
            self._seen.add(read.order.mp_order_number)
            orders.append(read)
        return orders

    def finish(self) -> None:
        self._adopt_waiting()
        # One warning per reason, since the orders that are not adopted may be most of an account.
        for reason, orders in self._skipped_counts.items():
            self._warn(
                f"{counted(orders, 'order')} {reason}; first: {', '.join(self._first_skipped[reason])}"
            )

    def _adopt_waiting(self) -> None:
        """The lake is written first: an order in the ledger must also reach the warehouse."""
        orders, self._waiting = self._waiting, []
        if not orders:
            return
        self._count(orders=len(orders))
        if not self._run.dry_run:
            orders = self._publish(orders)
        begin = self._state.read if self._run.dry_run else self._state.begin
        with begin() as connection:
            counts = self._write_ledger(connection, orders)
        self._count(**counts)

    def _publish(self, orders: list[ReadOrder]) -> list[ReadOrder]:
        writer = self._resources.lake_writer(self._run, "adopt", next(self._batches))
        held = []
        for order, read_at in orders:
            try:
                writer.append_all(order_rows(self._seller_id, order, read_at=read_at))
            except MisfitError:
                self._count(orders_unread=1)
                self._record_skipped(
                    "cannot be stored, because a value does not fit its column", order.mp_order_number
                )
                continue
            held.append(ReadOrder(order, read_at))
        now = self._state.now()
        with self._state.begin() as connection:
            manifests.announce(connection, writer.manifest_path, now=now)
        writer.publish(created_at=now, dag_id=self._run.dag_id, run_id=self._run.run_id)
        return held

    def _write_ledger(self, connection: Connection, orders: list[ReadOrder]) -> Counter[str]:
        counts: Counter[str] = Counter()
        known = ledger.read_many(connection, self._seller_id, [order.mp_order_number for order, _ in orders])
        now, erased = self._state.now(), self._resources.erased(connection)
        for order, _ in orders:
            if erased.has(self._seller_id, order.mp_order_number):
                counts["not_adoptable"] += 1  # and it is not named
                continue
            if order.mp_order_number in known:
                counts["known"] += 1
                continue
            adopted = adopt_order(self._seller_id, order, now=now)
            if isinstance(adopted, str):
                counts["not_adoptable"] += 1
                self._record_skipped(f"cannot be adopted: {adopted}", order.mp_order_number)
                continue
            counts["closed_before" if adopted.phase == Phase.CLOSED else "adopted"] += 1
            if not self._run.dry_run:
                ledger.write(connection, adopted)
                closed = of_ledger(None, adopted, now=now)
                order_events.record(connection, closed, run_id=self._run.run_id)
        if not self._run.dry_run:
            snapshots = [(order.snapshot(), read_at) for order, read_at in orders]
            open_orders.keep_open(connection, self._seller_id, snapshots, run_id=self._run.run_id)
        return counts

    def _record_skipped(self, reason: str, number: str) -> None:
        self._skipped_counts[reason] += 1
        if self._skipped_counts[reason] <= FIRST_NAMED:
            self._first_skipped.setdefault(reason, []).append(number)
