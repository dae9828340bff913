"""Stores rejected rows, with every reason and the raw row, so that they can be replayed.

A reject is open until it is superseded (the row was corrected or removed) or dismissed (no action is needed). Which ones
are superseded is decided where a delivery is read: `steps/place_orders/read_inbox_file.py`, `read_query.py`, and for an
order that is delivered corrected `ingest_row.py`; after a replay `replay.py`. This module only says what an update of
each kind covers.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state import outbox
from feedamp.state.schema import rejected_orders
from feedamp.state.statements import count_by, in_parts, is_any_order, is_order, upsert
from feedamp.tables import RECORDED_AT, REJECTED_ORDERS

INBOX = "inbox"
FEEDAMP = "feedamp"
LOAD = "load"
ReasonFields = dict[str, str]
Key = tuple[str, int, str]  # source, row_number, row_hash
_KEY = (rejected_orders.c.source, rejected_orders.c.row_number, rejected_orders.c.row_hash)


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

    @property
    def key(self) -> Key:
        return self.source, self.row_number, self.row_hash

    @property
    def reject_id(self) -> str:
        """The short, stable id that people use."""
        return reject_id(*self.key)


def reject_id(source: str, row_number: int, row_hash: str) -> str:
    """The short name of the reject with this key: 16 hex characters."""
    return hashlib.sha256(f"{source}\n{row_number}\n{row_hash}".encode()).hexdigest()[:16]


def write(connection: Connection, rejected: Rejected, *, now: datetime) -> None:
    """Stores a rejected row; a dismissed one remains dismissed. Safe to repeat: the same row is stored once.

    If a wrong clock wrote the row, or shows `now`, the row's moments of now are moved behind those that are stored: what
    the warehouse has of the row would otherwise count as newer.
    """
    stored = next(iter(find(connection, [rejected.key])), None)
    if stored is not None:
        rejected, now = _after(stored, rejected, now)
    reasons = msgspec.json.encode(rejected.reasons).decode()
    row = {**vars(rejected), "reasons": reasons}
    upsert(connection, rejected_orders, [row])
    shown = {name: row[name] for name in REJECTED_ORDERS.names if name != RECORDED_AT}
    outbox.put(connection, REJECTED_ORDERS.name, [shown], recorded_at=now)


def supersede_earlier(
    connection: Connection,
    source: str,
    seller_id: str,
    mp_order_number: str,
    row_number: int,
    *,
    now: datetime,
) -> int:
    """Supersedes `inbox` rejects of an order that a later row of the same source has corrected; returns how many.

    A row that FeedAMP refused is superseded only when its order is delivered corrected, not here. If the refused row is
    merely repeated, the ledger does not change, so the reject must remain as its only record (promise 1).
    """
    condition = is_order(rejected_orders, seller_id, mp_order_number)
    is_before = rejected_orders.c.row_number < row_number
    return _supersede(connection, sa.and_(condition, _not_superseded_from(source), is_before), now)


def supersede_order(connection: Connection, seller_id: str, mp_order_number: str, *, now: datetime) -> int:
    """Supersedes all rejects of deliveries of an order that was delivered corrected; returns how many."""
    condition = sa.and_(
        is_order(rejected_orders, seller_id, mp_order_number), rejected_orders.c.stage != LOAD
    )
    return _supersede(connection, condition, now)


def orders_with_rejects(connection: Connection, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the orders, by seller and number, of which `supersede_order` would supersede a reject."""
    left = sa.and_(rejected_orders.c.superseded_at.is_(None), rejected_orders.c.stage != LOAD)
    query = sa.select(rejected_orders.c.seller_id, rejected_orders.c.mp_order_number).where(left)
    return {
        (row[0], row[1])
        for part in in_parts(dict.fromkeys(keys))
        for row in connection.execute(query.where(is_any_order(rejected_orders, part)))
    }


def supersede_row(connection: Connection, rejected: Rejected, *, now: datetime) -> int:
    """Supersedes one reject, unless it is superseded already; returns how many."""
    return _supersede(connection, _is_row(rejected.key), now)


def read_open(connection: Connection, *, everything: bool = False) -> list[Rejected]:
    """Open rejects, or with `everything` all of them, also dismissed and superseded ones."""
    query = sa.select(rejected_orders).order_by(rejected_orders.c.source, rejected_orders.c.row_number)
    if not everything:
        query = query.where(is_open())
    return _read(connection, query)


def of_order(connection: Connection, seller_id: str, number: str) -> list[Rejected]:
    """The open rejects of an order's rows."""
    query = sa.select(rejected_orders).where(is_open(), is_order(rejected_orders, seller_id, number))
    return _read(connection, query.order_by(rejected_orders.c.source, rejected_orders.c.row_number))


def sources(connection: Connection) -> list[str]:
    """Each file or query that ever had a rejected row, in order of name."""
    query = sa.select(rejected_orders.c.source).distinct().order_by(rejected_orders.c.source)
    return list(connection.scalars(query))


def set_aside(connection: Connection) -> list[Rejected]:
    """Rejects of stage `load` that are not superseded: rows that only the lake has, dismissed or not."""
    is_left = sa.and_(rejected_orders.c.stage == LOAD, rejected_orders.c.superseded_at.is_(None))
    return _read(connection, sa.select(rejected_orders).where(is_left))


