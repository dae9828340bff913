"""GET /orders of some sellers -> Parquet of one shard. Reads FeedAMP only; `load` does the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from feedamp.api.client import FeedAmpClient
from feedamp.api.clients import Clients
from feedamp.api.page_drift import READS_AGAIN, PageDrift
from feedamp.api.pages import Filters, UnreadableOrder
from feedamp.api.pagination import (
    OrderPages,
    chunks_of_numbers,
    fetch_complete,
    read_by_number,
)
from feedamp.errors import IncompleteError, MisfitError, TransientError, UnclearError
from feedamp.lake.flatten import order_rows
from feedamp.lake.manifest import SellerProgress as LakeSweep
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.rules.order import AWAITING_SHIPMENT, PENDING
from feedamp.rules.troubles import Troubles
from feedamp.run import Run, shards
from feedamp.state import consents, ledger, open_orders, sellers, watermarks
from feedamp.state.sellers import Seller
from feedamp.steps.extract_fulfillments.account_watch import AccountWatch
from feedamp.steps.extract_fulfillments.publisher import ManifestPublisher
from feedamp.steps.runner import (
    FAILURES_THAT_END_A_SELLER,
    StepResult,
    missing_order,
    record_run,
    run_per_seller,
)

log = logging.getLogger(__name__)
OPEN_STATES = (PENDING, AWAITING_SHIPMENT)


def plan_sellers(resources: Resources, seller_ids: list[str]) -> list[dict[str, Any]]:
    """Shards of all sellers who can be worked for; names those who cannot."""
    with resources.state.read() as connection:
        found = sellers.find(connection, seller_ids)
    left_out = Troubles()
    for seller in found:
        if seller.blocked_by:
            left_out.add(seller.seller_id, f"left out, because {seller.blocked_by}.")
    for trouble in left_out:
        log.warning("%s", trouble.line())
    ready = [seller.seller_id for seller in found if not seller.blocked_by]
    return shards(ready, sellers_per_task=resources.settings.sellers_per_task)


async def extract(
    resources: Resources, run: Run, shard: int, seller_ids: list[str], *, since: datetime | None = None
) -> StepResult:
    """Reads what changed for some sellers and publishes it, the watermarks with the last manifest.

    `since` overrides the watermarks as lower bound (inclusive). Pages are published even if a sweep breaks;
    only that seller's watermark waits. Safe to repeat: the merge lets the newer snapshot win.
    """
    started_at = resources.state.now()
    result = StepResult("extract", shard)
    with resources.state.read() as connection:
        found = sellers.workable(connection, seller_ids=seller_ids) if seller_ids else []
        if run.dry_run:
            for seller in found:
                bound = since or watermarks.read(connection, seller.seller_id) or "the beginning"
                log.info("Orders of seller %s that changed since %s would be read.", seller.seller_id, bound)
            result.sellers = len(found)
            return result
    portions = ManifestPublisher(resources, run, "extract", shard)
    sweeps: list[LakeSweep] = []
    async with resources.clients(run) as clients:

        async def work(seller: Seller) -> None:
            reader = _SellerReader(resources, clients, portions, result)
            sweeps.append(await reader.read(seller, since=since))
            if reader.broken is not None:
                raise reader.broken
            if reader.missing:
                raise IncompleteError(
                    f"Not all orders could be read: {reader.missing}. What was read is kept, and the next run reads on "
                    "from the same moment."
                )

        try:
            await run_per_seller(clients, found, result, work)
        finally:
            try:
                portions.publish(sweeps)
            except BaseException:
                result.complete = False
                raise
            finally:
                record_run(resources, run, result, started_at)
    if clients.counts.coercions:
        log.info(
            "FeedAMP sent values in another JSON type than documented; they were read as meant: %s",
            dict(clients.counts.coercions),
        )
    return result


def _each_once(items: Iterable[Order | UnreadableOrder]) -> list[Order | UnreadableOrder]:
    """The items of a page; an order that stands there twice counts as it stands last.

    Both were asked for at the same moment, so that nothing later could tell their rows apart.
    """
    return list({item.mp_order_number or id(item): item for item in items}.values())


class _SellerReader:
    """Reads one seller."""

    def __init__(
        self, resources: Resources, clients: Clients, portions: ManifestPublisher, result: StepResult
    ) -> None:
        self._resources = resources
        self._clients = clients
        self._portions = portions
        self._result = result
        self._unread = 0
        self.missing: str | None = None
        self.broken: TransientError | None = None

    async def read(self, seller: Seller, *, since: datetime | None) -> LakeSweep:
        """Streams the seller's pages into the lake; says how far the watermark may move."""
        client = await self._clients.client(seller)
        with self._resources.state.read() as connection:  # now that the account of a new grant is compared
            mark = watermarks.read(connection, seller.seller_id)
            account_checked_at = consents.account_checked_at(connection, seller.seller_id)
        lower = since if since is not None else mark
        sweep = OrderPages(
            client, Filters(seller_updated_after=lower, page_size=self._resources.settings.page_size)
        )
        started_at = self._resources.state.now()
        with self._resources.state.read() as connection:
            watched = set(open_orders.watched(connection, seller.seller_id))
            watched.update(ledger.to_read_back(connection, seller.seller_id, now=started_at))
        lost: list[TransientError] = []
        slipping = PageDrift(client, page_size=self._resources.settings.page_size)
        try:
            for _ in range(1 + READS_AGAIN):
                await self._read_pages(seller, client, sweep, watched, lost)
                if self._unread or lost or not sweep.complete:
                    break  # the watermark waits: all of this window is read again
                if not await slipping.may_have_happened(sweep):
                    break
            else:
                # Not incomplete: a seller who never rests would then never be read, and the window would grow.
                self._result.add_warning(
                    seller.seller_id,
                    f"FeedAMP's list of orders changed each of the {1 + READS_AGAIN} times it was read, so an order may "
                    "have moved from one page to another without being read. Nothing is lost for good: such an order is "
                    "read with its next update, and feedamp_reconcile_orders finds it by its number.",
                )
            for numbers in chunks_of_numbers(sorted(watched)):
                asked_at = self._resources.state.now()
                fresh = await read_by_number(client, numbers)
                lost += fresh.failed
                self._mark_missing(seller, fresh.missing, asked_at)
                for left in fresh.unread:
                    self._take(seller, left, started_at)
                doubted = self._doubted(seller, fresh.orders)
                for order, read_at in fresh.orders:
                    if order.mp_order_number in doubted:
                        await self._read_alone(seller, client, order.mp_order_number)
                    else:
                        self._take(seller, (order, read_at), read_at)
        except TransientError as error:
            self.broken = error
        self._result.orders_unread += self._unread
        if self._unread:
            self._result.failed_sellers.add(seller.seller_id)
        if lost:
            self.missing = (
                f"some orders did not come when they were asked for one by one ({str(lost[0]).rstrip('.')})"
            )
        elif not sweep.complete:
            self.missing = sweep.missing
        is_complete = sweep.complete and self.broken is None and not self._unread and not lost
        return LakeSweep(
            seller_id=seller.seller_id,
            complete=is_complete,
            watermark=self._next_mark(seller, started_at, sweep, mark, since) if is_complete else None,
            account_checked_at=account_checked_at,
            since=lower,
        )

    async def _read_pages(
        self,
        seller: Seller,
        client: FeedAmpClient,
        sweep: OrderPages,
        watched: set[str],
        lost: list[TransientError],
    ) -> None:
        """Takes what the pages hold, strikes it off `watched`, and adds to `lost` what could not be read just now."""
        watch = AccountWatch(self._resources, seller)
        async for page in sweep.pages():
            with self._resources.state.read() as connection:
                sellers.check_pause(connection, seller.seller_id)
            watch.look(page.orders)
            doubted = self._doubted(seller, [(order, page.read_at) for order in page.orders])
            for item in _each_once(page.items):
                number = item.mp_order_number or ""
                watched.discard(number)
                try:
                    if number in doubted:
                        await self._read_alone(seller, client, number)
                        continue
                    whole = await fetch_complete(client, item)
                except UnclearError as error:  # this order alone; the page goes on, the watermark waits
                    lost.append(error)
                    if len(lost) >= FAILURES_THAT_END_A_SELLER:
                        raise
                    continue
                self._take(seller, whole, page.read_at)

    def _doubted(self, seller: Seller, shown: Sequence[tuple[Order, datetime]]) -> set[str]:
        """Orders that a list shows open although we have closed them before it was asked for, a short time ago.

        The list comes from an index that lags; no later one would bring the order again, for only we have changed it.
        """
        is_open = {order.mp_order_number: at for order, at in shown if order.marketplace_state in OPEN_STATES}
        if not is_open:
            return set()
        lately = min(is_open.values()) - self._resources.settings.overlap
        with self._resources.state.read() as connection:
            closed = ledger.closed_since(connection, seller.seller_id, is_open, lately)
        return {number for number, closed_at in closed.items() if closed_at <= is_open[number]}

    async def _read_alone(self, seller: Seller, client: FeedAmpClient, number: str) -> None:
        """Takes an order as it is shown by itself; if that lags too, it is left to the next extraction."""
        read = await fetch_complete(client, UnreadableOrder(number, None))
        if not isinstance(read, UnreadableOrder) and read[0].marketplace_state in OPEN_STATES:
            with self._resources.state.begin() as connection:
                ledger.read_back_later(connection, seller.seller_id, number, now=self._resources.state.now())
            return
        self._take(seller, read, self._resources.state.now())

    def _mark_missing(self, seller: Seller, numbers: Sequence[str], asked_at: datetime) -> None:
        if not numbers:
            return
        with self._resources.state.begin() as connection:
            for number in numbers:
                self._result.add_warning(seller.seller_id, missing_order(number))
                ledger.mark_missing(connection, seller.seller_id, number, asked_at=asked_at)

    def _take(
        self, seller: Seller, read: tuple[Order, datetime | None] | UnreadableOrder, page_read_at: datetime
    ) -> None:
        """Puts an order into the lake, or counts and names it if it could not be read."""
        if isinstance(read, UnreadableOrder):
            self._result.add_warning(seller.seller_id, read.sentence)
            self._unread += 1
            return
        order, read_at = read
        try:
            self._portions.take(order_rows(seller.seller_id, order, read_at=read_at or page_read_at))
        except MisfitError as error:  # this order alone; beside it in a file it would cost others their rows
            self._take(seller, UnreadableOrder(order.mp_order_number, error.message), page_read_at)
        else:
            self._result.orders += 1

    def _next_mark(
        self,
        seller: Seller,
        started_at: datetime,
        sweep: OrderPages,
        mark: datetime | None,
        since: datetime | None,
    ) -> datetime | None:
        """Start of this read by the earlier of both clocks, less the overlap (contract 7.7)."""
        overlap = self._resources.settings.overlap
        theirs = sweep.server_time or started_at
        if abs(theirs - started_at) > overlap / 2:
            apart_s = abs(theirs - started_at).total_seconds()
            apart = f"{apart_s / 60:.0f} minutes" if apart_s >= 120 else f"{apart_s:.0f} seconds"
            self._result.add_warning(
                seller.seller_id,
                f"FeedAMP's clock and the state database's differ by about {apart}, more than half of "
                "overlap_minutes, so updates may be missed. Correct the clock, or raise overlap_minutes.",
            )
        if since is not None and (mark is None or since > mark):
            return None  # what lies between the watermark and `since` has not been read
        return min(theirs, started_at) - overlap
