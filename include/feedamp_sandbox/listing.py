"""GET /orders: pages of matching orders (contract 3.1, 7.3)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from feedamp_sandbox.cursors import Cursors
from feedamp_sandbox.faults import MOVING_KINDS, Fault
from feedamp_sandbox.orders import StoredOrder
from feedamp_sandbox.queries import Query, QueryReader
from feedamp_sandbox.views import order_view
from feedamp_sandbox.wire import Call, Json, Reply
from feedamp_sandbox.world import World

FRONT, END = "!", "~"
"""They sort before and after every ordinary sort key, which is hexadecimal."""


def list_orders(world: World, call: Call, seller_id: str, fault: Fault | None = None) -> Reply:
    """One page of the seller's matching orders, in an order that no client can rely on.

    The faults `index_lag` and `clock_apart` and those that move orders change which orders the page is made from.

    Raises: Refusal 400.
    """
    reader = QueryReader(world, call)
    query = reader.read()
    cursors = Cursors(world.cursor_key, seller_id, call.query)
    cursor = reader.given.get("cursor")
    after = "" if cursor is None else cursors.position(cursor, reader.refuse)
    lag = timedelta(seconds=fault.seconds) if fault and fault.kind == "index_lag" else None
    if fault and fault.kind == "clock_apart":
        query = by_another_clock(query, timedelta(seconds=fault.seconds))
    if fault and fault.kind in MOVING_KINDS:
        move_an_order(fault.kind, world, seller_id, query.matches, after)
    listed = candidates(world, seller_id, query, after)
    versions = ((order, order if lag is None else order.as_of(world.clock() - lag)) for order in listed)
    matching = (
        (order, version) for order, version in versions if version is not None and query.matches(version)
    )
    found = list(islice(matching, query.page_size + 1))
    page = found[: query.page_size]
    payload: Json = {"orders": [order_view(version, world.options) for _, version in page]}
    if page and fault and fault.kind == "change_after_read":
        page[0][0].updated_by_seller(world.clock())
    if len(found) > query.page_size:
        payload["next_cursor"] = cursors.issue(page[-1][0].sort_key)
    elif world.options.last_cursor != "absent":
        payload["next_cursor"] = None if world.options.last_cursor == "null" else ""
    return Reply(200, payload)


def by_another_clock(query: Query, ahead: timedelta) -> Query:
    """The query as answered by a server whose clock and time stamps are ahead of the sandbox's."""

    def shifted(bound: datetime | None) -> datetime | None:
        return bound and bound - ahead

    return replace(
        query,
        imported_after=shifted(query.imported_after),
        seller_updated_after=shifted(query.seller_updated_after),
    )


def candidates(world: World, seller_id: str, query: Query, after: str) -> Iterator[StoredOrder]:
    """The orders to filter, sorted by sort key."""
    if query.numbers is None:
        yield from world.orders.of(seller_id, after)
        return
    stored = (world.orders.find(seller_id, number) for number in dict.fromkeys(query.numbers))
    named: Iterable[StoredOrder] = [order for order in stored if order is not None and order.sort_key > after]
    yield from sorted(named, key=lambda order: order.sort_key)


def move_an_order(
    kind: str, world: World, seller_id: str, matches: Callable[[StoredOrder], bool], after: str
) -> None:
    """Moves an order across the position `after`, which the cursor points to (kinds: see `faults`)."""
    orders, now = world.orders, world.clock()
    read = [order for order in orders.of(seller_id) if order.sort_key <= after and matches(order)]
    unread = [order for order in orders.of(seller_id, after) if matches(order)]
    if kind == "move_up" and unread:
        unread[-1].updated_by_seller(now)
        orders.move(seller_id, unread[-1], FRONT)
    if kind in ("move_down", "shift_pages") and read:
        read[0].updated_by_seller(now)
        orders.move(seller_id, read[0], END + read[0].sort_key.lstrip(END))
    if kind == "shift_pages" and unread:
        orders.move(seller_id, unread[0], after)
