"""Reads all pages of a filter without losing any: guards cursors, and asks for a page without orders again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import (
    Filters,
    OrderPage,
)
from feedamp.errors import RejectedError

RESTARTS = 3
NULL_PAGE_REPEATS = 2


class OrderPages:
    """All pages of one filter.

    `complete`: the last read reached a page without a next cursor, and every page had its orders; else `missing` says
    why not. `server_time` is FeedAMP's clock at the first page of the first read. `began_at` is the earlier of FeedAMP's
    and the state database's clock at the first page of the last read.
    """

    def __init__(self, client: FeedAmpClient, filters: Filters) -> None:
        self._client = client
        self._filters = filters
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
        for _ in range(RESTARTS + 1):
            cursor: str | None = None
            seen: set[str] = set()
            lost_page = False
            while True:
                try:
                    page = await self._page(cursor)
                except RejectedError as error:
                    if cursor is None or error.status != 400:
                        raise
                    self.missing = "the cursor expired again and again"
                    break
                if self.server_time is None:
                    self.server_time = page.server_time
                if cursor is None:
                    self.began_at = min(page.read_at, page.server_time or page.read_at)
                self.has_several_pages = cursor is not None
                yield page
                # Still null after it was requested again: its orders are not read (promise 3).
                lost_page = lost_page or (page.was_null and page.next_cursor is not None)
                if page.next_cursor is None:
                    self.complete = not lost_page
                    self.missing = "a page came without its orders" if lost_page else None
                    return
                if page.next_cursor in seen:
                    self.missing = "the cursor repeats"
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
