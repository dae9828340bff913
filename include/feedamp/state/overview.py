"""What `feedamp status` counts, and what it says of sellers and of waits. Reads only. What requires action: `action_required.py`."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.closing import waits_for
from feedamp.rules.finding import OPEN
from feedamp.rules.order import Phase
from feedamp.state.schema import (
    IS_CHANGED,
    IS_WAITING,
    MAY_BE_STUCK,
    findings,
    grants,
    inbox_files,
    manifests,
    orders,
    outbox,
    sellers,
    snapshots,
    watermarks,
)
from feedamp.state.sellers import ACTIVE, SET_ASIDE
from feedamp.state.statements import count_by, count_rows, in_parts, is_any_order, is_same_order

_WITH_SNAPSHOT = orders.outerjoin(snapshots, is_same_order(snapshots, orders)).outerjoin(
    sellers, sellers.c.seller_id == orders.c.seller_id
)
_READ = orders.join(snapshots, is_same_order(snapshots, orders)).outerjoin(
    sellers, sellers.c.seller_id == orders.c.seller_id
)
WITH_GRANT = sellers.outerjoin(grants, grants.c.seller_id == sellers.c.seller_id)
_FACTS_OF_WAIT = (  # the arguments of `waits_for`
    sellers.c.seller_id.is_not(None).label("is_registered"),
    orders.c.missing_since.is_not(None).label("is_missing"),
    snapshots.c.seller_id.is_not(None).label("is_read"),
    (snapshots.c.validated_hash == snapshots.c.snapshot_hash).label("is_validated"),
    snapshots.c.waits_for,
)


@dataclass(frozen=True)
class CountedItems:
    """The number of all items, and the first of them."""

    count: int
    items: list[dict[str, Any]]


class StaleSeller(NamedTuple):
    """A seller of whom nothing was read completely since a moment; `watermark` is None before the first complete read."""

    seller_id: str
    watermark: datetime | None
    since: datetime


def phase_of_few() -> sa.ColumnElement[str]:
    """The phase as a condition on few orders that another one finds: SQLite would read all orders of the phase first."""
    return sa.func.coalesce(orders.c.phase, "")


def count_by_phase(connection: Connection) -> dict[str, int]:
    """The number of orders in each phase that has any.

    Nearly all orders are closed, so these are what the others leave of all: to count a whole table takes much less than to
    count a part of it.
    """
    all_of_them = sa.select(sa.func.count()).select_from(orders)
    others = [phase for phase in Phase if phase != Phase.CLOSED]
    of_each = (all_of_them.where(orders.c.phase == phase).scalar_subquery() for phase in others)
    total, *counts = connection.execute(sa.select(all_of_them.scalar_subquery(), *of_each)).one()
    found = dict(zip(others, counts, strict=True)) | {Phase.CLOSED: total - sum(counts)}
    return {str(phase): count for phase, count in found.items() if count}


def reasons_by_phase(connection: Connection) -> list[tuple[str, str, int]]:
    """(phase, reason, number of orders) of orders that have a reason, largest number first."""
    count = sa.func.count()
    query = (
        sa.select(orders.c.phase, orders.c.reason, count)
        .where(orders.c.reason.is_not(None))
        .group_by(orders.c.phase, orders.c.reason)
        .order_by(count.desc(), orders.c.reason)
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def waits_of_settled(connection: Connection, settled: int) -> list[tuple[str, int]]:
    """(what settled orders wait for before they can be closed, number of orders), largest number first.

    `settled` is their number, as `count_by_phase` tells it in the same transaction.

    Nearly all of them are validated, so these are counted in an index of their snapshots, without a look at the order. Only
    those for which that is not right, or not enough, are looked up with their order.

    It rests on this: a closed order has no snapshot, and each snapshot has its order. Where that does not hold, as while an
    erasure is unfinished, too few count as not read yet, and as many too many wait for something else.
    """
    is_settled = orders.c.phase == Phase.SETTLED
    waits: Counter[str] = Counter()
    by_reason = sa.select(snapshots.c.waits_for, sa.func.count()).where(sa.text(IS_WAITING))
    for reason, count in connection.execute(by_reason.group_by(snapshots.c.waits_for)):
        waits[waits_for(True, False, True, True, reason)] += count
    is_known, is_missing = sellers.c.seller_id.is_not(None), orders.c.missing_since.is_not(None)
    is_usual = sa.and_(is_known, ~is_missing, phase_of_few() == Phase.SETTLED)
    for joined, *conditions in (  # no order meets those of two lines
        (_READ, orders.c.phase.in_([phase for phase in Phase if phase not in (Phase.SETTLED, Phase.CLOSED)])),
        (_WITH_SNAPSHOT, is_settled, orders.c.seller_id.in_(_unregistered_of_settled())),
        (_WITH_SNAPSHOT, is_known, is_missing, phase_of_few() == Phase.SETTLED),
        (_READ, is_usual, sa.text(IS_CHANGED)),
        (_READ, is_usual, sa.text(MAY_BE_STUCK), snapshots.c.needs_person, sa.text(f"NOT {IS_CHANGED}")),
    ):
        is_counted = sa.func.coalesce(sa.text(IS_WAITING), sa.false()).label("is_counted")
        one = sa.select(is_settled.label("is_settled"), is_counted, *_FACTS_OF_WAIT).select_from(joined)
        inner = one.where(*conditions).subquery()
        groups = sa.select(*inner.c, sa.func.count()).group_by(*inner.c)
        for belongs, was_counted, *facts, count in connection.execute(groups):
            if was_counted:
                waits[waits_for(True, False, True, True, facts[-1])] -= count
            if belongs:
                waits[waits_for(*facts)] += count
    waits[waits_for(True, False, False, None, None)] += settled - waits.total()
    return sorted((+waits).items(), key=lambda item: (-item[1], item[0]))


def _unregistered_of_settled() -> sa.Select[Any]:
    """Sellers with settled orders that are not registered, found seller by seller instead of order by order."""
    lowest = sa.select(sa.func.min(orders.c.seller_id).label("seller_id")).where(
        orders.c.phase == Phase.SETTLED
    )
    one = lowest.cte("sellers_of_settled", recursive=True)
    following = lowest.where(orders.c.seller_id > one.c.seller_id).scalar_subquery()
    every = one.union_all(sa.select(following).where(one.c.seller_id.is_not(None)))
    return sa.select(every.c.seller_id).where(every.c.seller_id.not_in(sa.select(sellers.c.seller_id)))


def listed_orders(
    connection: Connection,
    *,
    phases: Collection[str],
    seller_id: str | None,
    taken_before: datetime | None,
    limit: int,
) -> CountedItems:
    """Orders of the ledger in these phases and what each waits for, the one first delivered longest ago first.

    `seller_id` and `taken_before` (exclusive), if given, leave out other sellers and orders delivered later.
    """
    columns = ("seller_id", "mp_order_number", "phase", "reason", "next_try_at", "purchase_date", "taken_at")
    wanted: list[sa.ColumnElement[bool]] = [orders.c.phase.in_(phases)]
    if seller_id is not None:
        wanted.append(orders.c.seller_id == seller_id)
    if taken_before is not None:
        wanted.append(orders.c.taken_at < taken_before)
    query = sa.select(*(orders.c[name] for name in columns), *_FACTS_OF_WAIT).select_from(_WITH_SNAPSHOT)
    order = (orders.c.taken_at, *query.selected_columns[:2])
    found = some_of(connection, query.where(*wanted), order, limit=limit)
    for item in found.items:
        facts = [item.pop(fact.name) for fact in _FACTS_OF_WAIT]
        if item["phase"] == Phase.SETTLED:
            item["reason"] = waits_for(*facts)
    return found


def waits_of(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What settled orders wait for before they can be closed, by seller and order number; a look-up for each order."""
    query = sa.select(orders.c.seller_id, orders.c.mp_order_number, *_FACTS_OF_WAIT).select_from(
        _WITH_SNAPSHOT
    )
    return {
        (seller_id, number): waits_for(*facts)
        for part in in_parts(keys)
        for seller_id, number, *facts in connection.execute(query.where(is_any_order(orders, part)))
    }


