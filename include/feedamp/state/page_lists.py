"""What the pages list, cut in SQL: a page of ten thousand sellers costs what it shows. Reads only."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json
from feedamp.rules.failure_summary import Told
from feedamp.rules.finding import OPEN
from feedamp.rules.order import OPEN_PHASES, Phase
from feedamp.state.grants import REFRESH_TOKEN_LIFE
from feedamp.state.overview import CountedItems, phase_of_few, some_of, waits_of
from feedamp.state.reconciliation_days import IS_CURRENT
from feedamp.state.rejects import is_open
from feedamp.state.schema import (
    IS_CLOSABLE,
    findings,
    grants,
    orders,
    reconciliation_days,
    reconciliation_differences,
    rejected_orders,
    scorecards,
    sellers,
    snapshots,
    step_runs,
    watermarks,
)
from feedamp.state.scorecards import FIGURES, newest_day
from feedamp.state.statements import count_by, count_rows, in_parts, is_any_order, is_same_order

_LAST_CHARACTER = chr(sys.maxunicode)
GRANT_STATUS = ("active", "needs_authorization", "set_aside", "no_grant", "paused")


@dataclass(frozen=True)
class Part:
    """Which rows of a list to read."""

    offset: int = 0
    limit: int = 50


@dataclass(frozen=True)
class LastRun:
    """The newest run of a step over all its tasks; `told` are the summaries of tasks with work left."""

    run: str  # `Run.key`
    step: str
    started_at: datetime
    orders: int
    requests: int
    sellers: int
    told: tuple[Told, ...]


@dataclass(frozen=True, eq=False)
class _Counted:
    """Rows of a table that the list of sellers counts, by seller; one index has all that is read."""

    table: sa.Table
    wanted: sa.ColumnElement[bool]
    columns: tuple[sa.ColumnElement[Any], ...]
    is_counted_already: bool = False  # one row by seller

    def every(self) -> sa.Select[Any]:
        seller_id = self.table.c.seller_id
        found = sa.select(seller_id, *self.columns).where(self.wanted)
        return found if self.is_counted_already else found.group_by(seller_id)


_IS_CLOSABLE = is_same_order(snapshots, orders) & sa.text(IS_CLOSABLE)
_NOT_CLOSABLE = ~sa.exists().where(_IS_CLOSABLE)
# Read from their own index, as they are few: SQLite would look for the snapshot of every order.
_CLOSABLE = sa.tuple_(orders.c.seller_id, orders.c.mp_order_number).in_(
    sa.select(snapshots.c.seller_id, snapshots.c.mp_order_number).where(sa.text(IS_CLOSABLE))
)
_OPEN_ORDERS = _Counted(
    orders,
    orders.c.phase.in_(OPEN_PHASES),
    (
        sa.func.count().label("open_orders"),
        sa.func.min(orders.c.taken_at, type_=orders.c.taken_at.type).label("oldest_open"),
    ),
)
_OPEN_FINDINGS = _Counted(findings, findings.c.state.in_(OPEN), (sa.func.count().label("findings"),))
SCORES = tuple(name for name in FIGURES if name != "seller_id")
_SCORECARDS = _Counted(
    scorecards, scorecards.c.day == newest_day(), tuple(scorecards.c[name] for name in SCORES), True
)
_COUNTS = {
    "open_orders": _OPEN_ORDERS,
    "oldest_open": _OPEN_ORDERS,
    "findings": _OPEN_FINDINGS,
    **dict.fromkeys(SCORES, _SCORECARDS),
}
_ZERO_IF_NONE = ("open_orders", "findings")


def list_sellers(
    connection: Connection, part: Part, *, search: str, status: str | None, sort: str, descending: bool
) -> CountedItems:
    """Registered sellers with their grant, watermark, open orders, open findings and newest `SCORES` (None without).

    Orders and findings are counted for the sellers of this part alone, unless the list is sorted by such a count.

    Args:
        search: text that the id or name contains; ASCII letters in any case, others as the database compares them.
        status: one of `GRANT_STATUS`; None: all.
        sort: a column of the result.
    """
    grant = sa.func.coalesce(grants.c.status, "no_grant")
    shown = sa.case((sellers.c.paused.is_(True), "paused"), else_=grant).label("status")
    columns: dict[str, sa.ColumnElement[Any]] = {
        "seller_id": sellers.c.seller_id,
        "name": sellers.c.name,
        "sales_channel": sellers.c.sales_channel,
        "status": shown,
        "grant_issued_at": grants.c.issued_at,
        "watermark": watermarks.c.watermark,
    }
    query = sa.select(sellers.c.seller_id).outerjoin(grants, grants.c.seller_id == sellers.c.seller_id)
    if search:
        found = (
            column.icontains(search, autoescape=True) for column in (sellers.c.seller_id, sellers.c.name)
        )
        query = query.where(sa.or_(*found))
    if status is not None:
        query = query.where(shown == status)
    count = count_rows(connection, query.subquery())
    if sort == "watermark":
        query = query.outerjoin(watermarks, watermarks.c.seller_id == sellers.c.seller_id)
    if (counted := _COUNTS.get(sort)) is not None:
        every = counted.every().subquery()
        query = query.outerjoin(every, every.c.seller_id == sellers.c.seller_id)
        columns[sort] = sa.func.coalesce(every.c[sort], 0) if sort in _ZERO_IF_NONE else every.c[sort]
    column = columns[sort]
    key: list[sa.ColumnElement[Any]] = [column.desc() if descending else column]
    if sort != "seller_id":  # which is never null
        key = [column.is_(None), *key, sellers.c.seller_id]
    ids = list(connection.execute(query.order_by(*key).offset(part.offset).limit(part.limit)).scalars())
    items = _sellers(
        connection, ids, [column.label(name) for name, column in columns.items() if name not in _COUNTS]
    )
    return CountedItems(count, [items[seller_id] for seller_id in ids])


def _sellers(
    connection: Connection, ids: Sequence[str], columns: Sequence[sa.Label[Any]]
) -> dict[str, dict[str, Any]]:
    query = (
        sa.select(*columns)
        .outerjoin_from(sellers, grants, grants.c.seller_id == sellers.c.seller_id)
        .outerjoin(watermarks, watermarks.c.seller_id == sellers.c.seller_id)
        .where(sellers.c.seller_id.in_(ids))
    )
    items = {}
    for row in connection.execute(query):
        item = dict(row._mapping) | {name: 0 if name in _ZERO_IF_NONE else None for name in _COUNTS}
        issued_at = item["grant_issued_at"]
        items[item["seller_id"]] = item | {"grant_ends_at": issued_at and issued_at + REFRESH_TOKEN_LIFE}
    for counted in dict.fromkeys(_COUNTS.values()):
        for row in connection.execute(counted.every().where(counted.table.c.seller_id.in_(ids))):
            items[row.seller_id] |= row._mapping
    return items


def list_orders(
    connection: Connection,
    part: Part,
    *,
    number: str = "",
    seller_id: str | None = None,
    phases: tuple[Phase, ...] = (),
    is_closable: bool | None = None,
) -> CountedItems:
    """Orders of the ledger whose number begins with `number`, to the letter, the one delivered last first.

    With `is_closable`, only those that can be closed, or only those that cannot.

    `reason` is what an open order waits for, or why FeedAMP refused it.
    """
    names = (
        "seller_id", "mp_order_number", "phase", "reason", "desired_state", "purchase_date", "taken_at", "closed_at",
    )  # fmt: skip
    query = sa.select(*(orders.c[name] for name in names))
    if number:
        query = query.where(_begins_with(connection, orders.c.mp_order_number, number))
    if seller_id:
        query = query.where(orders.c.seller_id == seller_id)
    if phases:
        query = query.where((phase_of_few() if is_closable else orders.c.phase).in_(phases))
    if is_closable is not None:
        query = query.where(_CLOSABLE if is_closable else _NOT_CLOSABLE)
    found = _part(connection, query, part, orders.c.taken_at.desc(), *query.selected_columns[:2])
    settled = {
        (item["seller_id"], item["mp_order_number"]): item
        for item in found.items
        if item["phase"] == Phase.SETTLED
    }
    # Of this part alone: a join of all orders would be counted, too.
    for key, reason in waits_of(connection, settled).items():
        settled[key]["reason"] = reason
    return found


def list_findings(
    connection: Connection, part: Part, *, kind: str | None, seller_id: str | None, states: Collection[str]
) -> CountedItems:
    """Findings in these states, the newest first."""
    names = (
        "finding_id", "seller_id", "mp_order_number", "mp_line_number", "kind", "severity", "api_code", "state",
        "found_at", "message",
    )  # fmt: skip
    query = sa.select(*(findings.c[name] for name in names)).where(findings.c.state.in_(states))
    query = _only(query, {findings.c.kind: kind, findings.c.seller_id: seller_id})
    return _part(connection, query, part, findings.c.found_at.desc(), findings.c.finding_id)


def list_rejects(
    connection: Connection, part: Part, *, stage: str | None, source: str | None
) -> CountedItems:
    """Open rejects, the newest first; never the raw row."""
    names = (
        "source", "row_number", "row_hash", "stage", "seller_id", "mp_order_number", "rejected_at", "reasons",
    )  # fmt: skip
    query = sa.select(*(rejected_orders.c[name] for name in names)).where(is_open())
    query = _only(query, {rejected_orders.c.stage: stage, rejected_orders.c.source: source})
    newest = (rejected_orders.c.rejected_at.desc(), rejected_orders.c.source, rejected_orders.c.row_number)
    return _part(connection, query, part, *newest)


def list_differences(
    connection: Connection, part: Part, *, day: date, seller_id: str | None, checked_since: datetime
) -> CountedItems:
    """What the newest comparisons of a day found, repaired or left, by seller and order number.

    `is_known` says whether the ledger has the order. A comparison that began before `checked_since` counts for nothing.
    """
    names = ("mp_order_number", "field", "kind", "ledger_value", "feedamp_value", "warehouse_value")
    known = sa.exists().where(is_same_order(orders, reconciliation_differences))
    columns: list[sa.ColumnElement[Any]] = [reconciliation_days.c.seller_id]
    columns += [reconciliation_differences.c[name] for name in (*names, "repaired_at")]
    query: sa.Select[Any] = (
        sa.select(*columns, known.label("is_known"))
        .select_from(reconciliation_days.join(reconciliation_differences, IS_CURRENT))
        .where(reconciliation_days.c.day == day, reconciliation_days.c.checked_at >= checked_since)
    )
    query = _only(query, {reconciliation_days.c.seller_id: seller_id})
    hashed = reconciliation_differences.c.field_hash
    return _part(connection, query, part, *query.selected_columns[:2], hashed)


def ordered_lines(
    connection: Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], frozenset[str]]:
    """The numbers of the lines that were ordered, by seller and order number; orders that the ledger lacks are left out."""
    columns = (orders.c.seller_id, orders.c.mp_order_number, orders.c.body)
    return {
        (seller_id, number): frozenset(
            line["mp_line_number"] for line in decode_json(body.encode())["order_lines"]
        )
        for part in in_parts(dict.fromkeys(keys))
        for seller_id, number, body in connection.execute(
            sa.select(*columns).where(is_any_order(orders, part))
        )
    }


def kinds_of_findings(connection: Connection, states: Collection[str]) -> list[tuple[str, int]]:
    """(kind, number of findings in these states), largest number first."""
    found = count_by(connection, findings.c.kind, findings.c.state.in_(states))
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def stages(connection: Connection) -> Mapping[str, tuple[int, datetime | None]]:
    """(number of open orders, when the oldest was delivered) of each stage: to_place, placed, to_close, held, refused."""
    taken_at = orders.c.taken_at
    oldest = sa.func.min(taken_at, type_=taken_at.type)
    by_phase = sa.select(orders.c.phase, sa.func.count(), oldest).group_by(orders.c.phase)
    shown = (*OPEN_PHASES, Phase.REFUSED)
    found = {
        row[0]: (row[1], row[2]) for row in connection.execute(by_phase.where(orders.c.phase.in_(shown)))
    }
    count, first = found.pop(Phase.SETTLED, (0, None))
    settled = orders.c.phase == Phase.SETTLED
    to_close = sa.select(sa.func.count(), oldest).select_from(snapshots.join(orders, _IS_CLOSABLE))
    to_close = to_close.where(phase_of_few() == Phase.SETTLED)
    closable, oldest_closable = connection.execute(to_close).one()
    if closable and oldest_closable == first:
        rest = sa.select(oldest).where(settled, _NOT_CLOSABLE)
        first = connection.execute(rest).scalar()
    placed = {"placed": (count - closable, first), "to_close": (closable, oldest_closable)}
    return found | {name: some for name, some in placed.items() if some[0]}


def last_runs(connection: Connection) -> list[LastRun]:
    """The newest run of each step that was recorded in the last 30 days."""
    newest = (
        sa.select(step_runs.c.step, sa.func.max(step_runs.c.started_at).label("started_at"))
        .where(step_runs.c.step != "")
        .group_by(step_runs.c.step)
        .subquery()
    )
    of_newest = sa.select(step_runs.c.step, step_runs.c.run_id).join(
        newest, sa.and_(step_runs.c.step == newest.c.step, step_runs.c.started_at == newest.c.started_at)
    )
    found = []
    for step, run in sorted({(row.step, row.run_id) for row in connection.execute(of_newest)}):
        of_run = sa.and_(step_runs.c.run_id == run, step_runs.c.step == step)
        rows = connection.execute(sa.select(step_runs).where(of_run)).all()
        sums = {
            name: sum(row[name] or 0 for row in (row._asdict() for row in rows))
            for name in ("orders", "requests", "sellers")
        }
        told = tuple(Told.decode(row.problems) for row in rows if row.problems)
        found.append(LastRun(run, step, min(row.started_at for row in rows), told=told, **sums))
    return sorted(found, key=lambda run: run.started_at, reverse=True)


def _begins_with(connection: Connection, column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    """Texts that begin so, to the letter, found by an index; Postgres needs one of `varchar_pattern_ops` for that."""
    if connection.dialect.name == "sqlite":  # whose LIKE ignores case; it compares texts byte by byte
        return sa.and_(column >= text, column < text + _LAST_CHARACTER)
    return column.startswith(text, autoescape=True)


def _only(query: sa.Select[Any], wanted: Mapping[Any, str | None]) -> sa.Select[Any]:
    """The rows with these values; an empty one selects all."""
    return query.where(*(column == value for column, value in wanted.items() if value))


def _part(
    connection: Connection, query: sa.Select[Any], part: Part, *order: sa.ColumnElement[Any]
) -> CountedItems:
    return some_of(connection, query, order, limit=part.limit, offset=part.offset)
