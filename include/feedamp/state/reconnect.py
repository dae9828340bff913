"""Transactions on a database server that outlive its restart.

A `with` block cannot be run again, but what it has executed can. If the connection breaks, the statements are executed
again in a new transaction, and their answers are compared with the first ones. If all are equal, the block would have
done the same, so it continues. If one differs, another transaction came in between, and the block fails.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, CursorResult, Dialect, Engine
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    ResourceClosedError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError

from feedamp.errors import OvertakenError, StoreAwayError, TransientError
from feedamp.state.schema import commit_marks

log = logging.getLogger(__name__)
# What a transaction raises if the database does not do its work now: an error of the driver, or one of this module.
STATE_ERRORS = (SQLAlchemyError, TransientError)
TRIED_EVERY_S = 0.25
# Only answers of transactions with up to this many rows are remembered, so that memory does not grow (promise 11).
_ROWS_REMEMBERED = 20_000
_FINAL = ("password", "authentication", "pg_hba", "does not exist", "permission denied")


# Part of the first statement of a writing transaction.
MARK_COMMIT = (
    postgresql.insert(commit_marks)
    .values(writer=sa.bindparam("writer"), mark=sa.bindparam("mark"), set_at=sa.func.now())
    .on_conflict_do_update(
        index_elements=["writer"], set_={"mark": sa.bindparam("mark"), "set_at": sa.func.now()}
    )
    .cte("marked")
)


class Writers:
    """Names under which this process marks its transactions; two that overlap have different ones."""

    def __init__(self) -> None:
        self._free: list[str] = []

    def take(self) -> str:
        """A name that no running transaction has; give it back at the end."""
        try:
            return self._free.pop()
        except IndexError:
            return uuid.uuid4().hex

    def give_back(self, name: str) -> None:
        self._free.append(name)


@dataclass
class Outage:
    """Whether transactions of this process have given up waiting for the server; the next ones then do not wait."""

    is_given_up: bool = False


# By the URL of a state: whoever opens it again in this process does not begin a new wait.
OUTAGES: defaultdict[sa.URL, Outage] = defaultdict(Outage)


class Patience:
    """The time that one transaction may spend on waiting for its server, from a failure to the next success."""

    def __init__(self, seconds: float, outage: Outage | None = None) -> None:
        self._seconds = seconds
        self._outage = outage or Outage()
        self._ends_at: float | None = None

    def wait_after(self, error: Exception) -> None:
        """Sleeps for a moment before the next attempt.

        Raises:
            StoreAwayError: the time is over. Without any patience, the error itself is raised.
        """
        if not self._seconds:
            raise error
        if self._ends_at is None and not self._outage.is_given_up:
            self._ends_at = time.monotonic() + self._seconds
            log.warning("The state database does not answer (%s); waiting for it.", _reason(error))
        if self._ends_at is None or self._outage.is_given_up or time.monotonic() >= self._ends_at:
            self._outage.is_given_up = True
            raise StoreAwayError(
                f"The state database has not answered for {self._seconds:.0f} s: {_reason(error)}",
                retry_after_s=60,
            ) from error
        time.sleep(TRIED_EVERY_S)

    def is_over(self) -> None:
        """Tells that the server has answered; a later failure begins a new wait."""
        self._ends_at = None
        self._outage.is_given_up = False


def connect(engine: Engine, patience: Patience, **options: Any) -> Connection:
    """A connection, once the server accepts one.

    Raises:
        StoreAwayError: it accepted none for too long.
        OperationalError: it refuses the user, the password or the database.
    """
    while True:
        try:
            connection = engine.connect().execution_options(**options)
        except (OperationalError, InterfaceError, NoConnectionError) as error:
            if _is_refusal(error):
                raise
            patience.wait_after(error)
        else:
            return connection


@dataclass(frozen=True)
class _Played:
    """A statement that was executed, and its answer; `rows` is the driver's result, None if there is none to compare."""

    statement: sa.Executable
    parameters: Any
    has_rows: bool
    count: int
    rows: Any

    def has_answer_of(self, other: _Played) -> bool:
        if (self.has_rows, self.count) != (other.has_rows, other.count):
            return False
        return not self.has_rows or _values(self.rows) == _values(other.rows)


