"""Reads all pages of a filter without losing any: guards cursors, and asks for a page without orders again."""

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

    def __init__(self, client: FeedAmpClient, filters: Filters, *, start: str | None = None) -> None:
        """`start` is the cursor of the first page that the first read asks for; None: the beginning of the list."""
        self._client = client
        self._filters = filters
        self._start = start
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
            while True:
                try:
                    page = await self._page(cursor)
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
                self.next_cursor = page.next_cursor
                yield page
                before, numbers = numbers, {item.mp_order_number for item in page.items}
                fruitless = fruitless + 1 if numbers <= before else 0
                # Still null after it was requested again: its orders are not read (promise 3).
                lost_page = lost_page or (page.was_null and page.next_cursor is not None)
                if page.next_cursor is None:
                    self.complete = not lost_page
                    self.missing = "a page came without its orders" if lost_page else None
                    return
                if page.next_cursor in seen:
                    self.missing = "the cursor repeats"
                    return
                if fruitless >= FRUITLESS_PAGES or (self._most and len(seen) >= self._most):
                    self.missing = "the list has no end"
                    return
                seen.add(page.next_cursor)
                cursor = page.next_cursor

    async def _page(self, cursor: str | None) -> OrderPage:
        """A page; one with `"orders": null` is requested again, up to twice, before it is accepted."""
        page = await self._client.list_orders(self._filters, cursor)
        for _ in range(NULL_PAGE_REPEATS):
            if not page.was_null:
                break
            page = await self._client.list_orders(self._filters, cursor)
        return page


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