def waiting_by_seller(connection: Connection) -> dict[str, int]:
    """Orders still to be placed, by seller."""
    return count_by(connection, orders.c.seller_id, orders.c.phase == Phase.TO_PLACE)


def count_by_grant(connection: Connection) -> dict[str, int]:
    """The number of sellers by grant status, or `no_grant`; a paused seller counts as `paused` only."""
    status = sa.case(
        (sellers.c.paused.is_(True), "paused"), else_=sa.func.coalesce(grants.c.status, "no_grant")
    )
    query = sa.select(status, sa.func.count()).select_from(WITH_GRANT).group_by(status)
    return {row[0]: row[1] for row in connection.execute(query)}


def in_doubt(connection: Connection) -> list[str]:
    """Ids of sellers whose account or grant a note is about, and of those that they are mixed up with."""
    noted = sa.or_(
        sellers.c.mix_up.is_not(None), grants.c.status_reason.is_not(None), grants.c.status == SET_ASIDE
    )
    query = sa.select(sellers.c.seller_id, sellers.c.mixed_with).select_from(WITH_GRANT).where(noted)
    return sorted({name for row in connection.execute(query) for name in row if name is not None})


def oldest_watermarks(connection: Connection) -> tuple[int, int, datetime | None, datetime | None]:
    """(sellers that can be read, those of them that have a watermark, the oldest, the newest watermark)."""
    mark = watermarks.c.watermark
    query = (
        sa.select(
            sa.func.count(),
            sa.func.count(mark),
            sa.func.min(mark, type_=mark.type),
            sa.func.max(mark, type_=mark.type),
        )
        .select_from(WITH_GRANT.outerjoin(watermarks, watermarks.c.seller_id == sellers.c.seller_id))
        .where(sellers.c.paused.is_(False), grants.c.status == ACTIVE)
    )
    known, marked, oldest, newest = connection.execute(query).one()
    return known, marked, oldest, newest


