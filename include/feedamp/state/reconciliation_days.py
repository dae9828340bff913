"""What the newest reconciliation of each UTC day and seller found; the pages and `feedamp reconciliation report` read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import content_hash
from feedamp.rules.reconciled_days import ALL_SELLERS, DAY, CheckedDay, Counts, midnight
from feedamp.state import outbox
from feedamp.state.ledger import TO_COMPARE
from feedamp.state.schema import orders
from feedamp.state.schema import reconciliation_days as days
from feedamp.state.schema import reconciliation_differences as differences
from feedamp.state.statements import in_parts, insert, upsert
from feedamp.tables import RECONCILIATION_DAYS, Row

DIFFERENCES_KEPT = 1_000  # of a day and seller; the counts have them all, and so has the warehouse
_DIFFERENCE = tuple(column.name for column in differences.c if column.name != "field_hash")
# As view `current_differences`: what an earlier try of the run found and this one did not is no difference any longer, unless
# that try repaired it. What was repaired before the run was planned is of a run with the same id, which a backfill does again.
IS_CURRENT = sa.and_(
    differences.c.day == days.c.day,
    differences.c.seller_id == days.c.seller_id,
    differences.c.run_id == days.c.run_id,
    sa.or_(
        differences.c.found_at >= days.c.checked_at,
        sa.and_(
            differences.c.repaired_at.is_not(None),
            differences.c.found_at >= sa.func.coalesce(days.c.planned_at, differences.c.found_at),
        ),
    ),
)


def write(connection: Connection, checked: Sequence[CheckedDay], *, now: datetime) -> None:
    """Stores days unless a newer comparison of them is stored, and puts all into the outbox. Safe to repeat."""
    if not checked:
        return
    statement = insert(connection, days)
    changed = {column.name: statement.excluded[column.name] for column in days.c if not column.primary_key}
    statement = statement.on_conflict_do_update(
        index_elements=["day", "seller_id"],
        set_=changed,
        where=days.c.checked_at <= statement.excluded.checked_at,
    )
    rows = [
        {
            "day": found.day,
            "seller_id": found.seller_id,
            "run_id": found.run_id,
            "compared": found.counts.compared,
            "differences": msgspec.json.encode(dict(sorted(found.counts.found.items()))).decode(),
            "repaired": msgspec.json.encode(found.counts.repaired).decode(),
            "remaining": found.counts.remaining,
            "unread": found.counts.unread,
            "checked_at": found.checked_at,
            "planned_at": found.planned_at,
        }
        for found in checked
    ]
    connection.execute(statement, rows)
    # Which sellers a run covered is a matter of the state: the warehouse has rows of sellers only.
    sent = [
        {**row, "repaired": found.counts.repaired.total()}
        for row, found in zip(rows, checked, strict=True)
        if found.seller_id != ALL_SELLERS
    ]
    outbox.put(connection, RECONCILIATION_DAYS.name, sent, recorded_at=now)


class KnownBefore(NamedTuple):
    """What is stored of a seller's days before one try of a run: when the run was planned (UTC), what its earlier tries repaired
    by kind, since this one does not find it again, and of which days differences are kept, by whichever run."""

    planned_at: dict[date, datetime | None]
    repaired: dict[date, Counter[str]]
    kept: set[date]


def known_before(connection: Connection, run_id: str, seller_id: str, of_days: Iterable[date]) -> KnownBefore:
    """What a try of a run must know of a seller's days."""
    of_day = sa.and_(differences.c.day == days.c.day, differences.c.seller_id == days.c.seller_id)
    is_kept = sa.exists().where(of_day).label("is_kept")
    query = sa.select(days.c.day, days.c.run_id, days.c.repaired, days.c.planned_at, is_kept).where(
        days.c.seller_id == seller_id
    )
    known = KnownBefore({}, {}, set())
    for part in in_parts(of_days):
        for row in connection.execute(query.where(days.c.day.in_(part))):
            if row.run_id == run_id:
                known.planned_at[row.day] = row.planned_at
                if row.repaired != "{}":
                    known.repaired[row.day] = _counter(row.repaired)
            if row.is_kept:
                known.kept.add(row.day)
    return known


