"""Shows lake and warehouse what FeedAMP makes of a state we set: no extraction may ever bring it.

`seller_updated_after` finds what sellers change; an order that only the marketplace touched is not among it.
"""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy.engine import Connection

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import UnreadableOrder
from feedamp.api.pagination import fetch_complete, read_by_number
from feedamp.errors import FeedAmpError
from feedamp.lake.flatten import order_rows
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.state import ledger, open_orders, outbox

log = logging.getLogger(__name__)


async def read_back(resources: Resources, client: FeedAmpClient, numbers: list[str]) -> None:
    """Reads orders whose state we have just set; what we did does not hang on it, so a failure is only logged.

    An answer that still shows another state comes from an index that lags: the order is then read by itself, and if
    that lags too it is left out, for the old state would stand in the warehouse for good. Safe to repeat.
    """
    if not numbers:
        return
    asked_at = resources.state.now()
    try:
        fresh = await read_by_number(client, numbers)
        with resources.state.read() as connection:
            ours = ledger.read_many(connection, client.seller_id, numbers)
        shown = []
        for order, read_at in fresh.orders:
            state = ours[order.mp_order_number].accepted_state
            if order.marketplace_state not in (state, None):
                again = await fetch_complete(client, UnreadableOrder(order.mp_order_number, None))
                if isinstance(again, UnreadableOrder) or again[0].marketplace_state not in (state, None):
                    continue
                order, read_at = again[0], again[1] or read_at
            shown.append((order, read_at))
    except FeedAmpError as error:
        log.info(
            "Orders of seller %s are changed at FeedAMP, but could not be read again (%s); the next extraction reads them.",
            client.seller_id,
            error,
        )
        return
    with resources.state.begin() as connection:
        for number in fresh.missing:
            log.warning(
                "FeedAMP does not have order %s of seller %s; reconcile it.", number, client.seller_id
            )
            ledger.mark_missing(connection, client.seller_id, number, asked_at=asked_at)
        for order, read_at in shown:
            keep_read(connection, client.seller_id, order, read_at)


def keep_read(connection: Connection, seller_id: str, order: Order, read_at: datetime) -> None:
    """Puts an order that was read by itself into the state, and on its way to lake and warehouse. Safe to repeat."""
    open_orders.keep_open(connection, seller_id, [(order.snapshot(), read_at)])
    outbox.put_all(connection, order_rows(seller_id, order, read_at=read_at), recorded_at=read_at)
