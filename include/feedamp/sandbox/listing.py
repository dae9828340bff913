"""GET /orders: pages of the orders that match (contract 3.1, 7.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from feedamp.sandbox.cursors import Cursors
from feedamp.sandbox.orders import StoredOrder
from feedamp.sandbox.queries import Query, QueryReader
from feedamp.sandbox.views import order_view
from feedamp.sandbox.wire import Call, Json, Reply
from feedamp.sandbox.world import World


def list_orders(world: World, call: Call, seller_id: str) -> Reply:
    """One page of the seller's orders that match, in no order a client could rely on.

    Raises: Refusal 400.
    """
    reader = QueryReader(world, call)
    query = reader.read()
    cursors = Cursors(world.cursor_key, seller_id, call.query)
    cursor = reader.given.get("cursor")
    after = "" if cursor is None else cursors.position(cursor, reader.refuse)
    found = list(
        islice(filter(query.matches, candidates(world, seller_id, query, after)), query.page_size + 1)
    )
    page = found[: query.page_size]
    payload: Json = {"orders": [order_view(order, world.options) for order in page]}
    if len(found) > query.page_size:
        payload["next_cursor"] = cursors.issue(page[-1].sort_key)
    elif world.options.last_cursor != "absent":
        payload["next_cursor"] = None if world.options.last_cursor == "null" else ""
    return Reply(200, payload)


def candidates(world: World, seller_id: str, query: Query, after: str) -> Iterator[StoredOrder]:
    """The orders to filter, sorted by key."""
    if query.numbers is None:
        yield from world.orders.of(seller_id, after)
        return
    stored = (world.orders.find(seller_id, number) for number in dict.fromkeys(query.numbers))
    named: Iterable[StoredOrder] = [order for order in stored if order is not None and order.sort_key > after]
    yield from sorted(named, key=lambda order: order.sort_key)
