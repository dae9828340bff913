"""Who is at something that must not be done twice at once; a lease ends by itself when its holder dies."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import leases
from feedamp.state.upsert import insert

# Longer than a request with its turn, its quick retries and its timeouts can take.
LASTS = timedelta(minutes=5)


def take(connection: Connection, name: str, *, now: datetime) -> str | None:
    """The right to do what `name` says, as the word that gives it back; None while somebody else has it."""
    owner = uuid.uuid4().hex
    statement = insert(connection, leases).values(name=name, owner=owner, until=now + LASTS)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"owner": statement.excluded.owner, "until": statement.excluded.until},
            where=leases.c.until < now,
        ).returning(leases.c.name)
    )
    return owner if taken.first() is not None else None


def release(connection: Connection, name: str, owner: str) -> None:
    """Gives the right back, unless it has ended and somebody else has it by now."""
    connection.execute(sa.delete(leases).where(leases.c.name == name, leases.c.owner == owner))


def renew(connection: Connection, name: str, owner: str, *, now: datetime) -> bool:
    """Holds on to the right; False if it has ended and may be somebody else's."""
    renewed = connection.execute(
        sa.update(leases)
        .where(leases.c.name == name, leases.c.owner == owner, leases.c.until > now)
        .values(until=now + LASTS)
    )
    return bool(renewed.rowcount)
