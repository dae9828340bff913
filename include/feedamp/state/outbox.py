"""Rows for the lake, written in the same transaction as the change they describe, so that neither exists alone."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.column_types import Type
from feedamp.money import fitted
from feedamp.state.many_rows import execute_many
from feedamp.state.schema import outbox
from feedamp.state.statements import count_by, count_rows
from feedamp.tables import LAKE_TABLES, RECORDED_AT, Row, Rows, refuse_misfits

_ROWS_PER_QUERY = 1_000
_INSERT = sa.insert(outbox)
_FROM_JSON: dict[Type, Callable[[str], object]] = {
    Type.TIMESTAMP: datetime.fromisoformat,
    Type.DATE: date.fromisoformat,
    Type.MONEY: lambda text: _money(Decimal(text)),
}


def put(
    connection: Connection, table: str, rows: Iterable[Row], *, recorded_at: datetime | None = None
) -> None:
    """Adds rows of a lake table, with a common `recorded_at` or, without one, each with its own.

    Raises:
        MisfitError: a row does not fit the table; in the outbox it would make every load fail.
    """
    put_rows(connection, ((table, {**row, RECORDED_AT: recorded_at or row[RECORDED_AT]}) for row in rows))


def put_all(connection: Connection, rows: Rows, *, recorded_at: datetime) -> None:
    """Adds rows of several tables, all with the same `recorded_at`."""
    put_rows(connection, with_moment(rows, recorded_at))


def with_moment(rows: Rows, recorded_at: datetime) -> Iterator[tuple[str, Row]]:
    """The rows of several tables as `put_rows` takes them."""
    return (
        (table, {**row, RECORDED_AT: recorded_at}) for table, table_rows in rows.items() for row in table_rows
    )


def put_rows(connection: Connection, rows: Iterable[tuple[str, Row]]) -> None:
    """Adds rows of any tables, each with its `recorded_at`; those of one order follow one another. Raises as `put`."""
    rows = list(rows)
    by_table: defaultdict[str, list[Row]] = defaultdict(list)
    for table, row in rows:
        by_table[table].append(row)
    for table, of_table in by_table.items():
        refuse_misfits(table, of_table)
    values = []
    for table, row in rows:
        payload = dict(row)
        moment = payload.pop(RECORDED_AT)
        text = msgspec.json.encode(payload).decode()
        values.append({"table_name": table, "payload": text, "recorded_at": moment})
    execute_many(connection, _INSERT, values)


def unclaimed(connection: Connection) -> int:
    """How many rows are not claimed for a manifest."""
    return count_rows(connection, outbox, outbox.c.manifest.is_(None))


def claim(connection: Connection, manifest: str, *, at_most: int | None = None) -> int:
    """Claims the present unclaimed rows for a manifest, with `at_most` only the oldest; returns how many.

    Rows with the same `recorded_at` are claimed together, even if that exceeds `at_most`: an order and its lines stay
    in one manifest. Rows are not selected by "all up to an id", because on Postgres a transaction that commits later
    may still add a lower id.
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
    """How many rows of each table are claimed for a manifest."""
    return count_by(connection, outbox.c.table_name, outbox.c.manifest == manifest)


def claims(connection: Connection) -> list[str]:
    """Paths of manifests that rows are claimed for."""
    query = sa.select(outbox.c.manifest).where(outbox.c.manifest.is_not(None)).distinct()
    return list(connection.execute(query).scalars())


def unclaim(connection: Connection, manifest: str) -> None:
    """Releases the rows claimed for a manifest that was never published. Safe to repeat."""
    connection.execute(sa.update(outbox).where(outbox.c.manifest == manifest).values(manifest=None))


def claimed_rows(
    read: Callable[[], AbstractContextManager[Connection]], manifest: str
) -> Iterator[tuple[str, Row]]:
    """(table, row) of the rows claimed for a manifest, oldest first; `read` opens a transaction for each query.

    One transaction for all of them may be too large to be repeated after an outage, and is not needed: no one but the
    load that has claimed them changes them.
    """
    yield from _rows(read, outbox.c.manifest == manifest)


def waiting_rows(connection: Connection, tables: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """(table, row) of all rows of the named tables in the outbox, claimed or not."""
    yield from _rows(lambda: nullcontext(connection), outbox.c.table_name.in_(list(tables)))


def _rows(
    read: Callable[[], AbstractContextManager[Connection]], which: sa.ColumnElement[bool]
) -> Iterator[tuple[str, Row]]:
    """Oldest first, a portion at a time: a cursor of the server would not outlive a lost connection."""
    last_id = 0
    query = sa.select(outbox).where(which).order_by(outbox.c.id).limit(_ROWS_PER_QUERY)
    while True:
        with read() as connection:
            entries = connection.execute(query.where(outbox.c.id > last_id)).all()
        if not entries:
            return
        for entry in entries:
            row = decode_row(entry.table_name, entry.payload)
            yield entry.table_name, {**row, RECORDED_AT: entry.recorded_at}
        last_id = entries[-1].id


def remove(connection: Connection, manifest: str) -> None:
    """Deletes the rows of a manifest that is in the warehouse. Safe to repeat."""
    connection.execute(sa.delete(outbox).where(outbox.c.manifest == manifest))


def _money(amount: Decimal) -> Decimal:
    """The amount as its column holds it: an earlier version wrote `0E+20`, and prices with dozens of trailing zeros."""
    held = fitted(amount)
    return amount if held is None else held


def decode_row(table: str, payload: str) -> dict[str, Any]:
    """A row of a lake table from its JSON."""
    row: dict[str, Any] = msgspec.json.decode(payload)
    for column in LAKE_TABLES[table].columns:
        convert = _FROM_JSON.get(column.type)
        if convert is not None and row.get(column.name) is not None:
            row[column.name] = convert(row[column.name])
    return row
