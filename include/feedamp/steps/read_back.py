"""Reads orders again after a PUT has changed their state, so that lake and warehouse have FeedAMP's new state.

Later extractions may never read such an order again, because the filter `seller_updated_after` finds only orders that
their seller has changed.
"""

import logging
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.engine import Connection

from feedamp.api.client import FeedAmpClient
from feedamp.api.orders_by_number import fetch_again, read_by_number
from feedamp.api.pages import UnreadableOrder
from feedamp.errors import FeedAmpError
from feedamp.lake.flatten import order_rows
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.state import ledger, open_orders, outbox

log = logging.getLogger(__name__)


async def read_back(
    resources: Resources, client: FeedAmpClient, numbers: list[str], *, run_id: str | None
) -> None:
    """Reads orders whose state was just set by a PUT; a failure is only logged, since the PUT has succeeded.

    A list may lag and still show the old state. Such an order is then read alone; if that answer is old as well, it is
    skipped, because the old state would remain in the warehouse. Safe to repeat.
    """
    if not numbers:
        return
    asked_at = resources.state.now()
    try:
        fresh = await read_by_number(client, numbers)
        with resources.state.read() as connection:
            ledger_orders = ledger.read_many(connection, client.seller_id, numbers)
        current = []
        for order, read_at in fresh.orders:
            if order.mp_order_number not in ledger_orders:
                continue  # erased meanwhile
            state = ledger_orders[order.mp_order_number].accepted_state
            if order.marketplace_state not in (state, None):
                read = await fetch_again(client, UnreadableOrder(order.mp_order_number, None))
                if isinstance(read, UnreadableOrder) or read.order.marketplace_state not in (state, None):
                    continue
                order, read_at = read
            current.append((order, read_at))
    except FeedAmpError as error:
        log.info(
            "Orders of seller %s were changed at FeedAMP, but could not be read back (%s); the next extraction reads them.",
            client.seller_id,
            error,
        )
        return

    def store(connection: Connection) -> None:
        for number in fresh.missing:
            log.warning(
                "FeedAMP does not have order %s of seller %s; reconcile it.", number, client.seller_id
            )
            ledger.mark_missing(connection, client.seller_id, number, asked_at=asked_at)
        store_orders(connection, client.seller_id, current, run_id=run_id)

    await resources.state.change(client.seller_id, store)


def store_orders(
    connection: Connection, seller_id: str, read: Iterable[tuple[Order, datetime]], *, run_id: str | None
) -> None:
    """Stores orders of the ledger in the state, and in the outbox for lake and warehouse. Safe to repeat.

    Stores nothing of an order that the ledger no longer has, because it was erased meanwhile.
    """
    found = {order.mp_order_number: (order, read_at) for order, read_at in read}
    in_ledger = ledger.known(connection, seller_id, found)
    known = [found[number] for number in found if number in in_ledger]
    snapshots = [(order.snapshot(), read_at) for order, read_at in known]
    open_orders.keep_open(connection, seller_id, snapshots, run_id=run_id)
    rows = (
        row
        for order, read_at in known
        for row in outbox.with_moment(order_rows(seller_id, order, read_at=read_at), read_at)
    )
    outbox.put_rows(connection, rows)
