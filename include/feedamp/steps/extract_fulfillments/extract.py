"""GET /orders of some sellers -> Parquet of one shard; decides whether a seller was read completely.

Only reads from FeedAMP; `load` does the rest. Where the next extraction starts: `rules/watermark.py`.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from feedamp.api.clients import Clients
from feedamp.api.clock_check import ClockCheck
from feedamp.api.orders_by_number import (
    chunks_of_numbers,
    fetch_again,
    fetch_complete,
    is_complete,
    read_by_number,
)
from feedamp.api.pages import Filters, OrderPage, UnreadableOrder
from feedamp.api.pagination import READS_AGAIN, OrderPages, PageDrift
from feedamp.errors import IncompleteError, TransientError, UnclearError
from feedamp.lake.manifest import SellerProgress
from feedamp.models import Order, ReadOrder
from feedamp.resources import Resources
from feedamp.rules.failure_summary import Troubles
from feedamp.rules.order import AWAITING_SHIPMENT, PENDING
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER
from feedamp.rules.watermark import leaves_gap, next_watermark
from feedamp.run import Run, shards
from feedamp.state import extraction_start, ledger, sellers, unfinished_reads, watermarks
from feedamp.state.extraction_start import ExtractionStart
from feedamp.state.group_read import GroupRead
from feedamp.state.sellers import Seller
from feedamp.state.unfinished_reads import MOST_UNREAD, LeftOff
from feedamp.steps.extract_fulfillments.account_watch import AccountWatch
from feedamp.steps.extract_fulfillments.publisher import ManifestPublisher
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.seller_job import Job, SellerJob
from feedamp.steps.step_result import StepResult

log = logging.getLogger(__name__)
FEWEST_SHOWN = 20  # below that, `max_unread_ratio` says nothing
OPEN_STATES = (PENDING, AWAITING_SHIPMENT)
# With more of them side by side FeedAMP makes the pages of others meanwhile, and each would hold a second page.
MOST_SELLERS_ASKING_AHEAD = 8
# What is asked of the state for a page is asked for several at once if they come so fast: that takes as long as to decode
# them. All sellers of a task share so many orders and bytes, of which none has more than a third.
ORDERS_HELD, BYTES_HELD, FEWEST_SHARES = 3_000, 6 << 20, 3
# Where the next page is asked for ahead, what pages of 20 ms bring is stored within the 20 ms of a later one: with five of
# them at once, no request waits for that. Of many sellers side by side, each has a page less often.
HELD, HELD_OF_MANY = timedelta(seconds=0.1), timedelta(seconds=1)

# So long a seller who was shown nothing waits for others of the task, to ask with them whether any is paused.
WAITS_FOR_OTHERS_S = 0.01


def plan_sellers(resources: Resources, seller_ids: list[str]) -> list[dict[str, Any]]:
    """Shards of all sellers that can be served; logs a warning for those that cannot."""
    with resources.state.read() as connection:
        found = sellers.find(connection, seller_ids)
    skipped = Troubles()
    for seller in found:
        if seller.blocked_by:
            skipped.add(seller.seller_id, f"skipped, because {seller.blocked_briefly}.")
    for trouble in skipped:
        log.warning("%s", trouble.line())
    ready = [seller.seller_id for seller in found if not seller.blocked_by]
    return shards(ready, sellers_per_task=resources.settings.sellers_per_task)


async def extract(
    resources: Resources, run: Run, shard: int, seller_ids: list[str], *, since: datetime | None = None
) -> StepResult:
    """Reads the changed orders of some sellers and publishes them; the last manifest moves the watermarks.

    `since` replaces the watermarks as the lower bound (inclusive). If a seller cannot be read to the end, the pages read
    so far are published and only that seller's watermark does not move. Safe to repeat: the merge keeps the newer
    snapshot.

    After `shard_minutes` every list that has not ended is left, and the next extraction goes on there.
    """
    result = StepResult("extract", shard)
    with resources.state.read() as connection:
        found = sellers.workable(connection, seller_ids=seller_ids) if seller_ids else []
        if run.dry_run:
            for seller in found:
                bound = since or watermarks.read(connection, seller.seller_id) or "the beginning"
                log.info("Orders of seller %s that changed since %s would be read.", seller.seller_id, bound)
            result.sellers = len(found)
            return result
    publisher = ManifestPublisher(resources, run, "extract", shard)
    progress: list[SellerProgress] = []
    # Where a list was left off; None: where an earlier run had, and this one has not.
    places: dict[str, LeftOff | None] = {}
    ends_at = resources.state.now() + resources.settings.shard_time
    starts = GroupRead(
        resources.state,
        lambda connection, ids: extraction_start.read_all(connection, ids, now=resources.state.now()),
    )
    pauses = GroupRead(resources.state, _paused, lingers_s=WAITS_FOR_OTHERS_S)

    async def work(seller: Seller, clients: Clients) -> None:
        client = await clients.client(seller)
        reader = _SellerReader(
            resources,
            run,
            result,
            client,
            publisher=publisher,
            clock=clients.clock_check,
            ends_at=ends_at,
            asks_ahead=len(found) <= MOST_SELLERS_ASKING_AHEAD,
            sellers_at_once=len(found),
            pauses=pauses,
        )
        # Only now, because `client` may have compared the account of a new grant.
        start = await starts.of(seller.seller_id)
        progress.append(await reader.read(seller, start, since=since))
        if reader.error is not None:
            raise reader.error
        if start.place is not None or reader.place is not None:
            places[seller.seller_id] = reader.place
        if reader.missing:
            raise IncompleteError(
                f"Not all orders could be read: {reader.missing}. The orders that were read are published, and the "
                "next run starts from the same watermark."
            )

    def publish() -> None:
        publisher.publish(progress)
        if not places:
            return  # as in nearly all runs
        # Not before: the next run reads nothing that is before these places.
        with resources.state.begin() as connection:
            erased = resources.erased(connection)
            for seller_id, place in places.items():
                if erased.has_seller(seller_id):
                    continue
                if place is not None:
                    place = msgspec.structs.replace(place, manifests=tuple(publisher.published))
                unfinished_reads.leave_off(connection, seller_id, place)

    await run_per_seller(resources, run, result, found, work, at_end=publish)
    return result


def _paused(connection: Connection, seller_ids: list[str]) -> dict[str, bool]:
    paused = sellers.paused_among(connection, seller_ids)
    return {seller_id: seller_id in paused for seller_id in seller_ids}


class _PageGroup:
    """Pages that are worked on at once if they come fast, as many as fit into the share of one of so many sellers."""

    def __init__(
        self, *, of_sellers: int, held: timedelta, now: Callable[[], datetime], ends_at: datetime
    ) -> None:
        self._shares = max(FEWEST_SHARES, of_sellers)
        self._held = held
        self._now = now
        self._ends_at = ends_at
        self.pages: list[OrderPage] = []
        self.failure: Exception | None = None

    async def fill(self, pages: AsyncIterator[OrderPage]) -> bool:
        """Takes the next pages; whether there may be more. Those that came before a `failure` are kept."""
        self.pages = []
        held_until = self._ends_at
        orders = size = 0
        try:
            async for page in pages:
                if not self.pages:
                    held_until = min(self._now() + self._held, self._ends_at)
                self.pages.append(page)
                count = len(page.orders) + len(page.unread)
                orders, size = orders + count, size + page.size
                # If the next one is as large.
                is_full = (
                    orders + count > ORDERS_HELD // self._shares
                    or size + page.size > BYTES_HELD // self._shares
                )
                if page.next_cursor is not None and (is_full or self._now() >= held_until):
                    return True
        except Exception as error:  # noqa: BLE001 - raised by who works on the pages
            self.failure = error
        return False


def _deduplicate(items: Iterable[Order | UnreadableOrder]) -> list[Order | UnreadableOrder]:
    """Of an order that appears twice, only the last: both have one `read_at`, so no merge could tell which is newer."""
    return list({item.mp_order_number or id(item): item for item in items}.values())


class _SellerReader(SellerJob):
    def __init__(
        self,
        *job: *Job,
        publisher: ManifestPublisher,
        clock: ClockCheck,
        ends_at: datetime,
        asks_ahead: bool,
        sellers_at_once: int,
        pauses: GroupRead[bool],
    ) -> None:
        super().__init__(*job)
        self._publisher = publisher
        self._clock = clock
        self._ends_at = ends_at
        self._asks_ahead = asks_ahead
        self._sellers_at_once = sellers_at_once
        self._pauses = pauses
        self._stored = self._unreadable = 0
        self._unread: dict[str, str] = {}  # number -> reason
        self._unread_before: frozenset[str] = frozenset()
        self._readable_again: set[str] = set()
        self.place: LeftOff | None = None
        self._is_left_off = False
        self.missing: str | None = None
        self.error: TransientError | None = None

    async def read(self, seller: Seller, start: ExtractionStart, *, since: datetime | None) -> SellerProgress:
        """Streams the seller's pages into the lake; returns how far the watermark may move."""
        watermark, account_checked_at, place = start.watermark, start.account_checked_at, start.place
        self._unread_before = start.unread
        watch = AccountWatch(self._resources, seller, is_marked=start.is_marked)
        watched = set(start.watched)
        lower = since if since is not None else watermark
        if place is not None and (place.since, place.account_checked_at) != (lower, account_checked_at):
            place = None  # of another list
        pages = OrderPages(
            self._client,
            Filters(seller_updated_after=lower, page_size=self._resources.settings.page_size),
            start=place.cursor if place else None,
            asks_ahead=self._asks_ahead,
        )
        started_at = self._state.now()
        if place is not None:
            self._publisher.follow(place.manifests)
            started_at = place.started_at
        failed: list[TransientError] = []
        drift = PageDrift(self._client, page_size=self._resources.settings.page_size)
        # A list that is read in several runs changes meanwhile, and would never be read to its end.
        reads = 1 if place else 1 + READS_AGAIN
        try:
            for _ in range(reads):
                await self._read_pages(watch, pages, watched, failed)
                self._publisher.write()  # then it is known which orders do not fit
                if self._unreadable or failed or not pages.complete:
                    break  # the watermark does not move: the next run reads the whole window again
                if not await drift.may_have_happened(pages):
                    break
            else:
                # Not counted as incomplete, or the watermark of a seller who updates orders constantly would never move.
                self._warn(
                    f"FeedAMP's list of orders changed each of the {reads} times it was read, so an order may "
                    "have moved from one page to another without being read. It is not lost: it is read with its next "
                    "update, and feedamp_reconcile_orders finds it by its number."
                )
            for numbers in chunks_of_numbers(sorted(watched)):
                if len(failed) >= FAILURES_THAT_END_A_SELLER:
                    raise failed[-1]
                asked_at = self._state.now()
                patience = FAILURES_THAT_END_A_SELLER - len(failed)
                fresh = await read_by_number(self._client, numbers, patience=patience)
                failed += fresh.failed
                await self._record_missing(fresh.missing, asked_at=asked_at)
                for unreadable in fresh.unread:
                    self._record_unreadable_order(unreadable)
                with self._state.read() as connection:
                    stale = self._possibly_stale(connection, fresh.orders)
                self._store([read for read in fresh.orders if read.order.mp_order_number not in stale])
                for number in sorted(stale):
                    await self._read_alone(number)
        except TransientError as error:
            self.error = error
        self._publisher.write()
        self._count(orders_unread=self._unreadable)
        if self._unreadable:
            self._result.failed_sellers.add(self._seller_id)
        shown = self._stored + self._unreadable
        if failed:
            self.missing = (
                f"some orders could not be read when each was requested alone ({str(failed[0]).rstrip('.')})"
            )
        elif shown >= FEWEST_SHOWN and self._unreadable > self._resources.settings.max_unread_ratio * shown:
            self.missing = (
                f"{self._unreadable} of {shown} orders {'is' if self._unreadable == 1 else 'are'} unreadable, more than max_unread_ratio "
                f"{self._resources.settings.max_unread_ratio:.1%}"
            )
        elif not pages.complete and not self._is_left_off:
            self.missing = pages.missing
        is_whole = not self._unreadable and not failed and (place is None or place.is_whole)
        is_complete = pages.complete and self.error is None and is_whole
        server_time = pages.server_time if place is None else place.server_time
        self._record_unread(
            is_over=pages.complete and not self.error and not place and not leaves_gap(watermark, since=since)
        )
        if self._is_left_off and pages.next_cursor is not None:
            self.place = LeftOff(
                cursor=pages.next_cursor,
                since=lower,
                started_at=started_at,
                server_time=server_time,
                account_checked_at=account_checked_at,
                is_whole=is_whole,
            )
        if not is_complete and not self.missing:
            self._result.complete = False
        return SellerProgress(
            seller_id=self._seller_id,
            complete=is_complete,
            watermark=self._next_watermark(started_at, server_time, watermark, since)
            if is_complete
            else None,
            account_checked_at=account_checked_at,
            since=lower,
        )

    async def _read_pages(
        self, watch: AccountWatch, pages: OrderPages, watched: set[str], failed: list[TransientError]
    ) -> None:
        """Stores the orders of all pages, removes them from `watched`, and adds errors of single orders to `failed`."""
        group = _PageGroup(
            of_sellers=self._sellers_at_once,
            held=HELD if self._asks_ahead else HELD_OF_MANY,
            now=self._state.now,
            ends_at=self._ends_at,
        )
        async with aclosing(pages.pages()) as read:
            has_more = True
            while has_more:
                has_more = await group.fill(read)
                if group.pages:
                    await self._read_group(group.pages, watch, watched, failed)
                    if pages.next_cursor is not None and self._state.now() >= self._ends_at:
                        self._is_left_off = True
                        self._warn(
                            "the list of changed orders was not read to its end within shard_minutes; the next run goes on "
                            "from there"
                        )
                        return
                if group.failure is not None:
                    raise group.failure

    async def _read_group(
        self, group: Sequence[OrderPage], watch: AccountWatch, watched: set[str], failed: list[TransientError]
    ) -> None:
        shown = [order for page in group for order in page.orders]
        if not shown and await self._pauses.of(self._seller_id):
            raise sellers.paused_error(self._seller_id)
        stale: set[str] = set()
        if shown:
            with self._state.read() as connection:
                seen = watch.look(connection, shown)
                if seen.facts.has_orders:
                    listed = [ReadOrder(order, page.read_at) for page in group for order in page.orders]
                    stale = self._possibly_stale(connection, listed)
            watch.judge(seen)
        complete: list[ReadOrder] = []
        try:
            for page in group:
                for item in _deduplicate(page.items):
                    number = item.mp_order_number or ""
                    watched.discard(number)
                    if isinstance(item, Order) and is_complete(item) and number not in stale:
                        complete.append(ReadOrder(item, page.read_at))  # as nearly all: nothing to wait for
                        continue
                    try:
                        if number in stale:
                            await self._read_alone(number)
                            continue
                        read = await fetch_complete(self._client, item, page.read_at)
                    except UnclearError as error:
                        # Only this order fails. The rest of the page is read, but the watermark will not move.
                        failed.append(error)
                        if len(failed) >= FAILURES_THAT_END_A_SELLER:
                            raise
                        continue
                    if isinstance(read, UnreadableOrder):
                        self._record_unreadable_order(read)
                    else:
                        complete.append(read)
        finally:
            self._store(complete, sum(page.size for page in group))
        if self._asks_ahead and self._state.now() - group[0].read_at >= HELD:
            self._publisher.write()  # with those of more groups it would take longer than FeedAMP for the next page

    def _record_unread(self, *, is_over: bool) -> None:
        """Stores which orders are unreadable since when; `is_over` if the list that shows them was read to its end."""
        gone = (self._unread_before if is_over else self._readable_again) - self._unread.keys()
        if gone or self._unread:
            now = self._state.now()
            with self._state.begin() as connection:
                erased = self._resources.erased(connection)
                found = {
                    number: reason
                    for number, reason in self._unread.items()
                    if not erased.has(self._seller_id, number)
                }
                unfinished_reads.note_unread(connection, self._seller_id, found, gone=gone, now=now)

    def _possibly_stale(self, connection: Connection, read: Sequence[ReadOrder]) -> set[str]:
        """Orders that a list shows as open although this installation closed them shortly before it was requested.

        Lists may lag. No later list would contain the order, since its seller has not changed it.
        """
        open_at = {order.mp_order_number: at for order, at in read if order.marketplace_state in OPEN_STATES}
        if not open_at:
            return set()
        earliest = min(open_at.values()) - self._resources.settings.overlap
        closed = ledger.closed_since(connection, self._seller_id, open_at, earliest)
        return {number for number, closed_at in closed.items() if closed_at <= open_at[number]}

    async def _read_alone(self, number: str) -> None:
        """Reads and stores an order alone; if that answer is stale as well, the next extraction reads it."""
        read = await fetch_again(self._client, UnreadableOrder(number, None))
        if not isinstance(read, UnreadableOrder) and read.order.marketplace_state in OPEN_STATES:
            with self._state.begin() as connection:
                ledger.read_back_later(connection, self._seller_id, number, now=self._state.now())
            return
        if isinstance(read, UnreadableOrder):
            self._record_unreadable_order(read)
        else:
            self._store([read])

    def _record_unreadable_order(self, order: UnreadableOrder) -> None:
        """Counts it and adds a warning that names it."""
        self._warn(order.sentence)
        self._unreadable += 1
        if len(self._unread) < MOST_UNREAD:
            self._unread[order.mp_order_number or ""] = order.where or "the top"

    def _store(self, orders: Sequence[ReadOrder], size: int = 0) -> None:
        """Gives orders, `size` bytes of pages, to the lake. One whose values do not fit counts as unreadable."""
        self._publisher.take(self._seller_id, orders, size, self._count_stored)

    def _count_stored(self, orders: Sequence[ReadOrder], misfits: Mapping[int, str]) -> None:
        for position, why in sorted(misfits.items()):
            self._record_unreadable_order(UnreadableOrder(orders[position].order.mp_order_number, why))
        if stored := len(orders) - len(misfits):
            self._count(orders=stored)
            self._stored += stored
        if self._unread_before:
            self._readable_again |= self._unread_before.intersection(
                one.order.mp_order_number for position, one in enumerate(orders) if position not in misfits
            )

    def _next_watermark(
        self,
        started_at: datetime,
        read_server_time: datetime | None,
        watermark: datetime | None,
        since: datetime | None,
    ) -> datetime | None:
        """Where the next extraction starts (`rules/watermark.py`); None if the watermark must not move.

        Also None if FeedAMP sends no `Date` and the state contradicts the clock. Adds a warning if both clocks differ by
        more than half of the overlap.
        """
        overlap = self._resources.settings.overlap
        server_time = read_server_time or started_at
        if abs(server_time - started_at) > overlap / 2:
            apart_s = abs(server_time - started_at).total_seconds()
            apart = f"{apart_s / 60:.0f} minutes" if apart_s >= 120 else f"{apart_s:.0f} seconds"
            self._warn(
                f"FeedAMP's clock and the state database's differ by about {apart}, more than half of "
                "overlap_minutes, so updates may be missed. Correct the clock, or raise overlap_minutes."
            )
        if leaves_gap(watermark, since=since):
            return None
        if read_server_time is None and self._clock.doubt is not None:
            return None  # no witness but the state, which contradicts: a watermark that is ahead would skip updates
        return next_watermark(started_at=started_at, server_time=read_server_time, overlap=overlap)
