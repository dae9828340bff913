"""Opens the state database: upgrades, short transactions, and the clock that every process uses."""

import asyncio
import fcntl
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from feedamp.errors import BusyError, ConfigurationError, StoreAwayError
from feedamp.state.database_engine import is_full, make_engine
from feedamp.state.leases import Leases, LeaseTimes, elapsed_s
from feedamp.state.rate_leases import RateLeases
from feedamp.state.reconnect import OUTAGES, LastingTransaction, Patience, Writers, connect, is_lock_timeout
from feedamp.state.transaction_locks import (
    LOCK_WAIT_S,
    MOST_SELLER_LOCKS,
    QUICK,
    TAKE_FREE_SELLER_LOCKS,
    TAKE_SELLER_LOCKS,
    TAKE_WRITER_LOCK,
    UPGRADE_LOCK,
    lock_timeout,
    seller_keys,
)
from feedamp.state.upgrade import HEAD, revision_of, upgrade

BY_A_NEWER_VERSION = (
    "A newer version of this package has upgraded the state database: upgrade the package here, too, and restart what runs with "
    "the old one, such as Airflow's API server."
)
_CLOCK_CHECK_S = 60.0
_UPGRADE_WAIT_S = 3
# How long a transaction waits for a server that is away: longer than a restart or a failover takes.
STORE_AWAY_S = 120.0
_SLOW_ANSWER_S = 1.0  # the clock is asked again if the answer took longer
_WAITING_AT_ONCE = 20
_T = TypeVar("_T")


