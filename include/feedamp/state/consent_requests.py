"""Authorize URLs that wait for a callback: why one is refused, undoing a use that failed, and purging old ones."""

import hashlib
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import authorizations

LIFE = timedelta(minutes=15)
_RETENTION = timedelta(days=30)


def digest(state: str) -> str:
    """The SHA-256 digest stored for a `state`, which has 256 random bits and cannot be recovered from it."""
    return hashlib.sha256(state.encode("utf-8", "backslashreplace")).hexdigest()


def why_refused(connection: Connection, state: str, seller_id: str, *, now: datetime) -> str:
    """The reason, in words, why a `state` cannot be used."""
    query = sa.select(authorizations).where(authorizations.c.state_digest == digest(state))
    row = connection.execute(query).first()
    if row is None:
        return "this state was never handed out here, or long ago"
    if row.seller_id != seller_id:
        return "this state was handed out for another seller"
    if row.used_at is not None:
        return "this state was used already"
    if row.expires_at <= now:
        return f"this state has expired: it is valid for {LIFE // timedelta(minutes=1)} minutes"
    return "this state cannot be used"


def seller_of(connection: Connection, state: str) -> str | None:
    """The seller for whom a `state` was handed out here, usable or not; None: it was not, or long ago."""
    query = sa.select(authorizations.c.seller_id).where(authorizations.c.state_digest == digest(state))
    return connection.execute(query).scalar()


def give_back(connection: Connection, state: str) -> None:
    """Makes a `state` usable again after its code did not reach FeedAMP."""
    used = sa.update(authorizations).where(authorizations.c.state_digest == digest(state))
    connection.execute(used.values(used_at=None))


def purge_expired(connection: Connection, *, now: datetime) -> None:
    """Deletes authorize URLs that expired more than 30 days ago. Safe to repeat."""
    connection.execute(sa.delete(authorizations).where(authorizations.c.expires_at < now - _RETENTION))
