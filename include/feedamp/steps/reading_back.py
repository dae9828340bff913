"""Shows lake and warehouse what FeedAMP makes of a state we set: no extraction may ever bring it.

`seller_updated_after` finds what sellers change; an order that only the marketplace touched is not among it.
"""

from __future__ import annotations

import logging

from feedamp.client import FeedAmpClient
from feedamp.errors import FeedAmpError
from feedamp.flatten import order_rows
from feedamp.parts import Parts
from feedamp.state import open_orders, outbox
from feedamp.sweep import read_by_number

log = logging.getLogger(__name__)


async def read_back(parts: Parts, client: FeedAmpClient, numbers: list[str]) -> None:
    """Reads orders whose state we have just set; what we did does not hang on it, so a failure is only logged.

    Safe to repeat.
    """
    if not numbers:
        return
    try:
        fresh = await read_by_number(client, numbers)
    except FeedAmpError as error:
        log.warning("Orders of seller %s could not be read back: %s", client.seller_id, error)
        return
    with parts.state.begin() as connection:
        for order, read_at in fresh.orders:
            open_orders.keep_open(connection, client.seller_id, [(order.snapshot(), read_at)])
            rows = order_rows(client.seller_id, order, read_at=read_at)
            outbox.put_all(connection, rows, recorded_at=read_at)