def grant_times(
    connection: Connection, seller_id: str | None = None
) -> dict[str, tuple[datetime, datetime | None]]:
    """(issued, last refreshed) of each seller's grant, or of one."""
    query = sa.select(grants.c.seller_id, grants.c.issued_at, grants.c.refreshed_at)
    if seller_id is not None:
        query = query.where(grants.c.seller_id == seller_id)
    return {row.seller_id: (row.issued_at, row.refreshed_at) for row in connection.execute(query)}


def seller_watermarks(connection: Connection) -> dict[str, datetime]:
    """Where the next extraction of each seller starts."""
    query = sa.select(watermarks.c.seller_id, watermarks.c.watermark)
    return {row.seller_id: row.watermark for row in connection.execute(query)}


def stale_sellers(
    connection: Connection, *, before: datetime, seller_ids: Sequence[str] = ()
) -> list[StaleSeller]:
    """Sellers, of these or of all, of whom nothing was read completely since before a moment (exclusive), the longest first.

    Before the first complete read counts since when there could have been one: since the registration or, if it was later,
    the consent. Sellers that are blocked are left out.
    """
    readable_since = sa.case(
        (grants.c.issued_at > sellers.c.added_at, grants.c.issued_at), else_=sellers.c.added_at
    )
    mark = watermarks.c.watermark
    since = sa.func.coalesce(mark, readable_since, type_=mark.type)
    query = (
        sa.select(sellers.c.seller_id, mark, since.label("since"))
        .select_from(WITH_GRANT.outerjoin(watermarks, watermarks.c.seller_id == sellers.c.seller_id))
        .where(sellers.c.paused.is_(False), grants.c.status == ACTIVE, since < before)
        .order_by(since, sellers.c.seller_id)
    )
    if seller_ids:
        query = query.where(sellers.c.seller_id.in_(seller_ids))
    return [StaleSeller(*row) for row in connection.execute(query)]


def open_findings(connection: Connection) -> int:
    """How many findings are held, to be reported or reported."""
    return count_rows(connection, findings, findings.c.state.in_(OPEN))


def latest(connection: Connection) -> dict[str, datetime | None]:
    """When each kind of work was last done."""
    marks = {
        "inbox_file_taken": inbox_files.c.taken_at,
        "seller_read_whole": watermarks.c.moved_at,
        "order_closed": orders.c.closed_at,
        "token_refreshed": grants.c.refreshed_at,
        "warehouse_loaded": manifests.c.loaded_at,
    }
    found = {
        name: connection.execute(sa.select(sa.func.max(column)).where(column.is_not(None))).scalar()
        for name, column in marks.items()
    }
    # Adopted orders have a `placed_at` too, but this installation did not place them.
    placed = sa.select(sa.func.max(orders.c.placed_at)).where(orders.c.adopted_at.is_(None))
    return {**found, "order_placed": connection.execute(placed).scalar_one_or_none()}


def on_the_way(connection: Connection) -> dict[str, int]:
    """Numbers of manifests, and of outbox rows that no manifest holds yet, that `load` has not brought into the warehouse."""
    return {
        "manifests": count_rows(connection, manifests, manifests.c.loaded_at.is_(None)),
        "outbox_rows": count_rows(connection, outbox, outbox.c.manifest.is_(None)),
    }


def some_of(
    connection: Connection, query: sa.Select[Any], order: Iterable[Any] = (), *, limit: int, offset: int = 0
) -> CountedItems:
    """How many rows a query has, and some of them in this order, or by their first two columns."""
    count = count_rows(connection, query.subquery())
    ordered = query.order_by(*(order or query.selected_columns[:2])).offset(offset).limit(limit)
    return CountedItems(count, [dict(row._mapping) for row in connection.execute(ordered)] if count else [])
