"""Orders that move between the pages of a list while it is read (kinds: see `faults`)."""

from collections.abc import Callable

from feedamp_sandbox.orders import StoredOrder
from feedamp_sandbox.world import World

FRONT, END = "!", "~"
"""They sort before and after every ordinary sort key, which is hexadecimal."""


def before_page(
    kind: str, world: World, seller_id: str, matches: Callable[[StoredOrder], bool], after: str
) -> None:
    """Moves an order across the position `after`, which the cursor points to."""
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