def is_open() -> sa.ColumnElement[bool]:
    """The condition on `rejected_orders` for open rejects: neither superseded nor dismissed."""
    return sa.and_(rejected_orders.c.superseded_at.is_(None), rejected_orders.c.dismissed_at.is_(None))


def keys(connection: Connection, reject_ids: Collection[str]) -> list[Key]:
    """The keys of the rejects with these ids, open or not; hashes the key of every stored reject."""
    rows = connection.execute(sa.select(*_KEY), execution_options={"yield_per": 1_000})
    return [(row[0], row[1], row[2]) for row in rows if reject_id(*row) in reject_ids]


def find(connection: Connection, wanted: Iterable[Key]) -> list[Rejected]:
    """The rejects with these keys, open or not."""
    queries = (sa.select(rejected_orders).where(_is_row(key)) for key in wanted)
    return [found for query in queries for found in _read(connection, query)]


def dismiss(connection: Connection, rejected: Rejected, reason: str, *, now: datetime) -> None:
    """Dismisses a reject: no action is needed, and it is no longer replayed. Safe to repeat."""
    write(connection, replace(rejected, dismissed_at=now, dismiss_reason=reason), now=now)


def hand_on(connection: Connection, dismissed: Rejected, key: Key, *, now: datetime) -> None:
    """Dismisses a reject as another one was, when and for the reason of that one. Safe to repeat."""
    moment, reason = dismissed.dismissed_at, dismissed.dismiss_reason
    for rejected in find(connection, [key]):
        write(connection, replace(rejected, dismissed_at=moment, dismiss_reason=reason), now=now)


def record_elsewhere(connection: Connection, moved: Rejected, row_number: int, *, now: datetime) -> None:
    """Stores a reject for the place where its row stands now, dismissed if it was. Safe to repeat."""
    for rejected in find(connection, [moved.key]):
        write(connection, replace(rejected, row_number=row_number, superseded_at=None), now=now)


def not_superseded(connection: Connection, source: str) -> list[Rejected]:
    """Rejects of stage `inbox` of one source that are not superseded, also dismissed ones, without their raw row."""
    columns = [column for column in rejected_orders.c if column is not rejected_orders.c.raw]
    query = sa.select(*columns, sa.literal("").label("raw"))
    return _read(connection, query.where(_not_superseded_from(source)))


def is_recorded(connection: Connection, source: str, seller_id: str | None, number: str | None) -> bool:
    """Whether a row of an order from this source was ever rejected at stage `inbox`, or recorded as different."""
    of_source = sa.and_(rejected_orders.c.source == source, rejected_orders.c.stage == INBOX)
    query = sa.select(rejected_orders.c.source).where(
        of_source, is_order(rejected_orders, seller_id or "", number or "")
    )
    return connection.execute(query.limit(1)).first() is not None


def of_content(connection: Connection, source: str, row_hash: str) -> Rejected | None:
    """The reject of stage `inbox` with exactly this content in a source, in any row, or None.

    The reject may be dismissed, but not superseded.
    """
    query = sa.select(rejected_orders).where(
        _not_superseded_from(source), rejected_orders.c.row_hash == row_hash
    )
    found = _read(connection, query.limit(1))
    return found[0] if found else None


def _not_superseded_from(source: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        rejected_orders.c.source == source,
        rejected_orders.c.stage == INBOX,
        rejected_orders.c.superseded_at.is_(None),
    )


def refused_since(connection: Connection, since: datetime) -> Counter[str]:
    """How many orders FeedAMP refused since a moment (inclusive), by source."""
    is_refused = sa.and_(rejected_orders.c.stage == FEEDAMP, rejected_orders.c.rejected_at >= since)
    return count_by(connection, rejected_orders.c.source, is_refused)


def is_still_open(connection: Connection, rejected: Rejected) -> bool:
    """Whether the reject of exactly this row is open."""
    query = sa.select(rejected_orders.c.source).where(_is_row(rejected.key), is_open())
    return connection.execute(query).first() is not None


def _supersede(connection: Connection, condition: sa.ColumnElement[bool], now: datetime) -> int:
    query = sa.select(rejected_orders).where(condition, rejected_orders.c.superseded_at.is_(None))
    rows = _read(connection, query)
    for rejected in rows:
        write(connection, replace(rejected, superseded_at=now), now=now)
    return len(rows)


def _is_row(key: Key) -> sa.ColumnElement[bool]:
    return sa.and_(*(column == value for column, value in zip(_KEY, key, strict=True)))


def _after(stored: Rejected, rejected: Rejected, now: datetime) -> tuple[Rejected, datetime]:
    """The reject with the dismissal of the stored one of the same stage, and a moment of recording after the stored ones."""
    moments = ("rejected_at", "superseded_at", "dismissed_at")
    newest = max(filter(None, (getattr(stored, name) for name in moments)))
    if newest >= now:
        moment = newest + timedelta(microseconds=1)
        moved = {name: moment for name in moments if getattr(rejected, name) == now}
        rejected, now = replace(rejected, **moved), moment
    if rejected.dismissed_at is None and stored.stage == rejected.stage:
        rejected = replace(rejected, dismissed_at=stored.dismissed_at, dismiss_reason=stored.dismiss_reason)
    return rejected, now


def _read(connection: Connection, query: sa.Select[tuple[object, ...]]) -> list[Rejected]:
    rows = connection.execute(query).mappings()
    return [Rejected(**{**row, "reasons": tuple(msgspec.json.decode(row["reasons"]))}) for row in rows]
