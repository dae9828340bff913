"""Late orders and what marketplaces measure, by seller and UTC day: `load` asks the warehouse, the pages show it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.reconciled_days import ALL_SELLERS
from feedamp.state.schema import scorecards
from feedamp.state.statements import in_parts, upsert
from feedamp.tables import Row

FIGURES = tuple(column.name for column in scorecards.c if column.name not in ("day", "measured_at", "took_s"))
# Reading the figures takes at most a twentieth of the time, unless it takes no longer than this.
CHEAP_S = 1.0
PAUSE_PER_READING = 20


def is_due(connection: Connection, *, now: datetime) -> bool:
    """Whether the figures are to be read again: in a large warehouse that takes too long for each load."""
    row = connection.execute(_readings()).first()
    if row is None or row.took_s <= CHEAP_S:
        return True
    pause = timedelta(seconds=row.took_s * PAUSE_PER_READING)
    return not timedelta(0) <= now - row.measured_at < pause


def store(connection: Connection, rows: Iterable[Row], *, now: datetime, took_s: float) -> int:
    """Stores the sellers' figures of today, as `FIGURES`; returns how many sellers have others than before. Safe to repeat."""
    day = now.date()
    query = sa.select(*(scorecards.c[name] for name in FIGURES)).where(scorecards.c.day == day)
    stored = {row.seller_id: row._asdict() for row in connection.execute(query)}
    changed = [{"day": day, **row} for row in rows if stored.get(row["seller_id"]) != row]
    for part in in_parts(changed):
        upsert(connection, scorecards, part)
    read = {"day": day, "seller_id": ALL_SELLERS, "measured_at": now, "took_s": took_s}
    upsert(connection, scorecards, [read])
    return len(changed)


def measured_at(connection: Connection) -> datetime | None:
    """When the newest figures were read; None if none are stored."""
    return connection.execute(_readings()).scalar()


def newest_day() -> sa.ScalarSelect[Any]:
    """The newest day that has figures, for queries."""
    return sa.select(sa.func.max(scorecards.c.day)).scalar_subquery()


def of_seller(connection: Connection, seller_id: str, days: int, *, now: datetime) -> list[Row]:
    """`day` and `FIGURES` of the last days that have any, today included, the newest first."""
    columns = (scorecards.c.day, *(scorecards.c[name] for name in FIGURES))
    # The key begins with the day, so each is looked up.
    wanted = [now.date() - timedelta(days=back) for back in range(days)]
    query = sa.select(*columns).where(scorecards.c.day.in_(wanted), scorecards.c.seller_id == seller_id)
    return [row._asdict() for row in connection.execute(query.order_by(scorecards.c.day.desc()))]


def _readings() -> sa.Select[Any]:
    newest = (scorecards.c.day == newest_day(), scorecards.c.seller_id == ALL_SELLERS)
    return sa.select(scorecards.c.measured_at, scorecards.c.took_s).where(*newest)
