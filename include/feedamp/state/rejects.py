"""Rows that were not placed, with every reason and the row itself, so that they can be replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state import outbox
from feedamp.state.schema import rejected_orders
from feedamp.state.upsert import upsert
from feedamp.tables import REJECTED_ORDERS

INBOX = "inbox"
FEEDAMP = "feedamp"
ReasonFields = dict[str, str]


@dataclass(frozen=True)
class Rejected:
    """One rejected row; `raw` may hold customer fields."""

    source: str
    row_number: int
    row_hash: str
    seller_id: str | None
    mp_order_number: str | None
    stage: str
    reasons: tuple[ReasonFields, ...]
    raw: str = field(repr=False)
    rejected_at: datetime
    superseded_at: datetime | None = None
    dismissed_at: datetime | None = None
    dismiss_reason: str | None = None


def write(connection: Connection, rejected: Rejected, *, now: datetime) -> None:
    """Stores a rejected row. Safe to repeat: the same row stands once."""
    reasons = msgspec.json.encode(rejected.reasons).decode()
    upsert(
        connection,
        rejected_orders,
        [{**{n: getattr(rejected, n) for n in rejected.__dataclass_fields__}, "reasons": reasons}],
    )
    outbox.put(connection, REJECTED_ORDERS.name, [_row(rejected, reasons)], recorded_at=now)


def supersede_file(connection: Connection, source: str, *, now: datetime) -> int:
    """Marks the standing rejects of a file that is read again; returns how many.

    What FeedAMP refused stands until its order comes in mended: the row may still be in the file, and as a
    repeat it would be recorded nowhere (promise 1).
    """
    condition = sa.and_(rejected_orders.c.source == source, rejected_orders.c.stage == INBOX)
    return _supersede(connection, condition, now)


def supersede_order(connection: Connection, seller_id: str, mp_order_number: str, *, now: datetime) -> int:
    """Marks the standing rejects of an order that came in mended; returns how many."""
    condition = sa.and_(
        rejected_orders.c.seller_id == seller_id, rejected_orders.c.mp_order_number == mp_order_number
    )
    return _supersede(connection, condition, now)


def supersede_row(connection: Connection, rejected: Rejected, *, now: datetime) -> int:
    """Marks one reject, if it stands."""
    condition = sa.and_(
        rejected_orders.c.source == rejected.source,
        rejected_orders.c.row_number == rejected.row_number,
        rejected_orders.c.row_hash == rejected.row_hash,
    )
    return _supersede(connection, condition, now)


def standing(connection: Connection, *, everything: bool = False) -> list[Rejected]:
    """Rejects that stand, or all that ever were."""
    query = sa.select(rejected_orders).order_by(rejected_orders.c.source, rejected_orders.c.row_number)
    if not everything:
        query = query.where(rejected_orders.c.superseded_at.is_(None))
    return _read(connection, query)


def standing_of(connection: Connection, source: str) -> list[Rejected]:
    """Rejects of stage `inbox` that stand of one source, without their text."""
    columns = [
        column if column is not rejected_orders.c.raw else sa.literal("").label("raw")
        for column in rejected_orders.c
    ]
    return _read(connection, sa.select(*columns).where(_stands_from(source)))


def of_content(connection: Connection, source: str, row_hash: str) -> Rejected | None:
    """The reject of stage `inbox` that stands for this very content of a source, at whatever place."""
    query = sa.select(rejected_orders).where(_stands_from(source), rejected_orders.c.row_hash == row_hash)
    found = _read(connection, query.limit(1))
    return found[0] if found else None


def _stands_from(source: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        rejected_orders.c.source == source,
        rejected_orders.c.stage == INBOX,
        rejected_orders.c.superseded_at.is_(None),
    )


def refused_since(connection: Connection, since: datetime) -> int:
    """How many orders FeedAMP refused since a moment."""
    query = sa.select(sa.func.count()).where(
        rejected_orders.c.stage == FEEDAMP, rejected_orders.c.rejected_at >= since
    )
    return connection.execute(query).scalar_one()


def stands(connection: Connection, rejected: Rejected) -> bool:
    """Whether this very row still stands rejected."""
    query = sa.select(rejected_orders.c.superseded_at).where(
        rejected_orders.c.source == rejected.source,
        rejected_orders.c.row_number == rejected.row_number,
        rejected_orders.c.row_hash == rejected.row_hash,
    )
    row = connection.execute(query).first()
    return row is not None and row.superseded_at is None


def _supersede(connection: Connection, condition: sa.ColumnElement[bool], now: datetime) -> int:
    query = sa.select(rejected_orders).where(condition, rejected_orders.c.superseded_at.is_(None))
    rows = _read(connection, query)
    for rejected in rows:
        write(connection, _superseded(rejected, now), now=now)
    return len(rows)


def _superseded(rejected: Rejected, now: datetime) -> Rejected:
    values = {name: getattr(rejected, name) for name in rejected.__dataclass_fields__}
    return Rejected(**{**values, "superseded_at": now})


def _read(connection: Connection, query: sa.Select[tuple[object, ...]]) -> list[Rejected]:
    rows: Sequence[sa.Row[tuple[object, ...]]] = connection.execute(query).all()
    return [
        Rejected(**{**row._mapping, "reasons": tuple(msgspec.json.decode(row._mapping["reasons"]))})
        for row in rows
    ]


def _row(rejected: Rejected, reasons: str) -> dict[str, object]:
    row = {name: getattr(rejected, name) for name in REJECTED_ORDERS.names}
    return {**row, "reasons": reasons}
