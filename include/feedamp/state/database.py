"""Opens the state database: engine, migrations, short transactions, the clock that all promises rest on."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from feedamp.errors import BusyError, ConfigurationError

HEAD = "0004"
_MIGRATION_LOCK = 7_236_041  # any constant: Postgres advisory lock of `upgrade`
_WRITER_LOCK = 7_236_042  # likewise: of `begin`
_CLOCK_CHECK_S = 60.0
_LOCK_WAIT_S = 60
_UPGRADE_WAIT_S = 3
# For this transaction only, and in one round trip: a machine that vanished within one frees the others in the end.
_BE_THE_ONLY_WRITER = sa.select(
    sa.func.set_config("lock_timeout", f"{_LOCK_WAIT_S}s", True),
    sa.func.set_config("idle_in_transaction_session_timeout", f"{_LOCK_WAIT_S}s", True),
    sa.func.pg_advisory_xact_lock(_WRITER_LOCK),
)


class State:
    """The state database. Transactions are short; none is held over a request to FeedAMP.

    A transaction that reads first and writes later never meets a writer in between: SQLite is opened with `BEGIN
    IMMEDIATE`, Postgres takes an advisory lock. `SELECT … FOR UPDATE` does nothing on SQLite, and nothing for rows
    that are not there yet.
    """

    def __init__(
        self, url: str, *, clock: Callable[[], datetime] | None = None, upgrade: bool = True
    ) -> None:
        self.url = sa.make_url(url)
        self._clock = clock
        self._offset = timedelta()
        self._offset_until = 0.0
        if self.url.get_backend_name() == "sqlite":
            self._prepare_file()
        elif self.url.drivername in ("postgresql", "postgres"):
            raise ConfigurationError(
                "state_url names no driver; write postgresql+psycopg:// (SQLAlchemy's default changed)."
            )
        self.engine = _make_engine(self.url)
        if upgrade:  # `feedamp db current` only looks
            try:
                self.upgrade()
            except BaseException:
                self.close()  # no one else can
                raise

    @property
    def is_sqlite(self) -> bool:
        """The state is one file on this machine."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def begin(self, *, alone: bool = True) -> Iterator[Connection]:
        """A transaction: commits at the end of the block, rolls back on an exception; the only one that writes.

        `alone=False` is for a single statement that is atomic by itself: on Postgres it waits for no other writer.
        """
        with self.engine.begin() as connection:
            if alone and not self.is_sqlite:
                connection.execute(_BE_THE_ONLY_WRITER)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view without writing; waits for no writer."""
        options: dict[str, Any] = {"feedamp_reading": True}
        if not self.is_sqlite:  # where by default each statement sees a moment of its own
            options["isolation_level"] = "REPEATABLE READ"
        with self.engine.connect().execution_options(**options) as connection:
            yield connection

    def now(self) -> datetime:
        """The moment by the state database's clock, in UTC: one clock for all machines (promise 4)."""
        if self._clock is not None:
            return self._clock()
        if not self.is_sqlite and time.monotonic() >= self._offset_until:
            with self.engine.connect() as connection:
                before = datetime.now(UTC)
                theirs = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
                self._offset = theirs.astimezone(UTC) - before
            self._offset_until = time.monotonic() + _CLOCK_CHECK_S
        return datetime.now(UTC) + self._offset

    def current_revision(self) -> str | None:
        """The migration the database stands at, None before the first."""
        with self.engine.connect() as connection:
            if not sa.inspect(connection).has_table("feedamp_alembic_version"):
                return None
            row = connection.execute(sa.text("SELECT version_num FROM feedamp_alembic_version")).first()
            return row[0] if row else None

    def upgrade(self) -> None:
        """Brings the schema to `HEAD`. Safe to repeat, and by many processes at once.

        Raises:
            ConfigurationError: a newer version of this package has migrated the database already.
            BusyError: on Postgres, someone reads a table for so long that it cannot be changed.
        """
        if self.current_revision() == HEAD:
            return
        with self._migration_lock():
            current = self.current_revision()
            if current == HEAD:
                return
            if current is not None and current > HEAD:
                raise ConfigurationError("The state database belongs to a newer version of this package.")
            # Imported late: the database is at its head in all but the first run of a version.
            from alembic import command
            from alembic.config import Config

            config = Config()
            with resources.as_file(resources.files("feedamp.state") / "migrations") as folder:
                config.set_main_option("script_location", str(folder).replace("%", "%%"))
                with self.engine.connect() as connection:
                    if not self.is_sqlite:  # while it waits for one reader, all others would queue behind it
                        connection.execute(sa.text(f"SET lock_timeout = '{_UPGRADE_WAIT_S}s'"))
                    config.attributes["connection"] = connection
                    try:
                        command.upgrade(config, "head")
                    except OperationalError as error:
                        if type(error.orig).__name__ != "LockNotAvailable":
                            raise
                        raise BusyError(
                            "The state database is in use and cannot be upgraded now; nothing was changed.",
                            retry_after_s=30,
                        ) from error
                    connection.commit()

    def close(self) -> None:
        """Lets go of all connections."""
        self.engine.dispose()

    def _prepare_file(self) -> None:
        path = self.url.database
        if not path or path == ":memory:":
            raise ConfigurationError("state_url must name a file: several processes share the state.")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600, exist_ok=True)  # it holds orders and encrypted tokens

    @contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if self.is_sqlite:
            with Path(f"{self.url.database}.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        else:
            with self.engine.connect() as connection:
                connection.execute(sa.select(sa.func.pg_advisory_lock(_MIGRATION_LOCK)))
                try:
                    yield
                finally:
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(_MIGRATION_LOCK)))


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Tries until it works: with other processes at a fresh file the switch fails at once, timeout or not."""
    give_up_at = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


def _make_engine(url: sa.URL) -> Engine:
    # Its errors quote statements, and end in logs: the values in them are tokens and customers' data (promise 9).
    if url.get_backend_name() != "sqlite":
        return _write_out_nul(sa.create_engine(url, pool_pre_ping=True, hide_parameters=True))
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_WAIT_S}, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        _use_write_ahead_log(cursor)
        # A commit survives any crash of a process; a refresh token that FeedAMP rotated must also
        # survive a power cut, so nothing weaker than FULL.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA busy_timeout={1000 * _LOCK_WAIT_S}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("feedamp_reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _write_out_nul(engine: Engine) -> Engine:
    """Lets text with a NUL through, which FeedAMP may send but Postgres cannot keep: it is stored as an escape."""

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
