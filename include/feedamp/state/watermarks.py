"""Stores where the next extraction of each seller starts; that moment is decided in `rules/watermark.py`."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import grants, watermarks
from feedamp.state.statements import upsert

_NEWEST = sa.select(
    *(
        sa.select(sa.func.max(column)).scalar_subquery()
        for column in (watermarks.c.watermark, grants.c.refreshed_at)
    )
)


def read(connection: Connection, seller_id: str) -> datetime | None:
    """Where the seller's next extraction starts, None before the first complete one."""
    query = sa.select(watermarks.c.watermark).where(watermarks.c.seller_id == seller_id)
    return connection.execute(query).scalar_one_or_none()


def move(connection: Connection, seller_id: str, moment: datetime, *, now: datetime) -> None:
    """Stores where the next extraction starts, as `SellerProgress.moved` gives it. Safe to repeat."""
    if read(connection, seller_id) != moment:
        upsert(connection, watermarks, [{"seller_id": seller_id, "watermark": moment, "moved_at": now}])


def newest_moment(connection: Connection) -> datetime | None:
    """The newest moment (UTC) that a run stored after an answer of FeedAMP; None before the first.

    Either a watermark, which is not after FeedAMP's clock, or the last refresh of a token. Moments that are also stored
    without an answer, such as the start of a run, prove nothing about the clock.
    """
    return max(filter(None, connection.execute(_NEWEST).one()), default=None)


def moved_since(connection: Connection, moment: datetime) -> list[str]:
    """Sellers whose watermark was moved since a moment (inclusive)."""
    query = sa.select(watermarks.c.seller_id).where(watermarks.c.moved_at >= moment)
    return list(connection.execute(query.order_by(watermarks.c.seller_id)).scalars())


def move_back(connection: Connection, seller_id: str, moment: datetime | None, *, now: datetime) -> None:
    """Moves a watermark back; None removes it, so that the next extraction reads everything. A later moment changes nothing."""
    if moment is None:
        remove(connection, seller_id)
        return
    later = sa.update(watermarks).where(watermarks.c.seller_id == seller_id, watermarks.c.watermark > moment)
    connection.execute(later.values(watermark=moment, moved_at=now))


def remove(connection: Connection, seller_id: str) -> None:
    """Removes a watermark, so that the next extraction reads everything. Safe to repeat."""
    connection.execute(sa.delete(watermarks).where(watermarks.c.seller_id == seller_id))
