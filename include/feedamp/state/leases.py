"""Who is at something that must not be done twice at once; a lease ends by itself when its holder dies."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import leases
from feedamp.state.upsert import insert

# Longer than a request with its turn, its quick retries and its timeouts can take.
LASTS = timedelta(minutes=5)


def take(connection: Connection, name: str, *, now: datetime) -> bool:
    """The right to do what `name` says; False while somebody else has it."""
    statement = insert(connection, leases).values(name=name, until=now + LASTS)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"until": statement.excluded.until}, where=leases.c.until < now
        ).returning(leases.c.name)
    )
    return taken.first() is not None


def release(connection: Connection, name: str) -> None:
    """Gives the right back."""
    connection.execute(sa.delete(leases).where(leases.c.name == name))
