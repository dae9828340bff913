"""What people were notified of, so that they are told once and not in every run."""

from collections.abc import Collection, Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.grants import REFRESH_TOKEN_LIFE
from feedamp.state.schema import grants, notices
from feedamp.state.sellers import ACTIVE
from feedamp.state.statements import in_parts, upsert


def ending_grants(connection: Connection, *, before: datetime) -> dict[str, datetime]:
    """When the grants end that are in use and end before a moment (exclusive), by seller."""
    is_ending = sa.and_(grants.c.status == ACTIVE, grants.c.issued_at < before - REFRESH_TOKEN_LIFE)
    query = sa.select(grants.c.seller_id, grants.c.issued_at).where(is_ending).order_by(grants.c.seller_id)
    return {row.seller_id: row.issued_at + REFRESH_TOKEN_LIFE for row in connection.execute(query)}


def told(connection: Connection) -> set[str]:
    """The keys of what people were told and what still lasts."""
    return set(connection.execute(sa.select(notices.c.notice)).scalars())


def record(connection: Connection, keys: Iterable[str], *, now: datetime) -> None:
    """Notes that people were told. Safe to repeat."""
    upsert(connection, notices, [{"notice": key, "told_at": now} for key in keys])


def end(connection: Connection, keys: Collection[str]) -> None:
    """Removes what has ended, so that it is told when it begins again. Safe to repeat."""
    for part in in_parts(keys):
        connection.execute(sa.delete(notices).where(notices.c.notice.in_(part)))
