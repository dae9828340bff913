"""Reads the facts that lake and warehouse must also contain, in batches in key order.

Which rows follow from them: `rules/expected_rows.py`.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.expected_rows import LedgerFact
from feedamp.rules.order import OPEN_PHASES, Phase
from feedamp.state.schema import findings, metadata, order_events, orders, rejected_orders, snapshots
from feedamp.state.statements import count_by, count_rows, is_same_order

_FACTS = [
    snapshots.c.read_at if field.name == "read_at" else orders.c[field.name] for field in fields(LedgerFact)
]
_WITH_SNAPSHOT = orders.outerjoin(snapshots, is_same_order(snapshots, orders))
ORDERS = sa.select(*_FACTS).select_from(_WITH_SNAPSHOT)
FINDINGS = sa.select(
    findings.c.finding_id, findings.c.seller_id, findings.c.mp_order_number, findings.c.state
)
REJECTS = sa.select(*(c for c in rejected_orders.c if c.name not in ("raw", "reasons", "dismiss_reason")))


def count_orders(connection: Connection) -> int:
    return count_rows(connection, orders)


def of_order_numbers(connection: Connection, seller_id: str, numbers: Sequence[str]) -> list[LedgerFact]:
    """Orders of one seller; numbers unknown to the ledger are left out."""
    query = ORDERS.where(orders.c.seller_id == seller_id, orders.c.mp_order_number.in_(list(numbers)))
    return [fact_of(row) for row in connection.execute(query)]


def events(*, since: datetime | None) -> sa.Select[Any]:
    """Keys of events, with `since` only of later ones."""
    query = sa.select(*order_events.primary_key.columns).where(order_events.c.seller_id != "")
    return query if since is None else query.where(order_events.c.occurred_at >= since)


def portion(
    connection: Connection,
    query: sa.Select[Any],
    table: str,
    after: Sequence[Any],
    *,
    limit: int,
    seller_ids: Sequence[str],
) -> list[Any]:
    """Rows of one of these queries after a key of its table (exclusive; empty: the first), of these sellers or, with none, of all."""
    stored = metadata.tables[table]
    key = list(stored.primary_key.columns)
    if after:
        query = query.where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, after)))
    if seller_ids:
        query = query.where(stored.c.seller_id.in_(list(seller_ids)))
    return list(connection.execute(query.order_by(*key).limit(limit)).all())


def open_without_snapshot(connection: Connection, seller_id: str) -> list[str]:
    """Numbers of open orders without a snapshot in the state: FeedAMP never returned them, or the snapshot was lost."""
    query = (
        sa.select(orders.c.mp_order_number)
        .select_from(_WITH_SNAPSHOT)
        .where(
            orders.c.seller_id == seller_id,
            orders.c.placed_at.is_not(None),
            orders.c.phase.in_(OPEN_PHASES),
            snapshots.c.seller_id.is_(None),
        )
        .order_by(orders.c.mp_order_number)
    )
    return list(connection.execute(query).scalars())


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Counts by seller: orders this installation `placed`, orders it `closed`, and `findings`."""
    placed = sa.and_(
        orders.c.placed_at.is_not(None),
        orders.c.adopted_at.is_(None),
        sa.or_(orders.c.first_put_at.is_(None), orders.c.placed_at != orders.c.first_put_at),
        orders.c.placed_at != orders.c.taken_at,
    )
    closed = sa.and_(orders.c.closed_at.is_not(None), orders.c.closing_state == orders.c.accepted_state)
    return {
        "placed": count_by(connection, orders.c.seller_id, placed),
        "closed": count_by(connection, orders.c.seller_id, closed),
        "findings": count_by(connection, findings.c.seller_id),
    }


def fact_of(row: Any) -> LedgerFact:
    """A row of `ORDERS`."""
    seller_id, number, phase, *rest = row
    return LedgerFact(seller_id, number, Phase(phase), *rest)
