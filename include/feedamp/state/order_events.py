"""The events of orders, written in the transaction that makes them true, and to the outbox. What they say:
`rules/order_story.py`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningInsert

from feedamp.codec import decode_json, encode
from feedamp.rules.order import LedgerOrder
from feedamp.rules.order_story import Event, Kind, of_ledger
from feedamp.state import ledger, outbox
from feedamp.state.many_rows import execute_many, execute_with_rows
from feedamp.state.schema import order_events
from feedamp.state.statements import Insert, insert, is_any_of, is_order
from feedamp.tables import ORDER_EVENTS, RECORDED_AT, Row

_NO_ORDER = ("", "")
_NAMES = tuple(name for name in ORDER_EVENTS.names if name != RECORDED_AT)
_COUNTED_KINDS = (Kind.PLACED, Kind.CLOSED)


class Flow(NamedTuple):
    """How many events of a kind were in an hour or day (UTC); `shipped`: snapshots that show more shipped `units`."""

    began_at: datetime
    kind: str
    events: int
    units: int


def record(connection: Connection, events: Iterable[Event], *, run_id: str | None) -> None:
    """Stores events that are not stored yet, and puts them in the outbox. Safe to repeat."""
    outbox.put_rows(connection, store(connection, events, run_id=run_id))


def store(connection: Connection, events: Iterable[Event], *, run_id: str | None) -> list[tuple[str, Row]]:
    """Stores events that are not stored yet, and returns their rows for the outbox, which the caller puts there."""
    rows = {
        (*row.values(),)[:3]: {**row, "units_shipped": event.units_shipped}
        for event in events
        for row in [_row(event, run_id)]
    }
    if not rows:
        return []
    return [_for_outbox(rows[key]) for key in sorted(_add(connection, rows))]


def _add(connection: Connection, rows: dict[tuple[Any, ...], Row]) -> Iterable[tuple[Any, ...]]:
    """Stores rows by their keys; returns the keys that are new."""
    # Nearly always all are new, and to return a row takes SQLAlchemy longer than it takes a database to store it.
    dialect, to_add = connection.dialect.name, list(rows.values())
    if dialect == "sqlite":
        unless_some_are_stored = connection.begin_nested()
        if execute_many(connection, _adding(dialect), to_add) == len(to_add):
            unless_some_are_stored.commit()
            return rows
        unless_some_are_stored.rollback()
        return [tuple(row) for row in connection.execute(_adding_new(dialect), to_add)]
    added = execute_with_rows(connection, _adding_new(dialect), to_add)
    return rows if added.rowcount == len(to_add) else [tuple(row) for row in added]


@cache
def _adding(dialect: str) -> Insert:
    return insert(dialect, order_events).on_conflict_do_nothing()


@cache
def _adding_new(dialect: str) -> ReturningInsert[Any]:
    return _adding(dialect).returning(*order_events.primary_key.columns)


def put_again(connection: Connection, keys: Iterable[Sequence[str]]) -> int:
    """Puts stored events, by the key of their table, in the outbox once more; returns how many are stored."""
    same = is_any_of(tuple(order_events.primary_key), [tuple(key) for key in keys])
    rows = [dict(row._mapping) for row in connection.execute(sa.select(order_events).where(same))]
    outbox.put_rows(connection, map(_for_outbox, rows))
    return len(rows)


def save_order(
    connection: Connection, before: LedgerOrder, after: LedgerOrder, *, run_id: str | None, now: datetime
) -> None:
    """Stores what a transition changed, and what that means for the order's story."""
    save_orders(connection, [(before, after)], run_id=run_id, now=now)


def save_orders(
    connection: Connection,
    changes: Sequence[tuple[LedgerOrder, LedgerOrder]],
    *,
    run_id: str | None,
    now: datetime,
) -> None:
    """As `save_order`, for transitions of several orders."""
    ledger.save_all(connection, changes)
    events = (event for before, after in changes for event in of_ledger(before, after, now=now))
    record(connection, events, run_id=run_id)


def of_order(connection: Connection, seller_id: str, mp_order_number: str) -> list[Row]:
    """The stored events of an order, oldest first: event_id, occurred_at, kind, details (decoded), run_id."""
    names = ("event_id", "occurred_at", "kind", "details", "run_id")
    query = sa.select(*(order_events.c[name] for name in names))
    query = query.where(is_order(order_events, seller_id, mp_order_number))
    found = connection.execute(query.order_by(order_events.c.occurred_at, order_events.c.event_id))
    events = [{**row._mapping, "details": decode_json(row.details.encode())} for row in found]
    kinds = list(Kind)  # of one moment, the cause comes first
    return sorted(events, key=lambda event: (event["occurred_at"], kinds.index(event["kind"])))


def flow(
    connection: Connection, *, since: datetime, by: Literal["hour", "day"], seller_id: str | None = None
) -> list[Flow]:
    """How many orders were placed and closed, and how many units were shown as shipped, oldest first.

    Of one seller or of all, from the beginning of the hour or day of `since` until the newest event. Exact as far back
    as `retention.EVENTS_KEPT`. Reads one index, a range for each hour or day: grouping them takes five times as long.
    """
    events, step = order_events.c, timedelta(hours=1) if by == "hour" else timedelta(days=1)
    newest = connection.execute(
        sa.select(sa.func.max(events.occurred_at, type_=events.occurred_at.type))
    ).scalar()
    began_at = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    began_at = began_at if by == "hour" else began_at.replace(hour=0)
    ranges = []
    while newest is not None and began_at <= newest:
        ranges.append(began_at)
        began_at += step
    wanted = events.seller_id == seller_id if seller_id else events.seller_id != ""
    shown = events.units_shipped > 0
    totals = sa.select(
        *(sa.func.count(sa.case((events.kind == kind, 1))) for kind in _COUNTED_KINDS),
        sa.func.count(sa.case((shown, 1))),
        sa.func.coalesce(sa.func.sum(sa.case((shown, events.units_shipped))), 0),
    )
    found = []
    for began_at in ranges:
        of_range = totals.where(wanted, events.occurred_at >= began_at, events.occurred_at < began_at + step)
        *counts, snapshots, units = connection.execute(of_range).one()
        found += [Flow(began_at, kind, n, 0) for kind, n in zip(_COUNTED_KINDS, counts, strict=True) if n]
        if snapshots:
            found.append(Flow(began_at, "shipped", snapshots, int(units)))
    return found


def recorded_since(connection: Connection) -> datetime | None:
    """The moment of the upgrade since which events are recorded; None if they always were."""
    query = sa.select(order_events.c.occurred_at).where(is_order(order_events, *_NO_ORDER))
    return connection.execute(query).scalar()


def _for_outbox(row: Row) -> tuple[str, Row]:
    return ORDER_EVENTS.name, {**{name: row[name] for name in _NAMES}, RECORDED_AT: row["occurred_at"]}


def _row(event: Event, run_id: str | None) -> dict[str, Any]:
    return {
        "seller_id": event.seller_id,
        "mp_order_number": event.mp_order_number,
        "event_id": event.event_id,
        "occurred_at": event.occurred_at,
        "kind": str(event.kind),
        "details": encode(event.details).decode(),
        "run_id": run_id,
    }
