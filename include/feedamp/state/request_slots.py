"""The allowed request rate per seller, counted over all processes (promise 10)."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import slots
from feedamp.state.statements import insert

# The longest pause that is obeyed. A longer Retry-After must be a mistake, and a slot further in the future was reserved
# by a process whose clock was wrong. Obeying either would stop all requests for the seller until then.
LONGEST_PAUSE_S = 86_400.0


# Live work keeps its pace beside work on history. Counted in slots (the distance between two requests of a seller): until
# QUIET slots after a live request, history takes every RARELY-th slot at most; until OVER slots after it, its share; then all.
# A live request waits one slot at most for a request of history, so live work gets a tenth slower at most.
QUIET, OVER, RARELY = 10, 15, 20
LOOK_AGAIN_S = 10.0  # history that waits for live work looks at least so often whether that is over


def take(
    connection: Connection,
    seller_id: str,
    *,
    now: datetime,
    interval_s: float,
    history_share: float | None = None,
) -> float:
    """Reserves a request slot. Returns 0.0, or the seconds until it should be asked for again; then none was taken.

    Live work that has to wait leaves the time at which it wants its slot. Work on history gives `history_share`, the part
    of the rate that it takes at most while live work wants requests, and takes all of it otherwise.
    """
    moment, is_live = now.timestamp(), history_share is None
    of_seller = slots.c.seller_id == seller_id
    is_free = sa.or_(slots.c.next_at <= moment, slots.c.next_at > moment + LONGEST_PAUSE_S)
    if history_share is not None:
        seen = connection.execute(sa.select(slots).where(of_seller)).first()
        if seen is not None:
            given_way_until = _given_way_until(seen.live_at, seen.history_at, interval_s, history_share)
            wait_s = max(_until(seen.next_at, moment), min(LOOK_AGAIN_S, _until(given_way_until, moment)))
            if wait_s > 0:
                return wait_s
            is_free &= sa.and_(slots.c.live_at == seen.live_at, slots.c.history_at == seen.history_at)
    values = {"next_at": moment + interval_s, "live_at" if is_live else "history_at": moment}
    taken = connection.execute(
        insert(connection, slots)
        .values(seller_id=seller_id, **values)
        .on_conflict_do_update(index_elements=["seller_id"], set_=values, where=is_free)
        .returning(slots.c.seller_id)
    )
    if taken.first() is not None:  # not every driver counts the rows of an upsert
        return 0.0
    next_at = connection.execute(
        sa.update(slots).where(of_seller).values(live_at=slots.c.next_at).returning(slots.c.next_at)
        if is_live
        else sa.select(slots.c.next_at).where(of_seller)
    ).scalar_one()
    return max(0.001, float(next_at) - moment)


def _given_way_until(live_at: float, history_at: float, interval_s: float, share: float) -> float:
    """The moment from which history may take a slot, if no live request comes before."""
    return min(
        history_at + interval_s * max(RARELY, 1 / share),
        max(history_at + interval_s / share, live_at + QUIET * interval_s),
        live_at + OVER * interval_s,
    )


def _until(then: float, moment: float) -> float:
    """Seconds until `then`; none if it lies further ahead than any pause, as a wrong clock had it."""
    return then - moment if moment < then <= moment + LONGEST_PAUSE_S else 0.0


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
