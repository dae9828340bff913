"""Reads all pages of a filter without losing any: guards cursors, and asks for a page without orders again."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import UNREADABLE_CURSOR, Filters, OrderPage, UnreadableOrder
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
SLOW_S, LEAVES_WITHIN_S = 0.005, 0.01
"""A page is slow if it is waited for so long, and the work on one waits so long for the next request to be sent.

Python runs one thread at a time: while this one works, the one that sends would wait up to 5 ms for each of its steps. A request
that waits for a slot is sent later.
"""


class _Ahead(NamedTuple):
    """A page that was asked for before it is needed; `has_left` once its request was sent."""

    cursor: str
    page: asyncio.Task[OrderPage]
    has_left: asyncio.Event


class OrderPages:
    """All pages of one filter.

    `complete`: the last read reached a page without a next cursor, and every page had its orders; else `missing` says
    why not. `next_cursor` is the one of the page that was yielded last. `server_time` is FeedAMP's clock at the
    first page of the first read. `began_at` is the earlier of FeedAMP's and the state database's clock at the first page of
    the last read.
    """

    def __init__(
        self, client: FeedAmpClient, filters: Filters, *, start: str | None = None, asks_ahead: bool = False
    ) -> None:
        """`start` is the cursor of the first page that the first read asks for; None: the beginning of the list.

        With `asks_ahead`, the next page is requested before a page is yielded, or even decoded if pages are slow, so that
        FeedAMP makes it while the page is worked on. No more than these two are held. Close the generator, or that request
        goes on after it.
        """
        self._client = client
        self._filters = filters
        self._start = start
        self._asks_ahead = asks_ahead
        self._ahead: _Ahead | None = None
        self._waited_for: tuple[str | None] | None = None  # the cursor of that page
        self._are_slow = False
        self._seen = set[str]()
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
            seen = self._seen = set[str]()
            lost_page = False
            fruitless, numbers = 0, set[str | None]()
            try:
                while True:
                    try:
                        page = await self._next(cursor)
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
                    cursor = page.next_cursor
                    self.next_cursor = None if cursor == UNREADABLE_CURSOR else cursor
                    before, numbers = numbers, {item.mp_order_number for item in page.items}
                    fruitless = fruitless + 1 if numbers <= before else 0
                    is_endless = fruitless >= FRUITLESS_PAGES or bool(self._most and len(seen) >= self._most)
                    repeats = cursor in seen
                    await self._ask_ahead(None if repeats or is_endless else self.next_cursor)
                    yield page
                    # Still null after it was requested again: its orders are not read (promise 3).
                    lost_page = lost_page or (page.was_null and cursor is not None)
                    if cursor is None:
                        self.complete = not lost_page
                        self.missing = "a page came without its orders" if lost_page else None
                        return
                    if cursor == UNREADABLE_CURSOR:
                        self.missing = "the next cursor has an unknown shape"
                        return
                    if repeats or is_endless:
                        self.missing = "the cursor repeats" if repeats else "the list has no end"
                        return
                    seen.add(cursor)
            finally:
                await self._ask_ahead(None)

    async def _next(self, cursor: str | None) -> OrderPage:
        """The page of a cursor, which may have been asked for by now."""
        ahead, self._ahead = self._ahead, None
        self._waited_for = (cursor,)
        began = time.monotonic()
        try:
            return await (self._page(cursor) if ahead is None else ahead.page)
        finally:
            self._waited_for = None
            self._are_slow = time.monotonic() - began > SLOW_S

    async def _page(self, cursor: str | None, has_left: asyncio.Event | None = None) -> OrderPage:
        """A page; one with `"orders": null` is requested again, up to twice, before it is accepted."""

        async def go_on(next_cursor: str) -> None:
            # Only if this page is waited for, or a third one would be held.
            if self._waited_for == (cursor,) and next_cursor not in self._seen:
                await self._ask_ahead(next_cursor)

        request = partial(
            self._client.list_orders,
            self._filters,
            cursor,
            on_leaving=None if has_left is None else has_left.set,
            on_cursor=go_on if self._asks_ahead and self._are_slow else None,
        )
        page = await request()
        for _ in range(NULL_PAGE_REPEATS):
            if not page.was_null:
                break
            page = await request()
        return page

    async def _ask_ahead(self, cursor: str | None) -> None:
        """Asks for this page, unless that was done, and for no other one; returns when the request is on its way."""
        ahead = self._ahead
        if ahead is not None and ahead.cursor != cursor:
            self._ahead = None
            await _end(ahead.page)
        if cursor is None or not self._asks_ahead:
            return
        if self._ahead is None:
            has_left = asyncio.Event()
            page = asyncio.create_task(self._page(cursor, has_left))
            self._ahead = _Ahead(cursor, page, has_left)
        if not self._are_slow:
            await asyncio.sleep(0)  # the request is handed over before the page is worked on
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVES_WITHIN_S):
                await self._ahead.has_left.wait()


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
