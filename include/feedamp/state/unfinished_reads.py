"""Stores what an extraction could not read: where it left off in a seller's list, and orders that are unreadable."""

from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import reads_left_off, unread_orders
from feedamp.state.statements import insert, of_sellers, upsert

MOST_UNREAD = 1_000  # stored for one seller
# Numbers of orders that were unreadable when they were last read.
UNREAD = sa.select(unread_orders.c.seller_id, unread_orders.c.mp_order_number).where(
    of_sellers(unread_orders)
)


class LeftOff(msgspec.Struct, frozen=True, kw_only=True):
    """Where the next extraction goes on in a seller's list, and what it needs to know of the part that was read.

    `since` is the lower bound of the list, `manifests` hold the orders that were read, and `is_whole` says whether all of
    these were readable. The other times (UTC) are of the first page: `started_at` by the clock of the state,
    `server_time` by FeedAMP's. It is valid only for the account that was accepted at `account_checked_at`.
    """

    cursor: str
    since: datetime | None
    started_at: datetime
    server_time: datetime | None
    account_checked_at: datetime | None
    is_whole: bool
    manifests: tuple[str, ...] = ()


def decode(content: str) -> LeftOff:
    """A stored place."""
    return msgspec.json.decode(content, type=LeftOff)


def leave_off(connection: Connection, seller_id: str, place: LeftOff | None) -> None:
    """Stores where an extraction left off; None: it reached the end. Safe to repeat."""
    if place is None:
        connection.execute(sa.delete(reads_left_off).where(reads_left_off.c.seller_id == seller_id))
        return
    content = msgspec.json.encode(place).decode()
    upsert(connection, reads_left_off, [{"seller_id": seller_id, "content": content}])


def note_unread(
    connection: Connection, seller_id: str, found: Mapping[str, str], *, gone: Collection[str], now: datetime
) -> None:
    """Stores orders `found` unreadable with the reason, and removes those that are `gone`. Safe to repeat."""
    of_seller = unread_orders.c.seller_id == seller_id
    for number in gone:
        is_order = unread_orders.c.mp_order_number == number
        connection.execute(sa.delete(unread_orders).where(of_seller, is_order))
    rows = [
        {"seller_id": seller_id, "mp_order_number": number, "reason": reason, "since": now}
        for number, reason in found.items()
    ]
    if rows:
        connection.execute(insert(connection, unread_orders).on_conflict_do_nothing(), rows)
