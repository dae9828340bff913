"""Authorize URLs that wait for a callback: handing one out, using it once, why it is refused, giving it back."""

import hashlib
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import authorizations

LIFE = timedelta(minutes=15)
_RETENTION = timedelta(days=30)


def hand_out(connection: Connection, state: str, seller_id: str, conn_id: str, *, now: datetime) -> datetime:
    """Stores an authorize URL by a digest of its `state`, and deletes old ones; returns until when it can be used."""
    connection.execute(sa.delete(authorizations).where(authorizations.c.expires_at < now - _RETENTION))
    row = {
        "state_digest": _digest(state),
        "seller_id": seller_id,
        "conn_id": conn_id,
        "expires_at": now + LIFE,
    }
    connection.execute(sa.insert(authorizations).values(**row))
    return now + LIFE


def use(connection: Connection, state: str, seller_id: str, *, now: datetime) -> str | None:
    """Uses a `state`, which works only once; returns its connection id, or None if it is unknown, used or expired."""
    used = connection.execute(
        sa.update(authorizations)
        .where(
            authorizations.c.state_digest == _digest(state),
            authorizations.c.seller_id == seller_id,
            authorizations.c.used_at.is_(None),
            authorizations.c.expires_at > now,
        )
        .values(used_at=now)
        .returning(authorizations.c.conn_id)
    )
    return used.scalar_one_or_none()


def why_refused(connection: Connection, state: str, seller_id: str, *, now: datetime) -> str:
    """The reason, in words, why a `state` cannot be used."""
    query = sa.select(authorizations).where(authorizations.c.state_digest == _digest(state))
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
    query = sa.select(authorizations.c.seller_id).where(authorizations.c.state_digest == _digest(state))
    return connection.execute(query).scalar()


def give_back(connection: Connection, state: str) -> None:
    """Makes a `state` usable again after its code did not reach FeedAMP."""
    used = sa.update(authorizations).where(authorizations.c.state_digest == _digest(state))
    connection.execute(used.values(used_at=None))


def _digest(state: str) -> str:
    """What is stored of a `state`, which has 256 random bits and cannot be recovered from it."""
    return hashlib.sha256(state.encode("utf-8", "backslashreplace")).hexdigest()
