"""Reads all pages of a filter without losing any: guards cursors, and asks for a page without orders again."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import Filters, OrderPage, UnreadableOrder
from feedamp.errors import RejectedError
from feedamp.models import Order

RESTARTS = 3
NULL_PAGE_REPEATS = 2
# A list has no end if so many pages in a row show no order that the page before did not show, or if a list of at most 50
# orders by number has so many pages.
FRUITLESS_PAGES, PAGES_BY_NUMBER = 500, 200
READS_AGAIN = 1
"""How many times a list that changed during a read is read again.

An order that moved up onto the previous page is the last one of that page, so the second read misses it only if about a
page of other orders is updated during that read.
"""
INDEX_LAG = timedelta(minutes=1)
"""How much later than its time stamp an update may reach FeedAMP's index and move the order."""


class OrderPages:
    """All pages of one filter.

    `complete`: the last read reached a page without a next cursor, and every page had its orders; else `missing` says
    why not. `next_cursor` is the one of the page that was yielded last. `server_time` is FeedAMP's clock at the
    first page of the first read. `began_at` is the earlier of FeedAMP's and the state database's clock at the first page of
    the last read.
    """

    def __init__(
        self,
        client: FeedAmpClient,
        filters: Filters,
        *,
        start: str | None = None,
        asks_ahead: bool = False,
    ) -> None:
        """`start` is the cursor of the first page that the first read asks for; None: the beginning of the list.

        With `asks_ahead`, the next page is requested before a page is yielded, so that FeedAMP makes it while the page is
        worked on. No more than these two are held. Close the generator, or that request goes on after it.
        """
        self._client = client
        self._filters = filters
        self._start = start
        self._asks_ahead = asks_ahead
        self._most = PAGES_BY_NUMBER if filters.mp_order_numbers else None
        self.next_cursor: str | None = None
        self.complete = False
        self.missing: str | None = "the end was not reached"
        self.server_time: datetime | None = None
        self.began_at: datetime | None = None
        self.has_several_pages = False

    async def pages(self) -> AsyncGenerator[OrderPage, None]:
        """Yields the pages one by one. If a cursor expires, it starts again at the first page, at most three times.

        Each call reads all pages again.
        """
        self.complete, self.missing = False, "the end was not reached"
        cursor, self._start = self._start, None
        for _ in range(RESTARTS + 1):
            seen: set[str] = set()
            lost_page = False
            fruitless, numbers = 0, set[str | None]()
            ahead: asyncio.Task[OrderPage] | None = None
            try:
                while True:
                    try:
                        page = await (self._page(cursor) if ahead is None else ahead)
                    except RejectedError as error:
                        if cursor is None or error.status != 400:
                            raise
                        self.missing = "the cursor expired again and again"
                        cursor = None
                        break
                    if self.server_time is None:
                        self.server_time = page.server_time
                    if cursor is None or self.began_at is None:
                        self.began_at = min(page.read_at, page.server_time or page.read_at)
                    self.has_several_pages = cursor is not None
                    self.next_cursor = cursor = page.next_cursor
                    before, numbers = numbers, {item.mp_order_number for item in page.items}
                    fruitless = fruitless + 1 if numbers <= before else 0
                    is_endless = fruitless >= FRUITLESS_PAGES or bool(self._most and len(seen) >= self._most)
                    repeats = cursor in seen
                    if self._asks_ahead and cursor is not None and not repeats and not is_endless:
                        ahead = asyncio.create_task(self._page(cursor))
                        await asyncio.sleep(0)  # the request is on its way before the page is worked on
                    yield page
                    # Still null after it was requested again: its orders are not read (promise 3).
                    lost_page = lost_page or (page.was_null and cursor is not None)
                    if cursor is None:
                        self.complete = not lost_page
                        self.missing = "a page came without its orders" if lost_page else None
                        return
                    if repeats or is_endless:
                        self.missing = "the cursor repeats" if repeats else "the list has no end"
                        return
                    seen.add(cursor)
            finally:
                if ahead is not None:
                    await _end(ahead)

    async def _page(self, cursor: str | None) -> OrderPage:
        """A page; one with `"orders": null` is requested again, up to twice, before it is accepted."""
        page = await self._client.list_orders(self._filters, cursor)
        for _ in range(NULL_PAGE_REPEATS):
            if not page.was_null:
                break
            page = await self._client.list_orders(self._filters, cursor)
        return page


async def _end(request: asyncio.Task[OrderPage]) -> None:
    """Ends a request whose page is no longer wanted, however it ends."""
    request.cancel()
    await asyncio.wait({request})
    if not request.cancelled():
        request.exception()  # seen, or asyncio would log it


class PageDrift:
    """Detects whether orders may have moved between the pages of one seller's list while it was read; holds one page.

    FeedAMP documents neither the sort order of its lists nor what a cursor means (contract 7.3). Suppose that a cursor
    counts positions and that an update moves an order from a page that was already read to a later page. Then the first
    order of the next page moves up onto the page that was already read, and no page shows it. To detect this, FeedAMP is
    asked whether any order was updated during the read.
    """

    def __init__(self, client: FeedAmpClient, *, page_size: int) -> None:
        self._client = client
        self._page_size = page_size
        self._known: dict[str | None, Order | UnreadableOrder] = {}

    async def may_have_happened(self, sweep: OrderPages) -> bool:
        """Whether an update may have moved an order during the last read. Sends one request if there were several pages.

        Updates already seen at the end of the previous read do not count: they moved nothing during this one.
        """
        if not sweep.has_several_pages or sweep.began_at is None:
            return False
        updated = Filters(seller_updated_after=sweep.began_at - INDEX_LAG, page_size=self._page_size)
        page = await self._client.list_orders(updated)
        is_new = any(self._known.get(item.mp_order_number) != item for item in page.items)
        self._known = {item.mp_order_number: item for item in page.items if item.mp_order_number}
        says_nothing = not page.items and (page.was_null or page.next_cursor is not None)
        return is_new or says_nothing
