"""The allowed request rate per seller, counted over all processes (promise 10)."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import slots
from feedamp.state.upsert import insert


def reserve(connection: Connection, seller_id: str, *, now: datetime, interval_s: float) -> float:
    """Takes the next free slot of a seller; returns the seconds to wait until it begins."""
    moment = now.timestamp()
    statement = insert(connection, slots).values(seller_id=seller_id, next_at=moment + interval_s)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["seller_id"],
            set_={"next_at": sa.case((slots.c.next_at > moment, slots.c.next_at), else_=moment) + interval_s},
        ).returning(slots.c.next_at)
    ).scalar_one()
    return max(0.0, float(taken) - interval_s - moment)


def postpone(connection: Connection, seller_id: str, *, now: datetime, seconds: float) -> None:
    """Lets nobody send for this seller before `seconds` have passed (Retry-After)."""
    until = now.timestamp() + seconds
    statement = insert(connection, slots).values(seller_id=seller_id, next_at=until)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["seller_id"],
            set_={"next_at": sa.case((slots.c.next_at > until, slots.c.next_at), else_=until)},
        )
    )


def wait_s(connection: Connection, seller_id: str, *, now: datetime) -> float:
    """Seconds until the next slot of a seller begins, without taking it."""
    next_at = connection.execute(
        sa.select(slots.c.next_at).where(slots.c.seller_id == seller_id)
    ).scalar_one_or_none()
    return max(0.0, (next_at or 0.0) - now.timestamp())
