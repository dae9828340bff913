"""Rows for the lake, kept in the transaction that made them true, so that no crash can part the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.money import fitted
from feedamp.state.schema import outbox
from feedamp.tables import LAKE_TABLES, RECORDED_AT, Row, Rows, Type, refuse_misfit

_FROM_JSON: dict[Type, Callable[[str], object]] = {
    Type.TIMESTAMP: datetime.fromisoformat,
    Type.DATE: date.fromisoformat,
    Type.MONEY: lambda text: _money(Decimal(text)),
}


def put(connection: Connection, table: str, rows: Iterable[Row], *, recorded_at: datetime) -> None:
    """Adds rows of a lake table.

    Raises:
        MisfitError: a row cannot stand in the table; in here it would stop every load.
    """
    rows = list(rows)
    for row in rows:
        refuse_misfit(table, {**row, RECORDED_AT: recorded_at})
    values = [
        {
            "table_name": table,
            "payload": msgspec.json.encode({k: v for k, v in row.items() if k != RECORDED_AT}).decode(),
            "recorded_at": recorded_at,
        }
        for row in rows
    ]
    if values:
        connection.execute(sa.insert(outbox), values)


def put_all(connection: Connection, rows: Rows, *, recorded_at: datetime) -> None:
    """Adds rows of several tables that belong to one moment."""
    for table, table_rows in rows.items():
        put(connection, table, table_rows, recorded_at=recorded_at)


def unclaimed(connection: Connection) -> int:
    """How many rows belong to no manifest yet."""
    query = sa.select(sa.func.count()).where(outbox.c.manifest.is_(None))
    return connection.execute(query).scalar_one()


def claim(connection: Connection, manifest: str, *, at_most: int | None = None) -> int:
    """Marks rows that are there now as this manifest's, the oldest if not all; returns how many.

    Rows of one moment stay together, though they be a few more: the lines of an order belong to its row. They are
    named one by one, never as "up to an id": on Postgres a row with a lower id can still arrive.
    """
    free = outbox.c.manifest.is_(None)
    wanted: sa.ColumnElement[bool] = free
    if at_most is not None:
        oldest = sa.select(outbox.c.id).where(free).order_by(outbox.c.id)
        last = sa.select(outbox.c.recorded_at).where(free).order_by(outbox.c.id).offset(at_most - 1).limit(1)
        same_moment = sa.and_(free, outbox.c.recorded_at == last.scalar_subquery())
        wanted = sa.or_(outbox.c.id.in_(oldest.limit(at_most)), same_moment)
    return connection.execute(sa.update(outbox).where(wanted).values(manifest=manifest)).rowcount


def claimed_by_table(connection: Connection, manifest: str) -> Counter[str]:
    """How many rows of each table have been claimed for a manifest."""
    query = (
        sa.select(outbox.c.table_name, sa.func.count())
        .where(outbox.c.manifest == manifest)
        .group_by(outbox.c.table_name)
    )
    return Counter({row[0]: row[1] for row in connection.execute(query)})


def claims(connection: Connection) -> list[str]:
    """Manifests that rows have been claimed for."""
    query = sa.select(outbox.c.manifest).where(outbox.c.manifest.is_not(None)).distinct()
    return list(connection.execute(query).scalars())


def unclaim(connection: Connection, manifest: str) -> None:
    """Gives the rows back of a manifest that was never published."""
    connection.execute(sa.update(outbox).where(outbox.c.manifest == manifest).values(manifest=None))


def claimed_rows(connection: Connection, manifest: str) -> Iterator[tuple[str, Row]]:
    """(table, row) of a manifest, oldest first."""
    query = sa.select(outbox).where(outbox.c.manifest == manifest).order_by(outbox.c.id)
    for entry in connection.execute(query, execution_options={"yield_per": 1_000}):
        yield entry.table_name, {**_typed(entry.table_name, entry.payload), RECORDED_AT: entry.recorded_at}


def waiting_rows(connection: Connection, tables: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """(table, row) of all rows of some tables that are on their way, claimed or not."""
    query = sa.select(outbox).where(outbox.c.table_name.in_(list(tables)))
    for entry in connection.execute(query, execution_options={"yield_per": 1_000}):
        yield entry.table_name, {**_typed(entry.table_name, entry.payload), RECORDED_AT: entry.recorded_at}


def remove(connection: Connection, manifest: str) -> None:
    """Forgets the rows of a manifest that is in the warehouse. Safe to repeat."""
    connection.execute(sa.delete(outbox).where(outbox.c.manifest == manifest))


def _money(amount: Decimal) -> Decimal:
    """As the column holds it: an earlier version wrote `0E+20`, and prices with dozens of zeros at their end."""
    held = fitted(amount)
    return amount if held is None else held


def _typed(table: str, payload: str) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.json.decode(payload)
    for column in LAKE_TABLES[table].columns:
        convert = _FROM_JSON.get(column.type)
        if convert is not None and row.get(column.name) is not None:
            row[column.name] = convert(row[column.name])
    return row
