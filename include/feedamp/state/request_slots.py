"""The allowed request rate per seller, counted over all processes (promise 10)."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import slots
from feedamp.state.upsert import insert


def take(connection: Connection, seller_id: str, *, now: datetime, interval_s: float) -> float:
    """Takes the turn if one is free now; else changes nothing and returns the seconds until one may be."""
    moment = now.timestamp()
    statement = insert(connection, slots).values(seller_id=seller_id, next_at=moment + interval_s)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["seller_id"],
            set_={"next_at": statement.excluded.next_at},
            where=slots.c.next_at <= moment,
        ).returning(slots.c.seller_id)
    )
    if taken.first() is not None:  # not every driver counts the rows of an upsert
        return 0.0
    next_at = connection.execute(
        sa.select(slots.c.next_at).where(slots.c.seller_id == seller_id)
    ).scalar_one()
    return max(0.001, float(next_at) - moment)


def postpone(connection: Connection, seller_id: str, *, now: datetime, seconds: float) -> None:
    """Lets no one send for this seller before `seconds` have passed (Retry-After)."""
    until = now.timestamp() + seconds
    statement = insert(connection, slots).values(seller_id=seller_id, next_at=until)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["seller_id"],
            set_={"next_at": sa.case((slots.c.next_at > until, slots.c.next_at), else_=until)},
        )
    )
