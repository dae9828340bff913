"""Whether orders may have moved between the pages of a list while the pages were read.

FeedAMP documents neither the order of its lists nor what a cursor stands for (contract 7.3). If an update sorts the list
again and a cursor counts positions, then an order of a page already read that is updated, and moves to a later page, moves
the next order, unchanged, onto the page already read. No page shows that order. But FeedAMP can be asked whether any order
was updated meanwhile.
"""

from __future__ import annotations

from datetime import timedelta

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import Filters, UnreadableOrder
from feedamp.api.pagination import OrderPages
from feedamp.models import Order

READS_AGAIN = 1
"""How often a list that changed while it was read is read again.

An order that moved to the page before is the last one of that page, so the second read misses it only if about a page of
other orders are updated during that read.
"""
INDEX_LAG = timedelta(minutes=1)
"""How much later than its own time stamp an update may reach the index, and move its order."""


class PageDrift:
    """Tells whether one seller's list changed during a read; keeps one page in memory."""

    def __init__(self, client: FeedAmpClient, *, page_size: int) -> None:
        self._client = client
        self._page_size = page_size
        self._known: dict[str | None, Order | UnreadableOrder] = {}

    async def may_have_happened(self, sweep: OrderPages) -> bool:
        """Whether an update may have moved an order during the last read; asks FeedAMP once if there were several pages.

        Updates that were known when the read before this one ended do not count: they moved nothing during this one.
        """
        if not sweep.has_several_pages or sweep.began_at is None:
            return False
        updated = Filters(seller_updated_after=sweep.began_at - INDEX_LAG, page_size=self._page_size)
        page = await self._client.list_orders(updated)
        is_new = any(self._known.get(item.mp_order_number) != item for item in page.items)
        self._known = {item.mp_order_number: item for item in page.items if item.mp_order_number}
        says_nothing = not page.items and (page.was_null or page.next_cursor is not None)
        return is_new or says_nothing
