"""Stores tracking numbers and their recipients, by seller and as keyed hashes.

How long, and for which recipient, a number counts as shared: `rules/shared_tracking.py`.
"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.shared_tracking import SHARED_WITHIN
from feedamp.state.schema import tracking_uses
from feedamp.state.statements import is_order, upsert


def shared(
    connection: Connection,
    seller_id: str,
    mp_order_number: str,
    hashes: Sequence[str],
    recipient_hash: str,
    *,
    now: datetime,
) -> set[str]:
    """Those of the hashes that another order of the seller used for another recipient within `SHARED_WITHIN`."""
    if not hashes:
        return set()
    query = sa.select(tracking_uses.c.tracking_hash).where(
        tracking_uses.c.seller_id == seller_id,
        tracking_uses.c.tracking_hash.in_(hashes),
        tracking_uses.c.mp_order_number != mp_order_number,
        tracking_uses.c.recipient_hash != recipient_hash,
        tracking_uses.c.seen_at >= now - SHARED_WITHIN,
    )
    return set(connection.execute(query).scalars())


def remember(
    connection: Connection,
    seller_id: str,
    mp_order_number: str,
    hashes: Sequence[str],
    recipient_hash: str,
    *,
    now: datetime,
) -> None:
    """Records the tracking numbers that an order uses now, and removes those it no longer uses. Safe to repeat."""
    of_order = is_order(tracking_uses, seller_id, mp_order_number)
    connection.execute(sa.delete(tracking_uses).where(of_order, tracking_uses.c.tracking_hash.not_in(hashes)))
    use = {"seller_id": seller_id, "mp_order_number": mp_order_number, "recipient_hash": recipient_hash}
    rows = [{**use, "tracking_hash": value, "seen_at": now} for value in hashes]
    upsert(connection, tracking_uses, rows)
