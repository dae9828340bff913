"""What the pages list, cut in SQL: a page of ten thousand sellers costs what it shows. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.failure_summary import Told
from feedamp.rules.finding import OPEN
from feedamp.rules.order import OPEN_PHASES, Phase
from feedamp.state.grants import REFRESH_TOKEN_LIFE
from feedamp.state.overview import CountedItems
from feedamp.state.rejects import is_open
from feedamp.state.schema import (
    findings,
    grants,
    orders,
    rejected_orders,
    sellers,
    snapshots,
    step_runs,
    watermarks,
)
from feedamp.state.statements import is_same_order

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


def list_sellers(
    connection: Connection, part: Part, *, search: str, status: str | None, sort: str, descending: bool
) -> CountedItems:
    """Registered sellers with their grant, watermark, open orders and open findings.

    Args:
        search: text that the id or name contains, in any case.
        status: one of `GRANT_STATUS`; None: all.
        sort: a column of the result.
    """
    open_orders = _count_by_seller(orders, orders.c.phase.in_(OPEN_PHASES), sa.func.min(orders.c.taken_at))
    open_findings = _count_by_seller(findings, findings.c.state.in_(OPEN), sa.func.min(findings.c.found_at))
    grant = sa.func.coalesce(grants.c.status, "no_grant")
    shown = sa.case((sellers.c.paused.is_(True), "paused"), else_=grant).label("status")
    query = (
        sa.select(
            sellers.c.seller_id,
            sellers.c.name,
            sellers.c.sales_channel,
            shown,
            grants.c.issued_at.label("grant_issued_at"),
            watermarks.c.watermark,
            sa.func.coalesce(open_orders.c.count, 0).label("open_orders"),
            open_orders.c.oldest.label("oldest_open"),
            sa.func.coalesce(open_findings.c.count, 0).label("findings"),
        )
        .outerjoin(grants, grants.c.seller_id == sellers.c.seller_id)
        .outerjoin(watermarks, watermarks.c.seller_id == sellers.c.seller_id)
        .outerjoin(open_orders, open_orders.c.seller_id == sellers.c.seller_id)
        .outerjoin(open_findings, open_findings.c.seller_id == sellers.c.seller_id)
    )
    if search:
        found = (
            column.icontains(search, autoescape=True) for column in (sellers.c.seller_id, sellers.c.name)
        )
        query = query.where(sa.or_(*found))
    if status is not None:
        query = query.where(shown == status)
    column = query.selected_columns[sort]
    order = (column.is_(None), column.desc() if descending else column, sellers.c.seller_id)
    some = _part(connection, query, part, *order)
    for item in some.items:
        issued_at = item["grant_issued_at"]
        item["grant_ends_at"] = None if issued_at is None else issued_at + REFRESH_TOKEN_LIFE
    return some


def list_orders(
    connection: Connection,
    part: Part,
    *,
    number: str = "",
    seller_id: str | None = None,
    phases: tuple[Phase, ...] = (),
) -> CountedItems:
    """Orders of the ledger whose number begins with `number`, the one delivered last first."""
    names = (
        "seller_id",
        "mp_order_number",
        "phase",
        "desired_state",
        "purchase_date",
        "taken_at",
        "closed_at",
    )
    query = sa.select(*(orders.c[name] for name in names))
    if number:
        query = query.where(orders.c.mp_order_number.startswith(number, autoescape=True))
    if seller_id:
        query = query.where(orders.c.seller_id == seller_id)
    if phases:
        query = query.where(orders.c.phase.in_(phases))
    return _part(connection, query, part, orders.c.taken_at.desc(), *query.selected_columns[:2])


def list_findings(
    connection: Connection, part: Part, *, kind: str | None, seller_id: str | None, state: str | None
) -> CountedItems:
    """Findings, the newest first; without a state those that are not resolved or waived."""
    names = (
        "finding_id",
        "seller_id",
        "mp_order_number",
        "mp_line_number",
        "kind",
        "severity",
        "api_code",
        "state",
        "found_at",
        "message",
    )
    query = sa.select(*(findings.c[name] for name in names)).where(
        findings.c.state.in_(OPEN) if state is None else findings.c.state == state
    )
    query = _only(query, {findings.c.kind: kind, findings.c.seller_id: seller_id})
    return _part(connection, query, part, findings.c.found_at.desc(), findings.c.finding_id)


def list_rejects(
    connection: Connection, part: Part, *, stage: str | None, source: str | None
) -> CountedItems:
    """Open rejects, the newest first; never the raw row."""
    names = (
        "source",
        "row_number",
        "row_hash",
        "stage",
        "seller_id",
        "mp_order_number",
        "rejected_at",
        "reasons",
    )
    query = sa.select(*(rejected_orders.c[name] for name in names)).where(is_open())
    query = _only(query, {rejected_orders.c.stage: stage, rejected_orders.c.source: source})
    newest = (rejected_orders.c.rejected_at.desc(), rejected_orders.c.source, rejected_orders.c.row_number)
    return _part(connection, query, part, *newest)


def kinds_of_findings(connection: Connection) -> list[tuple[str, int]]:
    """(kind, number of open findings), largest number first."""
    count = sa.func.count()
    query = sa.select(findings.c.kind, count).where(findings.c.state.in_(OPEN)).group_by(findings.c.kind)
    return [(row[0], row[1]) for row in connection.execute(query.order_by(count.desc(), findings.c.kind))]


def stages(connection: Connection) -> Mapping[str, tuple[int, datetime | None]]:
    """(number of open orders, when the oldest was delivered) of each stage: to_place, placed, to_close, held, refused."""
    stage = sa.case(
        (sa.and_(orders.c.phase == Phase.SETTLED, snapshots.c.closable.is_(True)), "to_close"),
        (orders.c.phase == Phase.SETTLED, "placed"),
        else_=orders.c.phase,
    )
    query = (
        sa.select(stage, sa.func.count(), sa.func.min(orders.c.taken_at, type_=orders.c.taken_at.type))
        .select_from(orders.outerjoin(snapshots, is_same_order(snapshots, orders)))
        .where(orders.c.phase.in_((*OPEN_PHASES, Phase.REFUSED)))
        .group_by(stage)
    )
    return {name: (count, oldest) for name, count, oldest in connection.execute(query)}


def last_runs(connection: Connection) -> list[LastRun]:
    """The newest run of each step that was recorded in the last 30 days."""
    newest = (
        sa.select(step_runs.c.step, sa.func.max(step_runs.c.started_at).label("started_at"))
        .where(step_runs.c.step != "")
        .group_by(step_runs.c.step)
        .subquery()
    )
    of_newest = sa.select(step_runs.c.step, step_runs.c.run_id).join(
        newest,
        sa.and_(step_runs.c.step == newest.c.step, step_runs.c.started_at == newest.c.started_at),
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


def _count_by_seller(table: sa.Table, wanted: sa.ColumnElement[bool], oldest: Any) -> sa.Subquery:
    query = sa.select(table.c.seller_id, sa.func.count().label("count"), oldest.label("oldest"))
    return query.where(wanted).group_by(table.c.seller_id).subquery()


def _only(query: sa.Select[Any], wanted: Mapping[Any, str | None]) -> sa.Select[Any]:
    """The rows with these values; an empty one selects all."""
    return query.where(*(column == value for column, value in wanted.items() if value))


def _part(
    connection: Connection, query: sa.Select[Any], part: Part, *order: sa.ColumnElement[Any]
) -> CountedItems:
    count = connection.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one()
    rows = connection.execute(query.order_by(*order).offset(part.offset).limit(part.limit)) if count else ()
    return CountedItems(count, [dict(row._mapping) for row in rows])
