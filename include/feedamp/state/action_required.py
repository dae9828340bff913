"""What `feedamp status` lists as action required, of orders, findings, files and rows. Reads only.

What of sellers does, and exit code 1: `plugins/feedamp_airflow/cli/status.py`.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.finding import HELD
from feedamp.rules.follow_up import ORDER_CLOSED
from feedamp.rules.order import OPEN_PHASES, Phase
from feedamp.rules.stored_body import FULL
from feedamp.state import ledger
from feedamp.state.overview import WITH_GRANT, CountedItems, phase_of_few, some_of
from feedamp.state.rejects import LOAD, is_open, reject_id
from feedamp.state.schema import (
    CANCELLED_BUT_SHIPPED,
    MAY_BE_STUCK,
    SHIPPED_BUT_WITHDRAWN,
    findings,
    grants,
    inbox_files,
    orders,
    rejected_orders,
    sellers,
    snapshots,
    unread_orders,
)
from feedamp.state.sellers import NEEDS_AUTHORIZATION
from feedamp.state.statements import is_same_order


def to_connect(connection: Connection, *, limit: int) -> CountedItems:
    """Sellers whose grant was refused, and those without a grant or not registered that have waiting orders.

    Columns: seller_id, is_registered, waiting_orders; not paused ones only.
    """
    waiting = (
        sa.select(orders.c.seller_id, sa.func.count().label("count"))
        .where(orders.c.phase == Phase.TO_PLACE)
        .group_by(orders.c.seller_id)
        .subquery()
    )
    known = WITH_GRANT.outerjoin(waiting, waiting.c.seller_id == sellers.c.seller_id)
    registered = (
        sa.select(
            sellers.c.seller_id,
            sa.true().label("is_registered"),
            sa.func.coalesce(waiting.c.count, 0).label("waiting_orders"),
        )
        .select_from(known)
        .where(
            sellers.c.paused.is_(False),
            sa.or_(
                grants.c.status == NEEDS_AUTHORIZATION,
                sa.and_(grants.c.status.is_(None), waiting.c.count.is_not(None)),
            ),
        )
    )
    is_registered = sa.exists().where(sellers.c.seller_id == waiting.c.seller_id)
    others = sa.select(waiting.c.seller_id, sa.false(), waiting.c.count).where(~is_registered)
    both = sa.union_all(registered, others).subquery()
    return some_of(connection, sa.select(both), (both.c.is_registered.desc(), both.c.seller_id), limit=limit)


def held_orders(connection: Connection, *, limit: int) -> CountedItems:
    """Held orders, which require action (for example a conflict), without those that FeedAMP does not have."""
    query = sa.select(orders.c.seller_id, orders.c.mp_order_number, orders.c.reason)
    held = sa.and_(orders.c.phase == Phase.HELD, orders.c.missing_since.is_(None))
    return some_of(connection, query.where(held), limit=limit)


def missing_orders(connection: Connection, *, limit: int) -> CountedItems:
    """Placed, open orders that FeedAMP says it does not have, without those that are about to be sent again."""
    query = sa.select(
        orders.c.seller_id, orders.c.mp_order_number, orders.c.missing_since, orders.c.reason
    ).where(orders.c.missing_since.is_not(None), phase_of_few().in_((Phase.SETTLED, Phase.HELD)))
    return some_of(connection, query, limit=limit)


def cancelled_but_shipped(connection: Connection, *, limit: int) -> CountedItems:
    """Orders closed as CANCELLED although the seller shipped units, with the units of the newest snapshot.

    An order that a person has acknowledged is left out until more units are shipped.
    """
    return _to_acknowledge(connection, CANCELLED_BUT_SHIPPED, "shipped", limit)


def shipped_but_withdrawn(connection: Connection, *, limit: int) -> CountedItems:
    """Orders that `close` closed as SHIPPED and of which the newest snapshot shows no shipped units, with its cancelled ones.

    An order that a person has acknowledged is left out.
    """
    return _to_acknowledge(connection, SHIPPED_BUT_WITHDRAWN, "cancelled", limit)


def _to_acknowledge(connection: Connection, condition: str, what: str, limit: int) -> CountedItems:
    found, at = ledger.to_acknowledge(connection, condition), ("shipped", "cancelled").index(what)
    items = []
    for order in found[:limit]:
        lines = (order.closed_units or {}).items()
        units = ", ".join(f"{of[at]} of line {line}" for line, of in lines if of[at])
        key = {"seller_id": order.seller_id, "mp_order_number": order.mp_order_number}
        items.append({**key, "reason": f"{what}: {units or 'none'}"})
    return CountedItems(len(found), items)


def held_findings(connection: Connection, *, is_refused: bool, limit: int) -> CountedItems:
    """Error findings of open orders that are not reported: FeedAMP refused the report, or else they have no error code.

    Not those that are held since the order was closed: one that is open again is being repaired, which releases them.
    """
    note = findings.c.note
    query = (
        sa.select(
            findings.c.seller_id,
            findings.c.mp_order_number,
            findings.c.finding_id,
            findings.c.kind,
            sa.func.coalesce(note, findings.c.message).label("reason"),
        )
        .join(orders, is_same_order(findings, orders))
        .where(
            findings.c.state == HELD,
            findings.c.severity == "error",
            note != ORDER_CLOSED if is_refused else note.is_(None),
            phase_of_few().in_(OPEN_PHASES),
        )
    )
    return some_of(connection, query, limit=limit)


def stuck_orders(connection: Connection, *, lingering_since: datetime, limit: int) -> CountedItems:
    """Open orders that will not close without action.

    FeedAMP has listed a resolved error since `lingering_since` or earlier, or has refused the closing, or the order's
    body was never delivered, or the stored snapshot cannot be decoded.
    """
    too_long = snapshots.c.error_lingers_since <= lingering_since
    query = (
        sa.select(
            snapshots.c.seller_id,
            snapshots.c.mp_order_number,
            snapshots.c.waits_for.label("reason"),
            snapshots.c.error_lingers_since,
        )
        .join(orders, is_same_order(snapshots, orders))
        .where(
            phase_of_few().in_(OPEN_PHASES),
            sa.text(MAY_BE_STUCK),
            sa.or_(snapshots.c.needs_person.is_(True), too_long),
        )
    )
    return some_of(connection, query, limit=limit)


def unreadable_orders(connection: Connection, *, unread_since: datetime, limit: int) -> CountedItems:
    """Orders that extractions have not been able to read since before `unread_since`; the empty number: they name none.

    `is_known` says whether the ledger has the order; the others are at FeedAMP only.
    """
    columns = (unread_orders.c[name] for name in ("seller_id", "mp_order_number", "since", "reason"))
    is_known = sa.exists().where(is_same_order(orders, unread_orders)).label("is_known")
    return some_of(
        connection, sa.select(*columns, is_known).where(unread_orders.c.since < unread_since), limit=limit
    )


def rejected_rows(connection: Connection, *, limit: int) -> CountedItems:
    """Open rejects, newest first.

    Rows whose only reason is that they differ from an order already placed (`body_changed`) are left out, unless that
    order waits for a body. Faults of whole files are left out, too, because `faulty_files` lists them, and rows that the
    warehouse refuses.
    """
    other = sa.func.replace(rejected_orders.c.reasons, '"code":"body_changed"', "").contains('"code":"')
    waits_for_body = sa.exists().where(
        is_same_order(rejected_orders, orders), orders.c.body_kind != FULL, orders.c.phase.in_(OPEN_PHASES)
    )
    is_of_file = sa.exists().where(_is_fault_of_file())
    names = ("source", "row_number", "stage", "seller_id", "mp_order_number", "rejected_at", "row_hash")
    query = sa.select(*(rejected_orders.c[name] for name in names)).where(
        is_open(), rejected_orders.c.stage != LOAD, sa.or_(other, waits_for_body), ~is_of_file
    )
    newest = (rejected_orders.c.rejected_at.desc(), rejected_orders.c.source, rejected_orders.c.row_number)
    found = some_of(connection, query, newest, limit=limit)
    return CountedItems(found.count, [_with_reject_id(item) for item in found.items])


def refused_by_warehouse(connection: Connection, *, limit: int) -> CountedItems:
    """Rows that only the lake has, because the warehouse cannot hold them; not if dismissed."""
    names = ("source", "row_number", "seller_id", "mp_order_number", "rejected_at", "row_hash")
    query = sa.select(*(rejected_orders.c[name] for name in names))
    found = some_of(connection, query.where(is_open(), rejected_orders.c.stage == LOAD), limit=limit)
    return CountedItems(found.count, [_with_reject_id(item) for item in found.items])


def faulty_files(connection: Connection, *, limit: int) -> CountedItems:
    """Inbox files that could not be read to their end, newest first; not if read completely since or dismissed."""
    query = (
        sa.select(
            inbox_files.c.name.label("source"),
            inbox_files.c.rows_read,
            inbox_files.c.rows_rejected,
            inbox_files.c.fault.label("reason"),
            inbox_files.c.taken_at,
            rejected_orders.c.row_number,
            rejected_orders.c.row_hash,
        )
        .join(rejected_orders, _is_fault_of_file())
        .where(is_open())
    )
    newest = (inbox_files.c.taken_at.desc(), inbox_files.c.name)
    found = some_of(connection, query, newest, limit=limit)
    items = [{n: v for n, v in _with_reject_id(item).items() if n != "row_number"} for item in found.items]
    return CountedItems(found.count, items)


def _is_fault_of_file() -> sa.ColumnElement[bool]:
    """The join condition between an inbox file with a fault and the reject of that fault."""
    return sa.and_(
        inbox_files.c.name == rejected_orders.c.source,
        inbox_files.c.fault.is_not(None),
        rejected_orders.c.row_number == 0,
    )


def _with_reject_id(item: dict[str, Any]) -> dict[str, Any]:
    name = reject_id(item["source"], item["row_number"], item["row_hash"])
    return {"reject_id": name, **{key: value for key, value in item.items() if key != "row_hash"}}
