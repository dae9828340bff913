"""Authorize URLs that were handed out: why one cannot be used, and taking back a use that came to nothing."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import authorizations

LIFE = timedelta(minutes=15)
_KEPT = timedelta(days=30)


def digest(state: str) -> str:
    """What is stored of a `state`: it has 256 random bits, so no one finds it from this."""
    return hashlib.sha256(state.encode("utf-8", "backslashreplace")).hexdigest()


def why_refused(connection: Connection, state: str, seller_id: str, *, now: datetime) -> str:
    """Why a `state` cannot be spent, in words."""
    query = sa.select(authorizations).where(authorizations.c.state_digest == digest(state))
    row = connection.execute(query).first()
    if row is None:
        return "this state was never handed out here, or long ago"
    if row.seller_id != seller_id:
        return "this state was handed out for another seller"
    if row.used_at is not None:
        return "this state was used already"
    if row.expires_at <= now:
        return f"this state has expired: it is good for {LIFE // timedelta(minutes=1)} minutes"
    return "this state cannot be used"


def give_back(connection: Connection, state: str) -> None:
    """Lets a `state` be used again whose code never reached FeedAMP."""
    connection.execute(
        sa.update(authorizations).where(authorizations.c.state_digest == digest(state)).values(used_at=None)
    )


def forget_old(connection: Connection, *, now: datetime) -> None:
    """Removes what expired long ago."""
    connection.execute(sa.delete(authorizations).where(authorizations.c.expires_at < now - _KEPT))
