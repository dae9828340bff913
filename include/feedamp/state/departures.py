"""What the state holds of a seller or an order, and how that leaves it; what stays is `erasures.py`.

Rows go by their key, a batch at a time. Text that only mentions the seller or order, such as the summary of a run, is
rewritten: every occurrence becomes `(erased)`.
"""

import contextlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json, encode
from feedamp.errors import BusyError, FeedAmpError
from feedamp.postgres_files import Run, left_behind, rewrite_tables
from feedamp.rules.erased import JSON_BLANK, is_number
from feedamp.state import leases, reconciliation_days
from feedamp.state.database import State
from feedamp.state.rejects import LOAD
from feedamp.state.schema import (
    account_marks,
    authorizations,
    grants,
    metadata,
    notices,
    orders,
    other_grants,
    outbox,
    reads_left_off,
    reconciliation_differences,
    rejected_orders,
    sellers,
    step_runs,
    token_fingerprints,
    unread_orders,
)
from feedamp.state.schema import leases as lease_rows
from feedamp.state.statements import count_rows

ROWS_DROPPED_AT_ONCE = 2_000
READERS_WAIT_S = 60.0  # with readers of a SQLite file that began before the rows were deleted
ERASED = "(erased)"
_ORDER_WORK = ("place", "report", "close")
# By which a seller is served. What was done for it stays: orders, events, findings, runs.
_OF_REGISTRATION = (
    sellers,
    grants,
    other_grants,
    authorizations,
    token_fingerprints,
    reads_left_off,
    account_marks,
    unread_orders,
)
_ANY_VALUE: dict[type, object] = {
    str: "",
    int: 0,
    float: 0.0,
    bool: False,
    date: date(2000, 1, 1),
    object: datetime(2000, 1, 1, tzinfo=UTC),  # of `UtcTime`
}
# Text of others that may mention a seller or an order.
_MENTIONS = ((sellers.c.mix_up, sellers.c.mixed_with), (grants.c.status_reason, grants.c.shows_orders_of))


def tables_of(mp_order_number: str | None = None) -> list[sa.Table]:
    """The tables whose rows belong to a seller or, with a number, to one order.

    The ledger comes first: whoever adds to an order looks there in the same transaction, so nothing is added to the
    tables after it.
    """
    names = {"seller_id"} if mp_order_number is None else {"seller_id", "mp_order_number"}
    found = [table for table in metadata.sorted_tables if names <= set(table.c.keys())]
    return sorted(found, key=lambda table: (table is not orders, table.name))


def held(connection: Connection, seller_id: str, mp_order_number: str | None = None) -> dict[str, int]:
    """How many rows each table has of a seller or an order; tables without any are left out."""
    found: dict[str, int] = {}
    for table in tables_of(mp_order_number):
        is_of = _is_of(connection, table, seller_id, mp_order_number)
        found[table.name] = count_rows(connection, table, is_of)
    found[outbox.name] = sum(len(ids) for ids in _outbox_ids(connection, seller_id, mp_order_number))
    return {name: count for name, count in found.items() if count}


def drop_registration(connection: Connection, seller_id: str) -> Counter[str]:
    """Deletes a seller with its grants, so that nothing is refreshed, read or sent for it; returns how many rows of each table.

    What was done for it stays, and its orders wait. So does what speaks against the account of another seller, which a
    person may still have to look at. Safe to repeat.
    """
    counts: Counter[str] = Counter()
    for table in _OF_REGISTRATION:
        counts[table.name] = connection.execute(
            sa.delete(table).where(table.c.seller_id == seller_id)
        ).rowcount
    connection.execute(sa.delete(lease_rows).where(lease_rows.c.name == leases.of_refresh(seller_id)))
    connection.execute(sa.delete(notices).where(notices.c.notice.endswith(f"/{seller_id}", autoescape=True)))
    return counts


def drop_rows(
    connection: Connection, table: sa.Table, seller_id: str, mp_order_number: str | None = None
) -> int:
    """Deletes at most `ROWS_DROPPED_AT_ONCE` rows of a seller or an order from one of `tables_of`; returns how many.

    The differences of an order go at once, and the days that counted them count them no longer.
    """
    if table is reconciliation_differences and mp_order_number is not None:
        return reconciliation_days.drop_order(connection, seller_id, mp_order_number)
    key = tuple(table.primary_key)
    is_its = _is_of(connection, table, seller_id, mp_order_number)
    some = sa.select(*key).where(is_its).limit(ROWS_DROPPED_AT_ONCE)
    return connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(some))).rowcount


