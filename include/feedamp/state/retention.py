"""Redacts and purges old data in the state, a batch at a time; decides which rows are due.

Each function returns how many rows it changed. What remains of a redacted body: `rules/stored_body.py`.
"""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json, encode_body
from feedamp.rules.order import Phase
from feedamp.rules.shared_tracking import SHARED_WITHIN
from feedamp.rules.stored_body import FULL, OBSERVED, REDACTED, redacted_body
from feedamp.state import ledger
from feedamp.state.departures import drop_leases
from feedamp.state.schema import (
    commit_marks,
    leases,
    order_events,
    orders,
    reconciliation_days,
    reconciliation_differences,
    rejected_orders,
    scorecards,
    tracking_uses,
)
from feedamp.state.statements import count_rows, is_order, is_same_order

EVENTS_KEPT = timedelta(days=30)  # after the order has ended; the warehouse keeps them
LEASES_KEPT = timedelta(days=1)  # likewise; whoever works on an order releases its lease as the order ends
CHECKED_DAYS_KEPT = timedelta(days=400)  # from the comparison on, whichever day it compared
# By table: the moment or day of a row, and how long the row is kept after it.
KEPT: dict[sa.Table, tuple[sa.Column[Any], timedelta]] = {
    tracking_uses: (tracking_uses.c.seen_at, SHARED_WITHIN),  # no check uses an older one
    commit_marks: (commit_marks.c.set_at, timedelta(days=1)),  # a process that still runs sets its mark again
    reconciliation_days: (reconciliation_days.c.checked_at, CHECKED_DAYS_KEPT),  # the warehouse keeps them
    reconciliation_differences: (reconciliation_differences.c.found_at, CHECKED_DAYS_KEPT),
    scorecards: (scorecards.c.day, timedelta(days=40)),  # a page shows 30
}
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


def drop_old(connection: Connection, table: sa.Table, *, now: datetime, limit: int) -> int:
    """Deletes rows of one of `KEPT` that are older than it keeps them."""
    column, kept = KEPT[table]
    before = now - kept
    key = tuple(table.primary_key)
    is_old = column < (before.date() if isinstance(column.type, sa.Date) else before)
    found = connection.execute(sa.select(*key).where(is_old).limit(limit)).all()
    if found:
        condition = sa.and_(*(one == sa.bindparam(f"key_{one.name}") for one in key))
        rows = [{f"key_{one.name}": row[at] for at, one in enumerate(key)} for row in found]
        connection.execute(sa.delete(table).where(condition), rows)
    return len(found)


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


def drop_left_leases(connection: Connection, *, now: datetime) -> None:
    """Deletes leases that killed processes have left on orders that ended without them."""
    names = [name.partition("/")[2] for name in connection.execute(sa.select(leases.c.name)).scalars()]
    # A seller's id and an order's number may each hold a slash.
    keys = [(name[:at], name[at + 1 :]) for name in names for at, sign in enumerate(name) if sign == "/"]
    for order in ledger.read_all(connection, keys).values():
        if order.phase in _DONE and order.ended_at is not None and order.ended_at < now - LEASES_KEPT:
            drop_leases(connection, *order.key)


def waiting(connection: Connection, *, ended_before: datetime) -> tuple[int, int]:
    """(bodies to redact, rejects to empty) that are due."""
    bodies = count_rows(connection, orders, _ended(ended_before))
    return bodies, count_rows(connection, rejected_orders, _can_be_emptied(ended_before))


def _ended(before: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(
        orders.c.body_kind.in_((FULL, OBSERVED)), orders.c.ended_at < before, orders.c.phase.in_(_DONE)
    )


def _can_be_emptied(before: datetime) -> sa.ColumnElement[bool]:
    is_redacted = sa.exists().where(is_same_order(orders, rejected_orders), orders.c.body_kind == REDACTED)
    is_over = sa.or_(rejected_orders.c.superseded_at < before, rejected_orders.c.dismissed_at < before)
    return sa.and_(rejected_orders.c.raw != "", sa.or_(is_over, is_redacted))