def drop_differences(
    connection: Connection, run_id: str, seller_id: str, of_days: Collection[date], *, checked_at: datetime
) -> None:
    """Drops what earlier runs found for a seller on these days, what an earlier try of this run left, and what was found before
    this run was planned: it had been done before, under the same id.

    Days that a newer comparison has are left alone. Safe to repeat, before this try has kept any.
    """
    is_newest = sa.exists().where(
        days.c.day == differences.c.day,
        days.c.seller_id == differences.c.seller_id,
        days.c.checked_at <= checked_at,
    )
    is_of_before = sa.exists().where(
        days.c.day == differences.c.day,
        days.c.seller_id == differences.c.seller_id,
        days.c.run_id == differences.c.run_id,
        days.c.planned_at > differences.c.found_at,
    )
    of_others = sa.or_(differences.c.run_id != run_id, differences.c.repaired_at.is_(None), is_of_before)
    for part in in_parts(of_days):
        of_seller = sa.and_(differences.c.seller_id == seller_id, differences.c.day.in_(part))
        connection.execute(sa.delete(differences).where(of_seller, of_others, is_newest))


def keep_differences(connection: Connection, rows: Sequence[Row]) -> None:
    """Keeps rows of `reconciliations` for the pages; the caller counts to `DIFFERENCES_KEPT`. Safe to repeat."""
    upsert(connection, differences, [_kept(row) for row in rows])


def mark_repaired(connection: Connection, rows: Sequence[Row]) -> None:
    """Notes in those of the rows that are kept that they are repaired. Safe to repeat."""
    if rows:
        key = [column.name for column in differences.primary_key]
        is_row = sa.and_(*(differences.c[name] == sa.bindparam(f"of_{name}") for name in key))
        changed = sa.update(differences).where(is_row).values(repaired_at=sa.bindparam("at"))
        kept = [_kept(row) for row in rows]
        given = [{f"of_{name}": row[name] for name in key} | {"at": row["repaired_at"]} for row in kept]
        connection.execute(changed, given)


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    # The hash, since a line's number in the field may be longer than a key can be.
    return {**{name: row[name] for name in _DIFFERENCE}, "field_hash": content_hash(row["field"])}


def drop_order(connection: Connection, seller_id: str, mp_order_number: str) -> int:
    """Drops what was found of an order, and takes it off the counts of its days; returns how many differences went."""
    of_order = (differences.c.seller_id == seller_id) & (differences.c.mp_order_number == mp_order_number)
    columns = (days.c.day, differences.c.kind, differences.c.repaired_at)
    current = sa.select(*columns).select_from(days.join(differences, IS_CURRENT)).where(of_order)
    gone: dict[date, Counts] = {}
    for row in connection.execute(current):
        counts = gone.setdefault(row.day, Counts())
        counts.found[row.kind] += 1
        counts.repaired[row.kind] += row.repaired_at is not None
    for day, counts in gone.items():
        is_day = (days.c.day == day) & (days.c.seller_id == seller_id)
        told = connection.execute(sa.select(days).where(is_day).with_for_update()).one()
        left = {
            "differences": _counter(told.differences) - counts.found,
            "repaired": _counter(told.repaired) - counts.repaired,
        }
        texts = {name: msgspec.json.encode(by_kind).decode() for name, by_kind in left.items()}
        connection.execute(sa.update(days).where(is_day).values(texts))
    return connection.execute(sa.delete(differences).where(of_order)).rowcount


def between(connection: Connection, first: date, last: date) -> Iterator[CheckedDay]:
    """What is stored of days from `first` to `last`, both inclusive, by day and seller."""
    query = sa.select(days).where(days.c.day >= first, days.c.day <= last)
    return _checked(connection, query.order_by(days.c.day, days.c.seller_id))