class State:
    """The state database. Transactions are short; none stays open during a request to FeedAMP.

    No other transaction writes between the reads and the writes of one transaction: SQLite begins each with `BEGIN
    IMMEDIATE`, Postgres takes an advisory lock, for some sellers or for all. `SELECT … FOR UPDATE` is not enough: it does
    nothing on SQLite, and it cannot lock rows that do not exist yet.

    On a server, transactions outlive its restart: they wait for it up to `STORE_AWAY_S` and then continue, or raise
    `StoreAwayError`.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], datetime] | None = None,
        upgrade: bool = True,
        opening_patience_s: float = STORE_AWAY_S,
        before_new: Callable[[], None] = lambda: None,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        """Opens the database.

        Args:
            opening_patience_s: how long to wait for its server now; 0 raises the driver's error at once.
            lock_wait_s: how long a transaction waits for another writer. On a server, it waits again unless this is less
                than by default. If it is less, a person waits: no statement waits longer for a locked table, not even of a
                reader; a server that is silent for `LATE_ANSWER_S` longer counts as away; a reader does not wait for
                one that is away, and a writer no longer than this.
            before_new: called before the schema of a new database is created; may raise to prevent that.
        """
        self.url = sa.make_url(url)
        self._clock = clock
        self._offset = timedelta()
        self._offset_until = 0.0
        self.leases = Leases(self.begin, self.now, LeaseTimes())
        self.rates = RateLeases(self, elapsed_s if clock is None else lambda: clock().timestamp())
        if self.url.get_backend_name() == "sqlite":
            self._prepare_file()
        elif self.url.drivername in ("postgresql", "postgres"):
            raise ConfigurationError(
                "state_url names no driver; write postgresql+psycopg:// (SQLAlchemy's default changed)."
            )
        self.engine = make_engine(self.url, lock_wait_s)
        self._lock_timeout = lock_timeout(lock_wait_s)
        self._takes_lock = TAKE_WRITER_LOCK.params(lock_timeout=self._lock_timeout)
        self._lock_wait_s, self._is_hurried = lock_wait_s, lock_wait_s < LOCK_WAIT_S
        self._before_new = before_new
        self._writers, self._outage = Writers(), OUTAGES[self.url]
        self._last = threading.local()  # the writing transaction that each thread opened last
        self._patience_s = opening_patience_s
        self._threads = ThreadPoolExecutor(_WAITING_AT_ONCE, thread_name_prefix="feedamp-waits")
        try:
            with self._writing_file():
                with self._connect():
                    pass
                if upgrade:  # `feedamp db current` only reads
                    self.upgrade()
        except BaseException:
            self.close()  # the caller gets no object to close
            raise
        self._patience_s = lock_wait_s if self._is_hurried else STORE_AWAY_S

    @cached_property
    def is_sqlite(self) -> bool:
        """Whether the state is a file on this machine."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def begin(self, *, alone: bool = True, of: Collection[str] = ()) -> Iterator[Connection]:
        """The only writing transaction: commits at the end of the block, rolls back on an exception.

        With `of`, it reads and writes only what belongs to these sellers: Postgres then lets transactions of other sellers
        go on. With `alone=False`, it does not wait for other writers at all; this is safe for a single atomic statement only, and
        Postgres ends it if this process stands still in it for five seconds.

        A thread has one at a time: the next one ends the one before if a signal has left it open.
        """
        if self.is_sqlite:
            with self._writing_file(), self.engine.connect() as connection:
                self._end_last()
                self._last.transaction = connection
                with connection.begin():
                    yield connection
            return
        takes_lock = self._takes_lock
        if 0 < len(of) <= MOST_SELLER_LOCKS:
            keys = seller_keys(of)
            takes_lock = TAKE_SELLER_LOCKS.params(lock_timeout=self._lock_timeout, keys=keys)
        transaction = self._writing(takes_lock if alone else QUICK, is_marked=alone)
        try:
            yield cast("Connection", transaction)
            transaction.commit()
        finally:
            transaction.close()

    @contextmanager
    def begin_free(self, seller_ids: Collection[str]) -> Iterator[tuple[Connection, Collection[str]]]:
        """As `begin` of those of the sellers that no other transaction is of at this moment; yields also which these are.

        It still waits for a transaction of all sellers. On SQLite, and for more than `MOST_SELLER_LOCKS` of them, it is just
        as `begin`.
        """
        if self.is_sqlite or len(seller_ids) > MOST_SELLER_LOCKS:
            with self.begin(of=seller_ids) as connection:
                yield connection, seller_ids
            return
        begins_with = {"lock_timeout": self._lock_timeout, "keys": seller_keys(seller_ids)}
        transaction = self._writing(TAKE_FREE_SELLER_LOCKS.params(begins_with), is_marked=True)
        try:
            taken = set(transaction.begun[-1] or ())
            free = [seller_id for seller_id in seller_ids if taken.issuperset(seller_keys([seller_id]))]
            # Should the connection break, it is of the same sellers, and others may have been before it.
            begins_with["keys"] = seller_keys(free)
            transaction.begins_again_with(TAKE_SELLER_LOCKS.params(begins_with))
            yield cast("Connection", transaction), free
            if free:
                transaction.commit()
        finally:
            transaction.close()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent, read-only view; does not wait for writers."""
        if self.is_sqlite:
            with self.engine.connect().execution_options(feedamp_reading=True) as connection:
                yield connection
            return
        # By default, Postgres gives each statement a new snapshot.
        patience_s = 0.0 if self._is_hurried else None
        transaction = self._lasting(patience_s, isolation_level="REPEATABLE READ")
        try:
            yield cast("Connection", transaction)
        finally:
            transaction.close()

    def now(self, *, ask: bool = True) -> datetime:
        """The current time in UTC by the state database's clock, which is the same for all machines (promise 4).

        Once a minute the server is asked for its clock, for which this waits; with `ask=False`, it never is.
        """
        if self._clock is not None:
            return self._clock()
        if ask and not self.is_sqlite and time.monotonic() >= self._offset_until:
            for _ in range(3):
                with self.read() as connection:
                    before, asked_at = datetime.now(UTC), time.monotonic()
                    theirs = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
                    self._offset = theirs.astimezone(UTC) - before
                if time.monotonic() - asked_at < _SLOW_ANSWER_S:  # otherwise the offset includes the wait
                    break
            self._offset_until = time.monotonic() + _CLOCK_CHECK_S
        return datetime.now(UTC) + self._offset

    def current_revision(self) -> str | None:
        """The newest revision of the database's schema; None if it is new."""
        with self._connect() as connection:
            return revision_of(connection.execution_options(feedamp_reading=True))

    def upgrade(self) -> None:
        """Brings the schema to `HEAD`. Safe to repeat, also by several processes at the same time.

        Raises:
            ConfigurationError: a newer version of this package has upgraded the database already.
            BusyError: on Postgres, another session holds a table that must be changed; on SQLite, another process upgrades,
                and `lock_wait_s` is less than by default.
        """
        if self.current_revision() == HEAD:
            return
        with self._upgrade_lock():
            current = self.current_revision()
            if current == HEAD:
                return
            if current is not None and current > HEAD:
                raise ConfigurationError(BY_A_NEWER_VERSION)
            if current is None:
                self._before_new()
            with self.engine.connect() as connection:
                if not self.is_sqlite:  # while an upgrade waits for one reader, all other readers wait
                    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_UPGRADE_WAIT_S}s'"))
                try:
                    upgrade(connection)
                except OperationalError as error:
                    if not is_lock_timeout(error):
                        raise
                    raise BusyError(
                        "The state database is in use and cannot be upgraded now; nothing was changed.",
                        retry_after_s=30,
                    ) from error
                connection.commit()

    def in_thread(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Does what waits for locks in a thread, so that the event loop goes on. Cancelling the task does not end it."""
        return asyncio.wrap_future(self._threads.submit(copy_context().run, work))

    async def change(self, seller_id: str, work: Callable[[Connection], _T]) -> _T:
        """What `work` returns in a transaction of a seller, whose lock the event loop does not wait for on a server."""

        def change() -> _T:
            with self.begin(of=[seller_id]) as connection:
                return work(connection)

        return change() if self.is_sqlite else await asyncio.shield(self.in_thread(change))

    def close(self) -> None:
        self._threads.shutdown(wait=False)  # what still waits in them goes on
        self.rates.give_all_back()
        self.leases.close()
        self.engine.dispose()

    def _connect(self, **options: Any) -> Connection:
        return connect(self.engine, Patience(self._patience_s, self._outage), **options)

    def _lasting(self, patience_s: float | None = None, **options: Any) -> LastingTransaction:
        patience = Patience(self._patience_s if patience_s is None else patience_s, self._outage)
        return LastingTransaction(self.engine, patience, self._writers, **options)

    def _writing(self, begins_with: sa.Executable, *, is_marked: bool) -> LastingTransaction:
        self._end_last()
        transaction = self._lasting(
            begins_with=begins_with, is_marked=is_marked, is_lock_awaited=not self._is_hurried
        )
        self._last.transaction = transaction
        return transaction

    def _end_last(self) -> None:
        """Ends this thread's last transaction; else its locks stay as long as the error of a signal that struck at a `with`."""
        if (last := getattr(self._last, "transaction", None)) is not None:
            last.close()

    @contextmanager
    def _writing_file(self) -> Iterator[None]:
        """Says in words that the disk of a SQLite file takes no more."""
        try:
            yield
        except OperationalError as error:
            if not is_full(error.orig):
                raise
            raise StoreAwayError(
                f"The state database {self.url.database} cannot be written ({error.orig}): is there room on its disk? Nothing "
                "of this transaction is stored.",
                retry_after_s=60,
            ) from error

    def _prepare_file(self) -> None:
        path = self.url.database
        if not path or path == ":memory:":
            raise ConfigurationError("state_url must name a file: several processes share the state.")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600, exist_ok=True)  # it holds orders and encrypted tokens

    @contextmanager
    def _upgrade_lock(self) -> Iterator[None]:
        if self.is_sqlite:
            path = Path(f"{self.url.database}.lock")
            path.touch(mode=0o600)
            with path.open("w") as file:
                self._take(file)
                yield
        else:
            # The lock ends with this transaction, also behind a pooler.
            with self.engine.connect() as connection:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
                yield

    def _take(self, file: TextIO) -> None:
        """Waits for a locked file, forever unless a person waits."""
        give_up_at = time.monotonic() + self._lock_wait_s
        while self._is_hurried:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise BusyError(
                        "Another process makes or upgrades the state; nothing was changed. Try again in a minute.",
                        retry_after_s=30,
                    ) from None
                time.sleep(0.05)
            else:
                return
        fcntl.flock(file, fcntl.LOCK_EX)
