"""How the state database is connected to: time limits, what is logged, and how a transaction begins on SQLite."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from feedamp.state.transaction_locks import LOCK_WAIT_S, lock_timeout

if TYPE_CHECKING:
    import psycopg

# By how much a server may answer later than a lock may take, where a person waits for it.
LATE_ANSWER_S = 2.0
# A server whose machine is lost is noticed after a minute instead of the system's default of two hours.
_LIBPQ_TIMEOUTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds; the keepalives stop while a statement is on its way
}
# At DEBUG, SQLAlchemy logs the rows that it reads, order bodies among them, although parameters are hidden.
_LOGGED_AS = "feedamp"
logging.getLogger(f"sqlalchemy.engine.Engine.{_LOGGED_AS}").addFilter(
    lambda record: record.levelno > logging.DEBUG
)
# More than the threads that use the database at the same time: refreshes, their stores, heartbeats, the step, and those
# that wait for a lock.
_CONNECTIONS_AT_MOST = 60


def make_engine(url: sa.URL, lock_wait_s: float) -> Engine:
    """Connects when it is first used; `lock_wait_s` is as in `State`."""
    # SQLAlchemy's errors quote statements and end up in logs; parameters may be tokens and customer data (promise 9).
    if url.get_backend_name() != "sqlite":
        timeouts: dict[str, int | None] = {}
        if url.get_driver_name() in ("psycopg", "psycopg2"):
            timeouts = {name: value for name, value in _LIBPQ_TIMEOUTS.items() if name not in url.query}
        if url.get_driver_name() == "psycopg":
            # A pooler in transaction mode shares sessions, and with them their prepared statements.
            timeouts["prepare_threshold"] = None
        if lock_wait_s < LOCK_WAIT_S and "connect_timeout" in timeouts:
            timeouts["connect_timeout"] = max(2, math.ceil(lock_wait_s))  # libpq takes no less than 2
        server = sa.create_engine(
            url,
            pool_pre_ping=True,
            max_overflow=_CONNECTIONS_AT_MOST,
            hide_parameters=True,
            logging_name=_LOGGED_AS,
            connect_args=timeouts,
        )
        if lock_wait_s < LOCK_WAIT_S:

            @sa.event.listens_for(server, "begin")
            def _limit_waits(connection: Connection) -> None:
                # Of the transaction, not of the session, which a pooler would give to others with it.
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{lock_timeout(lock_wait_s)}'")

            if url.get_driver_name() == "psycopg":
                kind = connection_that_answers_within(lock_wait_s + LATE_ANSWER_S)
                sa.event.listen(
                    server, "do_connect", lambda _, __, given, named: kind.connect(*given, **named)
                )

        return _escape_nul(server)
    engine = sa.create_engine(
        url,
        max_overflow=_CONNECTIONS_AT_MOST,
        connect_args={"timeout": lock_wait_s},
        hide_parameters=True,
        logging_name=_LOGGED_AS,
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is sent below
        cursor = connection.cursor()
        _use_write_ahead_log(cursor, lock_wait_s)
        # A commit survives any crash of a process; a refresh token that FeedAMP rotated must also
        # survive a power cut, so nothing weaker than FULL.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA busy_timeout={int(1000 * lock_wait_s)}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("feedamp_reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _escape_nul(engine: Engine) -> Engine:
    """Stores NUL characters as an escape: FeedAMP may send them, and Postgres cannot store them."""

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def _on_execute(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        return statement, _without_nul(parameters)

    return engine


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\\x00")
    if isinstance(value, dict):
        return {name: _without_nul(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nul(item) for item in value]
    return value


def connection_that_answers_within(seconds: float) -> type[psycopg.Connection[Any]]:
    """A connection of psycopg that breaks if one exchange with the server takes longer.

    No timeout of Postgres or of TCP does that: those of the server do not reach a client behind a proxy that stands still,
    and TCP is content while the proxy's machine confirms what it receives.
    """
    import psycopg

    class Hurried(psycopg.Connection[Any]):
        def wait(self, gen: Any, *how: Any, **named: Any) -> Any:
            return super().wait(self._until(time.monotonic() + seconds, gen), *how, **named)

        def _until(self, ends_at: float, exchange: Any) -> Generator[Any, Any, Any]:
            try:
                awaited = next(exchange)
                while True:
                    is_ready = yield awaited  # psycopg resumes this ten times a second
                    if not is_ready and time.monotonic() >= ends_at:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"the server has not answered for {seconds:.0f} s")
                    awaited = exchange.send(is_ready)
            except StopIteration as end:
                return end.value

    return Hurried


def is_full(error: BaseException | None) -> bool:
    """Whether SQLite says that the disk of its file takes no more."""
    return getattr(error, "sqlite_errorcode", None) in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    )


def _use_write_ahead_log(cursor: sqlite3.Cursor, lock_wait_s: float) -> None:
    """Switches to WAL. Retries while other processes open a new file: SQLite then fails without waiting."""
    give_up_at = time.monotonic() + lock_wait_s
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if is_full(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
