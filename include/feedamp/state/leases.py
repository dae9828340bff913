"""Who is at something that must not be done twice at once.

The lease of a dead holder is free: at once for processes of the same machine, after `LASTS` for all others.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.lease_owner import is_dead, new_owner
from feedamp.state.schema import leases
from feedamp.state.upsert import insert

# Longer than a request with its turn, its quick retries and its timeouts can take.
LASTS = timedelta(minutes=5)


def of_order(work: str, seller_id: str, mp_order_number: str) -> str:
    """The name of a lease on one order; `work` is place, report or close. Who shares the work shares the name."""
    return f"{work}/{seller_id}/{mp_order_number}"


def take(connection: Connection, name: str, *, now: datetime) -> str | None:
    """The right to do what `name` says, as the word that gives it back; None while someone else has it."""
    owner = new_owner()
    held_by = connection.execute(sa.select(leases.c.owner).where(leases.c.name == name)).scalar_one_or_none()
    is_free = leases.c.until < now
    if held_by is not None and is_dead(held_by):
        is_free = sa.or_(is_free, leases.c.owner == held_by)
    statement = insert(connection, leases).values(name=name, owner=owner, until=now + LASTS)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"owner": statement.excluded.owner, "until": statement.excluded.until},
            where=is_free,
        ).returning(leases.c.name)
    )
    return owner if taken.first() is not None else None


def release(connection: Connection, name: str, owner: str) -> None:
    """Gives the right back, unless it has ended and someone else has it by now."""
    connection.execute(sa.delete(leases).where(leases.c.name == name, leases.c.owner == owner))


def renew(connection: Connection, name: str, owner: str, *, now: datetime) -> bool:
    """Holds on to the right; False if it has ended and may be someone else's."""
    renewed = connection.execute(
        sa.update(leases)
        .where(leases.c.name == name, leases.c.owner == owner, leases.c.until > now)
        .values(until=now + LASTS)
    )
    return bool(renewed.rowcount)