def drop_mentions(connection: Connection, seller_id: str, mp_order_number: str | None = None) -> Counter[str]:
    """Deletes or rewrites what is left in other tables; returns how many rows of each. Comes last. Safe to repeat."""
    counts: Counter[str] = Counter()
    for ids in _outbox_ids(connection, seller_id, mp_order_number):
        counts[outbox.name] += connection.execute(sa.delete(outbox).where(outbox.c.id.in_(ids))).rowcount
    word = seller_id if mp_order_number is None else mp_order_number
    without = eraser(word)
    counts[lease_rows.name] += drop_leases(connection, seller_id, mp_order_number)
    counts[rejected_orders.name] += _drop_set_aside(connection, seller_id, mp_order_number)
    counts[rejected_orders.name] += _empty_unnamed_rejects(connection, seller_id, mp_order_number, without)
    for text, name in _MENTIONS:
        table, key = text.table, text.table.c.seller_id
        for row in connection.execute(sa.select(key, text).where(text.contains(word, autoescape=True))).all():
            changed = sa.update(table).where(key == row[0])
            counts[table.name] += connection.execute(changed.values({text.name: without(row[1])})).rowcount
        if mp_order_number is None:
            connection.execute(sa.update(table).where(name == seller_id).values({name.name: None}))
    if mp_order_number is None:
        is_shown = other_grants.c.shows_orders_of == seller_id
        connection.execute(sa.update(other_grants).where(is_shown).values(shows_orders_of=None))
        # At the end of the name: `kind/seller`.
        notified = sa.delete(notices).where(notices.c.notice.endswith(f"/{seller_id}", autoescape=True))
        counts[notices.name] += connection.execute(notified).rowcount
    # A cursor is FeedAMP's; one that shows the word is given up, and the next extraction begins at the watermark.
    shows = _has(reads_left_off.c.content, word)
    counts[reads_left_off.name] += connection.execute(sa.delete(reads_left_off).where(shows)).rowcount
    for column in (step_runs.c.problems, step_runs.c.outcome):
        said = sa.select(*step_runs.primary_key, column.label("said"))
        for told in connection.execute(said.where(_has(column, word))).all():
            is_row = (one == told._mapping[one.name] for one in step_runs.primary_key)
            left = encode(_in_texts(decode_json(told.said.encode()), without)).decode()
            rewritten = sa.update(step_runs).where(*is_row).values({column.name: left})
            counts[step_runs.name] += connection.execute(rewritten).rowcount
    return +counts


def rewrite(state: State) -> None:
    """Rewrites the database without what was deleted. Safe to repeat.

    SQLite: the file has only what is stored, and the log beside it is empty. Postgres: the same of its tables, and the
    samples of its statistics are taken again; its log, replicas and backups keep what they have.

    Raises:
        BusyError: other processes have used the SQLite file, or a table on the server, all the time.
        FeedAmpError: the database could not do it, for example because its disk is full.
    """
    try:
        if state.is_sqlite:
            _rewrite_file(state)
        else:
            _rewrite_server(state)
    except (sa.exc.DBAPIError, state.engine.dialect.loaded_dbapi.Error) as error:
        cause = getattr(error, "orig", None) or error
        code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None)
        url = state.url
        if state.is_sqlite:
            size_mb = -(-Path(url.database or "").stat().st_size // 1_000_000)
            where, needs = url.database, f"The copy needs up to {size_mb} MB of free disk there: make room"
        else:
            where = f"Postgres {url.host}:{url.port}/{url.database}"
            needs = "The copy of a table needs as much free disk there as the table: look at what the server lacks"
        raise FeedAmpError(
            f"The rows are deleted, but the state {where} has not let go of their bytes ({type(cause).__name__} "
            f"{code or ''}). {needs}, then repeat the command."
        ) from error


def _rewrite_server(state: State) -> None:
    for table in metadata.sorted_tables:
        with state.begin() as connection:
            _take_samples(connection, table)
    with _running(state) as run:
        # All of them, because an earlier version of a row may be in any.
        rewrite_tables([table.name for table in metadata.sorted_tables], run)


def left_by_rewrite(state: State) -> str:
    """What `rewrite` does not reach, with the remedy; empty if there is nothing."""
    if state.is_sqlite:
        return ""
    with _running(state) as run:
        return left_behind(run)


@contextlib.contextmanager
def _running(state: State) -> Iterator[Run]:
    with state.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

        def run(sql: str) -> Sequence[Sequence[Any]]:
            done = connection.exec_driver_sql(sql)
            return done.all() if done.returns_rows else ()

        yield run


def _take_samples(connection: Connection, table: sa.Table) -> None:
    """Takes new statistics of a Postgres table, which hold values of its rows.

    Of an empty table the server keeps those that it has, so a row is there while they are taken; no other transaction sees it.
    """
    is_empty = connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is None
    if is_empty:
        row = {column.name: _ANY_VALUE[column.type.python_type] for column in table.columns}
        connection.execute(sa.insert(table).values(row))
    connection.execute(sa.text(f"ANALYZE {table.name}"))
    if is_empty:
        connection.execute(sa.delete(table))


def _rewrite_file(state: State) -> None:
    connection = state.engine.raw_connection()
    connection.detach()  # not back to the pool with another timeout
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(1000 * READERS_WAIT_S)}")
        cursor.execute("VACUUM")
        # A reader that began before needs the old content; then this waits for it.
        is_busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except state.engine.dialect.loaded_dbapi.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        raise _in_use() from error
    finally:
        connection.close()
    if is_busy:
        raise _in_use()


