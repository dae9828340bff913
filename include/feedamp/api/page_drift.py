"""Detects whether orders may have moved between the pages of a list while the pages were read.

FeedAMP documents neither the sort order of its lists nor what a cursor means (contract 7.3). Suppose that a cursor counts
positions and that an update moves an order from a page that was already read to a later page. Then the first order of the
next page moves up onto the page that was already read, and no page shows it. To detect this, FeedAMP is asked whether any
order was updated during the read.
"""

from __future__ import annotations

from datetime import timedelta

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import Filters, UnreadableOrder
from feedamp.api.pagination import OrderPages
from feedamp.models import Order

READS_AGAIN = 1
"""How many times a list that changed during a read is read again.

An order that moved up onto the previous page is the last one of that page, so the second read misses it only if about a
page of other orders is updated during that read.
"""
INDEX_LAG = timedelta(minutes=1)
"""How much later than its time stamp an update may reach FeedAMP's index and move the order."""


class PageDrift:
    """Detects whether one seller's list changed during a read; holds one page in memory."""

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
