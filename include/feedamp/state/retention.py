"""Redacts and purges old data in the state, a batch at a time; decides which rows are due.

Each function returns how many rows it changed. What remains of a redacted body: `rules/stored_body.py`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json, encode_body
from feedamp.rules.order import Phase
from feedamp.rules.shared_tracking import SHARED_WITHIN
from feedamp.rules.stored_body import FULL, OBSERVED, REDACTED, redacted_body
from feedamp.state.schema import (
    commit_marks,
    order_events,
    orders,
    reconciliation_days,
    reconciliation_differences,
    rejected_orders,
    scorecards,
    tracking_uses,
)
from feedamp.state.statements import is_order, is_same_order

MARKS_KEPT = timedelta(days=1)
EVENTS_KEPT = timedelta(days=30)  # after the order has ended; the warehouse keeps them
CHECKED_DAYS_KEPT = timedelta(days=400)  # from the comparison on, whichever day it compared
FIGURES_KEPT = timedelta(days=40)  # a page shows 30 days
_DONE = (Phase.CLOSED, Phase.NEVER_PLACED)


def redact_bodies(connection: Connection, *, ended_before: datetime, limit: int) -> int:
    """Redacts customer fields of orders that ended before a moment (exclusive); hashes and quantities remain."""
    query = sa.select(orders.c.seller_id, orders.c.mp_order_number, orders.c.body).where(_ended(ended_before))
    found = connection.execute(query.limit(limit)).all()
    if found:
        change = sa.update(orders).where(is_order(orders, sa.bindparam("seller"), sa.bindparam("number")))
        rows = [
            {
                "seller": row.seller_id,
                "number": row.mp_order_number,
                "redacted": encode_body(redacted_body(decode_json(row.body.encode()))).decode(),
            }
            for row in found
        ]
        connection.execute(change.values(body=sa.bindparam("redacted"), body_kind=REDACTED), rows)
    return len(found)


def empty_rejects(connection: Connection, *, superseded_before: datetime, limit: int) -> int:
    """Purges the raw row of rejects superseded or dismissed before a moment, or whose order is redacted; reasons remain.

    An open reject of an open order, or of no order, keeps its raw row: `feedamp rejected replay` reads it.
    """
    query = sa.select(rejected_orders.c.source, rejected_orders.c.row_number, rejected_orders.c.row_hash)
    found = connection.execute(query.where(_can_be_emptied(superseded_before)).limit(limit)).all()
    if found:
        change = sa.update(rejected_orders).where(
            rejected_orders.c.source == sa.bindparam("from_source"),
            rejected_orders.c.row_number == sa.bindparam("from_row"),
            rejected_orders.c.row_hash == sa.bindparam("hash"),
        )
        rows = [{"from_source": row[0], "from_row": row[1], "hash": row[2]} for row in found]
        connection.execute(change.values(raw=""), rows)
    return len(found)


def drop_tracking_uses(connection: Connection, *, now: datetime, limit: int) -> int:
    """Deletes hashes of tracking numbers that no check uses any more, because they are older than `SHARED_WITHIN`."""
    key = tuple(tracking_uses.primary_key)
    query = sa.select(*key).where(tracking_uses.c.seen_at < now - SHARED_WITHIN).limit(limit)
    return _delete(connection, tracking_uses, connection.execute(query).all())


def drop_commit_marks(connection: Connection, *, now: datetime, limit: int) -> int:
    """Deletes marks of writers that have written nothing for a day; a process that still runs sets its marks again."""
    old = sa.select(commit_marks.c.writer).where(commit_marks.c.set_at < now - MARKS_KEPT).limit(limit)
    return connection.execute(sa.delete(commit_marks).where(commit_marks.c.writer.in_(old))).rowcount


def drop_order_events(
    connection: Connection, *, after: datetime, now: datetime, limit: int
) -> datetime | None:
    """Deletes events older than `EVENTS_KEPT` of orders that ended that long ago; returns where to go on, None at the end.

    Looks at about `limit` of the events after a moment (exclusive), so that those of open orders are not read once for
    each batch.
    """
    before = now - EVENTS_KEPT
    old = sa.and_(
        order_events.c.occurred_at > after,
        order_events.c.occurred_at < before,
        order_events.c.seller_id != "",
    )
    moments = sa.select(order_events.c.occurred_at).where(old).order_by(order_events.c.occurred_at)
    end: datetime | None = connection.execute(moments.offset(limit - 1).limit(1)).scalar()
    has_work_left = sa.exists().where(
        is_same_order(orders, order_events),
        sa.or_(orders.c.phase.not_in(_DONE), orders.c.ended_at.is_(None), orders.c.ended_at >= before),
    )
    connection.execute(
        sa.delete(order_events).where(old, order_events.c.occurred_at <= (end or before), ~has_work_left)
    )
    return end


def drop_reconciliation_days(connection: Connection, *, now: datetime, limit: int) -> int:
    """Deletes what reconciliations found 400 days ago; the warehouse keeps it."""
    key = tuple(reconciliation_days.primary_key)
    query = sa.select(*key).where(reconciliation_days.c.checked_at < now - CHECKED_DAYS_KEPT).limit(limit)
    return _delete(connection, reconciliation_days, connection.execute(query).all())


def drop_scorecards(connection: Connection, *, now: datetime, limit: int) -> int:
    """Deletes the figures of sellers of days that no page shows any more."""
    key = tuple(scorecards.primary_key)
    query = sa.select(*key).where(scorecards.c.day < (now - FIGURES_KEPT).date()).limit(limit)
    return _delete(connection, scorecards, connection.execute(query).all())


def drop_differences(connection: Connection, *, now: datetime, limit: int) -> int:
    """Deletes differences that reconciliations found 400 days ago; the warehouse keeps them."""
    key = tuple(reconciliation_differences.primary_key)
    old = reconciliation_differences.c.found_at < now - CHECKED_DAYS_KEPT
    found = connection.execute(sa.select(*key).where(old).limit(limit)).all()
    return _delete(connection, reconciliation_differences, found)


def _delete(connection: Connection, table: sa.Table, found: Sequence[sa.Row[Any]]) -> int:
    """Deletes the rows with these keys; returns how many they are."""
    key = tuple(table.primary_key)
    if found:
        condition = sa.and_(*(column == sa.bindparam(f"key_{column.name}") for column in key))
        rows = [{f"key_{column.name}": row[at] for at, column in enumerate(key)} for row in found]
        connection.execute(sa.delete(table).where(condition), rows)
    return len(found)


def waiting(connection: Connection, *, ended_before: datetime) -> tuple[int, int]:
    """(bodies to redact, rejects to empty) that are due."""
    bodies = sa.select(sa.func.count()).select_from(orders).where(_ended(ended_before))
    rejects = sa.select(sa.func.count()).select_from(rejected_orders).where(_can_be_emptied(ended_before))
    return connection.execute(bodies).scalar_one(), connection.execute(rejects).scalar_one()


def _ended(before: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(
        orders.c.body_kind.in_((FULL, OBSERVED)), orders.c.ended_at < before, orders.c.phase.in_(_DONE)
    )


def _can_be_emptied(before: datetime) -> sa.ColumnElement[bool]:
    is_redacted = sa.exists().where(is_same_order(orders, rejected_orders), orders.c.body_kind == REDACTED)
    is_over = sa.or_(rejected_orders.c.superseded_at < before, rejected_orders.c.dismissed_at < before)
    return sa.and_(rejected_orders.c.raw != "", sa.or_(is_over, is_redacted))
