"""Leases on work that two processes must not do at the same time.

The lease of a dead owner is free: immediately for processes of the same machine, after `LASTS` for all others.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.lease_owner import is_dead, new_owner
from feedamp.state.schema import leases
from feedamp.state.upsert import insert

# Longer than a request can take, with the wait for its slot, quick retries and timeouts.
LASTS = timedelta(minutes=5)


def of_order(work: str, seller_id: str, mp_order_number: str) -> str:
    """The name of a lease on one order; `work` is place, report or close. The same work has the same name."""
    return f"{work}/{seller_id}/{mp_order_number}"


def take(connection: Connection, name: str, *, now: datetime) -> str | None:
    """Takes a lease; returns the owner name with which to renew and release it, None while another owner has the lease."""
    owner = new_owner()
    current_owner = connection.execute(
        sa.select(leases.c.owner).where(leases.c.name == name)
    ).scalar_one_or_none()
    is_free = leases.c.until < now
    if current_owner is not None and is_dead(current_owner):
        is_free = sa.or_(is_free, leases.c.owner == current_owner)
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
    """Releases a lease, unless it has expired and another owner has taken it. Safe to repeat."""
    connection.execute(sa.delete(leases).where(leases.c.name == name, leases.c.owner == owner))


def renew(connection: Connection, name: str, owner: str, *, now: datetime) -> bool:
    """Extends a lease; False if it has expired, so that another owner may have it."""
    renewed = connection.execute(
        sa.update(leases)
        .where(leases.c.name == name, leases.c.owner == owner, leases.c.until > now)
        .values(until=now + LASTS)
    )
    return bool(renewed.rowcount)
