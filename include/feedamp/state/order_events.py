"""The events of orders, written in the transaction that makes them true, and to the outbox. What they say:
`rules/order_story.py`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json, encode
from feedamp.rules.order import LedgerOrder
from feedamp.rules.order_story import Event, Kind, of_ledger
from feedamp.state import ledger, outbox
from feedamp.state.schema import order_events
from feedamp.state.statements import insert, is_order
from feedamp.tables import ORDER_EVENTS, RECORDED_AT, Row

_NO_ORDER = ("", "")


class Flow(NamedTuple):
    """How many events of a kind began in an hour or day (UTC); `shipped`: snapshots that show more shipped `units`."""

    began_at: datetime
    kind: str
    events: int
    units: int


def record(connection: Connection, events: Iterable[Event], *, run_id: str | None) -> None:
    """Stores events that are not stored yet, and puts them in the outbox. Safe to repeat."""
    rows = {
        (*row.values(),)[:3]: {**row, "units_shipped": event.units_shipped}
        for event in events
        for row in [_row(event, run_id)]
    }
    if not rows:
        return
    added = connection.execute(
        insert(connection, order_events)
        .on_conflict_do_nothing()
        .returning(*order_events.primary_key.columns),
        list(rows.values()),
    )
    _put(connection, [rows[key] for key in sorted(tuple(row) for row in added)])


def put_again(connection: Connection, keys: Iterable[Sequence[str]]) -> int:
    """Puts stored events, by the key of their table, in the outbox once more; returns how many are stored."""
    same = sa.tuple_(*order_events.primary_key.columns).in_([tuple(key) for key in keys])
    rows = [dict(row._mapping) for row in connection.execute(sa.select(order_events).where(same))]
    _put(connection, rows)
    return len(rows)


def save_order(
    connection: Connection, before: LedgerOrder, after: LedgerOrder, *, run_id: str | None, now: datetime
) -> None:
    """Stores what a transition changed, and what that means for the order's story."""
    ledger.save(connection, before, after)
    record(connection, of_ledger(before, after, now=now), run_id=run_id)


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
    """How many events of each kind there were since a moment (inclusive), of one seller or of all, oldest first.

    Exact as far back as `retention.EVENTS_KEPT`. Reads one index.
    """
    length = 13 if by == "hour" else 10  # of 2026-03-09 12:00
    moment: sa.ColumnElement[str]
    if connection.dialect.name == "sqlite":
        moment = sa.func.substr(sa.cast(order_events.c.occurred_at, sa.Text), 1, length)
    else:
        moment = sa.func.substr(
            sa.cast(sa.func.timezone("UTC", order_events.c.occurred_at), sa.Text), 1, length
        )
    kind = sa.case((order_events.c.units_shipped > 0, "shipped"), else_=order_events.c.kind)
    units = sa.func.coalesce(sa.func.sum(order_events.c.units_shipped), 0)
    wanted = order_events.c.seller_id == seller_id if seller_id else order_events.c.seller_id != ""
    query = (
        sa.select(moment, kind, sa.func.count(), units)
        .where(order_events.c.occurred_at >= since, wanted)
        .group_by(moment, kind)
        .order_by(moment, kind)
    )
    return [
        Flow(
            datetime.fromisoformat(at if by == "day" else f"{at}:00").replace(tzinfo=UTC),
            name,
            count,
            int(sum_),
        )
        for at, name, count, sum_ in connection.execute(query)
    ]


def recorded_since(connection: Connection) -> datetime | None:
    """The moment of the upgrade since which events are recorded; None if they always were."""
    query = sa.select(order_events.c.occurred_at).where(is_order(order_events, *_NO_ORDER))
    return connection.execute(query).scalar()


def _put(connection: Connection, rows: Iterable[Row]) -> None:
    names = [name for name in ORDER_EVENTS.names if name != RECORDED_AT]
    content = ({**{name: row[name] for name in names}, RECORDED_AT: row["occurred_at"]} for row in rows)
    outbox.put(connection, ORDER_EVENTS.name, content)


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
