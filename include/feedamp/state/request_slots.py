"""The allowed request rate per seller, counted over all processes (promise 10)."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import slots
from feedamp.state.statements import insert

# The longest pause that is obeyed. A longer Retry-After must be a mistake, and a slot further in the future was reserved
# by a process whose clock was wrong. Obeying either would stop all requests for the seller until then.
LONGEST_PAUSE_S = 86_400.0


def take(connection: Connection, seller_id: str, *, now: datetime, interval_s: float) -> float:
    """Reserves a request slot. Returns 0.0, or the seconds until the next one is free; then nothing was changed."""
    moment = now.timestamp()
    statement = insert(connection, slots).values(seller_id=seller_id, next_at=moment + interval_s)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["seller_id"],
            set_={"next_at": statement.excluded.next_at},
            where=sa.or_(slots.c.next_at <= moment, slots.c.next_at > moment + LONGEST_PAUSE_S),
        ).returning(slots.c.seller_id)
    )
    if taken.first() is not None:  # not every driver counts the rows of an upsert
        return 0.0
    next_at = connection.execute(
        sa.select(slots.c.next_at).where(slots.c.seller_id == seller_id)
    ).scalar_one()
    return max(0.001, float(next_at) - moment)


def postpone(connection: Connection, seller_id: str, *, now: datetime, seconds: float) -> None:
    """Blocks all requests for this seller until `seconds` have passed (Retry-After); never shortens a longer block."""
    latest = now.timestamp() + LONGEST_PAUSE_S
    until = now.timestamp() + min(seconds, LONGEST_PAUSE_S)
    statement = insert(connection, slots).values(seller_id=seller_id, next_at=until)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["seller_id"],
            set_={"next_at": sa.case((slots.c.next_at.between(until, latest), slots.c.next_at), else_=until)},
        )
    )
