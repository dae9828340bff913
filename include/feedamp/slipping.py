"""Whether orders may have changed places in a list while its pages were read.

FeedAMP documents neither the order of its lists nor what a cursor stands for (contract 7.3). Where a list sorts itself
anew on an update and a cursor counts places, each order that leaves the part already read pulls another one after it,
unchanged, onto a page already read. Nothing in the pages shows that one; that something moved can be asked.
"""

from __future__ import annotations

from datetime import timedelta

from feedamp.client import FeedAmpClient
from feedamp.models import Order
from feedamp.pages import Filters, Unread
from feedamp.sweep import Sweep

READS_AGAIN = 1
"""How often a list that may have moved is read again.

An order that slipped stands at the end of a page then, so that the second read misses it only if about a page of
others move meanwhile.
"""
INDEX_LAG = timedelta(minutes=1)
"""An update moves its order when the index takes it in, which may be so long after the moment it bears."""


class Slipping:
    """Watches one seller's list over the reads of one window; holds one page."""

    def __init__(self, client: FeedAmpClient, *, page_size: int) -> None:
        self._client = client
        self._page_size = page_size
        self._known: dict[str | None, Order | Unread] = {}

    async def may_have_happened(self, sweep: Sweep) -> bool:
        """Whether an update may have moved an order while the pages were last read; asks once if there were several.

        An update that was there already when the read before this one had ended did not fall into this one.
        """
        if not sweep.has_several_pages or sweep.began_at is None:
            return False
        updated = Filters(seller_updated_after=sweep.began_at - INDEX_LAG, page_size=self._page_size)
        page = await self._client.list_orders(updated)
        is_new = any(self._known.get(item.mp_order_number) != item for item in page.items)
        self._known = {item.mp_order_number: item for item in page.items if item.mp_order_number}
        says_nothing = not page.items and (page.was_null or page.next_cursor is not None)
        return is_new or says_nothing