def keys_of(connection: Connection, of_days: Sequence[date]) -> Iterator[tuple[date, str]]:
    """Day and seller of all that is stored of some days."""
    for part in in_parts(of_days):
        for row in connection.execute(sa.select(days.c.day, days.c.seller_id).where(days.c.day.in_(part))):
            yield row.day, row.seller_id


def unfinished(
    connection: Connection, run_id: str, seller_ids: Iterable[str], start: datetime, end: datetime
) -> list[CheckedDay]:
    """Days of sellers, from `start` (inclusive) to `end` (exclusive), of which a run has not compared all orders."""
    query = sa.select(days).where(
        days.c.day.between(start.date(), (end - timedelta.resolution).date()),
        days.c.run_id == run_id,
        days.c.remaining > 0,
    )
    return [
        found
        for part in in_parts(seller_ids)
        for found in _checked(connection, query.where(days.c.seller_id.in_(part)))
    ]


def _checked(connection: Connection, query: sa.Select[Any]) -> Iterator[CheckedDay]:
    names = ("day", "seller_id", "run_id", "checked_at", "planned_at", "compared", "unread", "remaining")
    chosen = query.with_only_columns(*(days.c[name] for name in (*names, "differences", "repaired")))
    rows = connection.execute(chosen)
    for day, seller_id, run_id, checked_at, planned_at, *counted, found, repaired in rows:
        compared, unread, remaining = counted
        counts = Counts(compared + unread + remaining, compared, unread, _counter(found), _counter(repaired))
        yield CheckedDay(day, seller_id, run_id, checked_at, counts, planned_at)


def not_compared(connection: Connection, first: date, last: date) -> Iterator[tuple[date, str, int]]:
    """(day, seller, orders) of the ledger's orders that no comparison of their day and seller knew, by day.

    Those are orders that were sent to FeedAMP, or adopted, after it had begun, and orders that are still to be sent. Days
    from `first` to `last`, both inclusive; a day without any comparison is left out.
    """
    is_sqlite = connection.dialect.name == "sqlite"  # it has moments as text, in UTC
    moment = (
        orders.c.purchase_date
        if is_sqlite
        else sa.func.timezone(sa.literal_column("'UTC'"), orders.c.purchase_date)
    )
    day = sa.func.date(moment, type_=sa.Date)
    known_at = sa.func.coalesce(orders.c.first_put_at, orders.c.placed_at)
    with_days = orders.outerjoin(days, sa.and_(days.c.day == day, days.c.seller_id == orders.c.seller_id))
    compared_days = sa.select(days.c.day).where(days.c.day.between(first, last)).distinct()
    query = (
        sa.select(day.label("day"), orders.c.seller_id, sa.func.count().label("orders"))
        .select_from(with_days)
        .where(
            orders.c.purchase_date >= midnight(first),
            orders.c.purchase_date < midnight(last + DAY),
            TO_COMPARE,
            sa.or_(days.c.day.is_(None), known_at.is_(None), known_at > days.c.checked_at),
            day.in_(compared_days),
        )
        .group_by(day, orders.c.seller_id)
        .order_by(day, orders.c.seller_id)
    )
    for row in connection.execute(query):
        yield row.day, row.seller_id, row.orders


def first_day(connection: Connection) -> date | None:
    """The first day on which a reconciliation found an order."""
    has_orders = sa.or_(days.c.compared > 0, days.c.remaining > 0, days.c.unread > 0)
    query = sa.select(days.c.day).where(has_orders).order_by(days.c.day).limit(1)
    first: date | None = connection.execute(query).scalar()
    return first


def _counter(text: str) -> Counter[str]:
    return Counter(msgspec.json.decode(text, type=dict[str, int]) if text != "{}" else {})