def _in_use() -> BusyError:
    return BusyError(
        "The rows are deleted, but other processes use the state database, so its file still has their bytes: repeat the "
        "command.",
        retry_after_s=60,
    )


def _is_of(
    connection: Connection, table: sa.Table, seller_id: str, mp_order_number: str | None
) -> sa.ColumnElement[bool]:
    is_sellers: sa.ColumnElement[bool] = table.c.seller_id == seller_id
    if mp_order_number is None:
        return is_sellers
    if table is rejected_orders:
        # Delivered without its seller, the number may be the order's. What the warehouse refused has its seller in its row.
        names_none = sa.func.coalesce(sa.func.trim(table.c.seller_id), "") == ""
        is_sellers = sa.or_(is_sellers, sa.and_(names_none, table.c.stage != LOAD))
        number = table.c.mp_order_number
        like = (
            sa.select(number).distinct().where(is_sellers, number.contains(mp_order_number, autoescape=True))
        )
        spelled = [one for one in connection.execute(like).scalars() if is_number(one, mp_order_number)]
        return sa.and_(is_sellers, number.in_(spelled))
    return sa.and_(is_sellers, table.c.mp_order_number == mp_order_number)


def _outbox_ids(connection: Connection, seller_id: str, mp_order_number: str | None) -> Iterator[list[int]]:
    """Ids of the rows on their way to the lake, a batch at a time."""
    # Without the quotes, as a rejected row may have the number in another spelling.
    word = msgspec.json.encode(seller_id if mp_order_number is None else mp_order_number).decode()[1:-1]
    query = sa.select(outbox.c.id, outbox.c.table_name, outbox.c.payload).where(
        outbox.c.payload.contains(word, autoescape=True)
    )
    last_id = 0
    while rows := connection.execute(
        query.where(outbox.c.id > last_id).order_by(outbox.c.id).limit(ROWS_DROPPED_AT_ONCE)
    ).all():
        last_id = rows[-1].id
        yield [
            row.id
            for row in rows
            if _is_payload_of(row.table_name, msgspec.json.decode(row.payload), seller_id, mp_order_number)
        ]


def _is_payload_of(table: str, payload: dict[str, Any], seller_id: str, mp_order_number: str | None) -> bool:
    """As `_is_of`, of a row on its way to the lake."""
    given = payload.get("seller_id")
    if mp_order_number is None:
        return bool(given == seller_id)
    number = payload.get("mp_order_number")
    if table != rejected_orders.name:
        return bool(given == seller_id and number == mp_order_number)
    names_none = payload["stage"] != LOAD and not (given or "").strip()
    return (given == seller_id or names_none) and is_number(number, mp_order_number)