class LastingTransaction:
    """One transaction, on as many connections as it takes; offers what this package uses of `Connection`.

    `begins_with` is executed first on each connection. If it contains `MARK_COMMIT`, by which is seen whether a commit
    without an answer took effect (`is_marked`), its last value is the transaction's id, by which the server says whether
    it has ended; otherwise that is null, and what got no answer is repeated.
    """

    def __init__(
        self,
        engine: Engine,
        patience: Patience,
        writers: Writers,
        *,
        begins_with: sa.Executable | None = None,
        is_marked: bool = False,
        is_lock_awaited: bool = True,
        **options: Any,
    ) -> None:
        self._writers = writers
        self._mark = {"writer": writers.take(), "mark": uuid.uuid4().hex} if is_marked else {}
        self._engine = engine
        self._patience = patience
        self._begins_with = begins_with
        self._is_lock_awaited = is_lock_awaited
        self._options = options
        self._played: list[_Played] = []
        self._rows = 0
        self._is_repeatable = True
        self._failure: BaseException | None = None  # once set, nothing more is executed or committed
        self.begun: list[Any] = []  # what the first statement answered, without the id
        self._connection = self._opened()

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    def execute(
        self, statement: sa.Executable, parameters: Any = None, *, execution_options: Any = None
    ) -> CursorResult[Any]:
        """As `Connection.execute`.

        Raises:
            StoreAwayError: the server was away for too long.
            OvertakenError: the connection broke, and the state has changed since the transaction began.
        """
        while True:
            self._raise_failure()
            try:
                result = self._connection.execute(
                    statement, parameters, execution_options=execution_options or {}
                )
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                self._play_again(error)
            else:
                self._patience.is_over()
                self._remember(_played(statement, parameters, result))
                return result

    def begins_again_with(self, statement: sa.Executable) -> None:
        """What is executed first on each new connection from now on, which is not compared."""
        self._begins_with = statement

    def commit(self) -> None:
        """Commits. If the answer is lost, asks the server whether the transaction was committed; if not, repeats it."""
        while True:
            self._raise_failure()
            try:
                self._connection.commit()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                if self._was_committed():
                    return
                self._play_again(error)
            except BaseException:  # of a signal: SQLAlchemy may take it for ended, and pool it with its locks
                self._connection.invalidate()
                raise
            else:
                return

    def close(self) -> None:
        """Rolls back what is not committed, and returns the connection to the pool."""
        self._disconnect()
        self._played.clear()
        self._failure = self._failure or ResourceClosedError("This transaction has ended.")
        mark, self._mark = self._mark, {}  # first: a signal may strike here, and this is called again
        if mark:
            self._writers.give_back(mark["writer"])

    def _disconnect(self) -> None:
        with suppress(DBAPIError):  # a broken connection has ended the transaction
            self._connection.close()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _opened(self) -> Connection:
        """A connection on which the transaction has begun."""
        while True:
            connection = connect(self._engine, self._patience, **self._options)
            try:
                self._id = None
                if self._begins_with is not None:
                    *self.begun, self._id = connection.execute(self._begins_with, self._mark).one()
            except BaseException as error:
                with suppress(DBAPIError):
                    connection.close()
                if not isinstance(error, DBAPIError) or not (
                    error.connection_invalidated or (self._is_lock_awaited and is_lock_timeout(error))
                ):
                    raise
                self._patience.wait_after(error)
            else:
                return connection

    def _remember(self, played: _Played) -> None:
        if played.has_rows:
            self._rows += played.count
        if (played.has_rows and played.rows is None) or self._rows > _ROWS_REMEMBERED:
            self._is_repeatable = False
            self._played.clear()
        if self._is_repeatable:
            self._played.append(played)

    def _play_again(self, error: DBAPIError) -> None:
        """Executes all statements so far in a new transaction, and compares their answers."""
        try:
            while not self._is_played_again(error):
                pass
        except BaseException as failure:
            self._failure = failure
            raise

    def _is_played_again(self, error: DBAPIError) -> bool:
        """False if the new connection broke as well."""
        self._disconnect()
        if not self._is_repeatable:
            raise StoreAwayError(
                "The connection to the state database broke; nothing of this transaction was stored.",
                retry_after_s=10,
            ) from error
        self._patience.wait_after(error)
        self._connection = self._opened()
        try:
            for before in self._played:
                result = self._connection.execute(before.statement, before.parameters)
                if not before.has_answer_of(_played(before.statement, before.parameters, result)):
                    raise OvertakenError(
                        "The connection to the state database broke, and another process has changed what this "
                        "transaction read; nothing of it was stored.",
                        retry_after_s=10,
                    ) from error
        except DBAPIError as again:
            if not again.connection_invalidated:
                raise
            return False
        return True

    def _was_committed(self) -> bool:
        """Whether a transaction whose commit got no answer took effect."""
        if self._id is None:
            return False
        # The old connection's process may still be at it. No row: the server lost the id in a crash.
        status = sa.text(
            "SELECT pg_xact_status(CAST(:id AS xid8)) "
            "WHERE CAST(:id AS xid8) < pg_snapshot_xmax(pg_current_snapshot())"
        ).bindparams(id=self._id)
        mark = sa.select(commit_marks.c.mark).where(commit_marks.c.writer == self._mark["writer"])
        while True:
            connection = connect(self._engine, self._patience)
            try:
                if connection.execute(status).scalar_one_or_none() != "in progress":
                    return bool(connection.execute(mark).scalar_one_or_none() == self._mark["mark"])
                error: Exception = TimeoutError("the outcome of a transaction is not known yet")
            except DBAPIError as broken:
                if not broken.connection_invalidated:
                    raise
                error = broken
            finally:
                with suppress(DBAPIError):
                    connection.close()
            self._patience.wait_after(error)


def _played(statement: sa.Executable, parameters: Any, result: CursorResult[Any]) -> _Played:
    # Without a cursor, the rows were only the new row's generated keys, which nothing reads.
    has_rows = result.returns_rows and result.cursor is not None
    rows = getattr(result.cursor, "pgresult", None) if has_rows else None
    return _Played(statement, parameters, has_rows, result.rowcount, rows)


def _values(rows: Any) -> list[tuple[bytes | None, ...]]:
    """The values of a result of psycopg, in an order of their own: without ORDER BY, the server may choose any."""
    return sorted(
        (tuple(rows.get_value(row, column) for column in range(rows.nfields)) for row in range(rows.ntuples)),
        key=repr,
    )


def is_lock_timeout(error: DBAPIError) -> bool:
    """Whether a lock of the database was not free in time."""
    is_busy = getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")
    return is_busy or type(error.orig).__name__ == "LockNotAvailable"


def _is_refusal(error: Exception) -> bool:
    """Whether the server answered and will not answer otherwise later: a wrong password, an unknown database."""
    text = str(getattr(error, "orig", None) or "")
    return "FATAL" in text and any(word in text for word in _FINAL)


def _reason(error: Exception) -> str:
    """The first line of the driver's message, which names no value."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