def drop_leases(connection: Connection, seller_id: str, mp_order_number: str | None) -> int:
    """Deletes the leases on work for a seller or an order; returns how many.

    A process that has one sends nothing more once it has asked for it, after `Leases.unasked_s` at the latest.
    """
    if mp_order_number is not None:
        names = [leases.of_order(work, seller_id, mp_order_number) for work in _ORDER_WORK]
        condition: sa.ColumnElement[bool] = lease_rows.c.name.in_(names)
    else:
        begins = (f"{work}/{seller_id}/" for work in _ORDER_WORK)
        condition = sa.or_(
            lease_rows.c.name == leases.of_refresh(seller_id),
            *(lease_rows.c.name.startswith(begin, autoescape=True) for begin in begins),
        )
    return connection.execute(sa.delete(lease_rows).where(condition)).rowcount


def _drop_set_aside(connection: Connection, seller_id: str, mp_order_number: str | None) -> int:
    """Deletes rejects of stage `load` whose ids only their row names, because no warehouse may hold such an id."""
    some_id = sa.or_(rejected_orders.c.seller_id.is_(None), rejected_orders.c.mp_order_number.is_(None))
    unnamed = sa.select(rejected_orders).where(rejected_orders.c.stage == LOAD, some_id)
    gone = 0
    for row in connection.execute(unnamed.where(rejected_orders.c.raw != "")).all():
        _, identity = decode_json(row.raw.encode())
        if identity.get("seller_id") == seller_id and mp_order_number in (
            None,
            identity.get("mp_order_number"),
        ):
            gone += connection.execute(sa.delete(rejected_orders).where(_is_same(row))).rowcount
    return gone


def _empty_unnamed_rejects(
    connection: Connection, seller_id: str, mp_order_number: str | None, without: Callable[[str], str]
) -> int:
    """Empties rejects whose row could not be read far enough to say whose it is, but that mention the seller or order.

    Rows that the warehouse refused are not among them: they say whose they are, and are needed to find the row again.
    """
    word = seller_id if mp_order_number is None else mp_order_number
    ids = rejected_orders.c.seller_id, rejected_orders.c.mp_order_number
    may_be = sa.or_(ids[0].is_(None), sa.and_(ids[0] == seller_id, ids[1].is_(None)))
    may_mention = sa.or_(
        ids[1] == word, *(_has(text, word) for text in (rejected_orders.c.raw, rejected_orders.c.reasons))
    )
    query = sa.select(rejected_orders).where(rejected_orders.c.stage != LOAD, may_be, may_mention)
    emptied = 0
    for row in connection.execute(query).all():
        if row.mp_order_number != word and not mentions(row.raw, word) and not mentions(row.reasons, word):
            continue
        change = sa.update(rejected_orders).where(_is_same(row))
        emptied += connection.execute(
            change.values(
                raw="",
                mp_order_number=None if row.mp_order_number == word else row.mp_order_number,
                reasons=encode(_in_texts(decode_json(row.reasons.encode()), without)).decode(),
            )
        ).rowcount
    return emptied


def _is_same(row: sa.Row[Any]) -> sa.ColumnElement[bool]:
    return sa.and_(*(column == row._mapping[column.name] for column in rejected_orders.primary_key))


def mentions(text: str, word: str) -> bool:
    """Whether a text, perhaps JSON, has the word, and not as a part of a longer one."""
    # In JSON, a letter that stands for a line break or tab may be right before the word.
    plain = JSON_BLANK.sub(" ", text)
    return any(_alone(written).search(given) for written in _written(word) for given in (text, plain))


def _has(column: sa.ColumnElement[str], word: str) -> sa.ColumnElement[bool]:
    """Whether a text, perhaps JSON, has the word anywhere, also as a part of a longer one."""
    return sa.or_(*(column.contains(written, autoescape=True) for written in _written(word)))


def _written(word: str) -> tuple[str, ...]:
    """The word as it may stand in a text: itself, and as JSON writes it."""
    return tuple(dict.fromkeys((word, encode(word).decode()[1:-1], json.dumps(word)[1:-1])))


def _alone(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")


def eraser(word: str) -> Callable[[str], str]:
    """Replaces a word that is not part of a longer one."""
    found = _alone(word)
    return lambda text: found.sub(ERASED, text)


def _in_texts(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON value with each text in it changed, but not the names of members."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _in_texts(item, change) for name, item in value.items()}
    return [_in_texts(item, change) for item in value] if isinstance(value, list) else value
