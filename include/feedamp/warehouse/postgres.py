"""The warehouse on a Postgres server: Arrow is loaded by binary COPY (ADBC), by one loader at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import dbapi

from feedamp.column_types import Type
from feedamp.errors import BeingLoadedError, ConfigurationError, IncompleteError, MisfitError, StoreAwayError
from feedamp.lake.store import Lake
from feedamp.postgres_files import Run, left_behind, rewrite_tables
from feedamp.tables import CHILDREN, ORDERS, TABLES, Row, Table
from feedamp.warehouse.engine import in_transaction
from feedamp.warehouse.postgres_address import PostgresAddress, safe_error
from feedamp.warehouse.session import Session, SetAside, ignore
from feedamp.warehouse.structure import erasable, prepare
from feedamp.warehouse.views import VIEWS

log = logging.getLogger(__name__)
# How long a session waits for a server that is away, and how often it connects again after lost connections.
AWAY_S = 120.0
_MOST_LOSSES = 5
_LOADER_LOCK = 7_236_051  # the loader's advisory lock: any constant that the state's locks do not use
_Result = TypeVar("_Result")
_TYPES = {
    Type.TEXT: "TEXT",
    Type.INTEGER: "BIGINT",
    Type.BOOLEAN: "BOOLEAN",
    Type.MONEY: "NUMERIC(18,4)",
    Type.NUMBER: "DOUBLE PRECISION",
    Type.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    Type.DATE: "DATE",
    # Not jsonb: it refuses \\u0000, which FeedAMP may send in an unknown field (promise 12).
    Type.JSON: "JSON",
}
_CHILD_NAMES = {child.name for child in CHILDREN}
# If the loader's machine is lost, its lock is released after two minutes instead of the system's default of two hours.
_KEEPALIVE = "SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6"
_WHO = """SELECT activity.pid, activity.application_name, host(activity.client_addr) AS host
    FROM pg_locks locks LEFT JOIN pg_stat_activity activity ON activity.pid = locks.pid
    WHERE locks.locktype = 'advisory' AND locks.granted
      AND locks.classid = 0 AND locks.objid = $1 AND locks.objsubid = 1
      AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class PostgresWarehouse:
    """Schemas `feedamp` and `feedamp_meta` of one database; readers are never blocked."""

    def __init__(
        self,
        address: PostgresAddress,
        *,
        lock_wait_s: float = 120.0,
        away_s: float = AWAY_S,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        tables: Mapping[str, Table] = TABLES,
    ) -> None:
        self.address = address
        self.lock_wait_s = lock_wait_s
        self._away_s = away_s
        self._sleep = sleep
        self._monotonic = monotonic
        self._tables = tables
        self._is_checked = False

    @property
    def shown(self) -> str:
        return self.address.shown

    @property
    def lineage_name(self) -> tuple[str, str]:
        return f"postgres://{self.address.host}:{self.address.port}", self.address.database

    is_there = True

    @contextmanager
    def session(self, *, wait_s: float | None = None) -> Iterator[Session]:
        """Connects, waiting up to `wait_s` (`lock_wait_s` if None) for another loader.

        The lock ends with the connection. If the connection is lost, the session waits for the server, connects again,
        takes the lock again and repeats the transaction.

        Raises:
            BeingLoadedError, StoreAwayError: another process loads, or the server could not be reached for too long.
            ConfigurationError: the server refuses the user or a statement, or is a pooler in transaction mode.
        """
        lock_wait_s = self.lock_wait_s if wait_s is None else wait_s

        def opened() -> PostgresEngine:
            engine = PostgresEngine(self.address)
            try:
                self._refuse_shared_sessions(engine)
                self._take_lock(engine, lock_wait_s)
            except BaseException:
                engine.close()
                raise
            return engine

        def reconnect() -> None:
            engine.open()
            self._take_lock(engine, lock_wait_s)

        engine = self._once_there(opened)
        engine.reconnect = lambda: self._once_there(reconnect)
        try:
            in_transaction(engine, lambda: prepare(engine, self._tables, VIEWS))
            yield Session(engine, self._tables)
        finally:
            engine.close()

    def read(self, sql: str) -> pa.Table:
        """The rows of one SELECT in a transaction that can write nothing; numeric columns are text.

        Raises:
            StoreAwayError: the server could not be reached for too long.
            ConfigurationError: the server refuses the user or the statement.
        """
        engine = self._once_there(lambda: PostgresEngine(self.address))
        try:
            with engine.transaction():
                engine.execute("SET TRANSACTION READ ONLY")
                return engine.arrow(sql)
        except MisfitError:
            raise ConfigurationError(f"{self.shown} cannot evaluate the query for all rows.") from None
        finally:
            engine.close()

    def rebuild(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        """As `Warehouse.rebuild`, in one transaction; readers see the old rows until the commit."""
        with self.session() as session:
            return session.replace_all(lake, set_aside)

    def erase(self, seller_id: str, mp_order_number: str | None = None) -> dict[str, int]:
        """As `Warehouse.erase`: deletes the rows, takes new statistics, which hold sample values, and rewrites the tables.

        Readers of a table wait while it is written. Raises a BusyError if other sessions use it, or see the rows, all the time.
        """
        with self.session() as session:
            deleted = session.erase(seller_id, mp_order_number)
            relations = erasable(self._tables, ORDERS.key[:1])
            with closing(PostgresEngine(self.address)) as engine:
                engine.forget_deleted(relations)
        return deleted

    def left_by_erasing(self) -> str:
        with (
            closing(self._once_there(lambda: PostgresEngine(self.address))) as engine,
            engine.running() as run,
        ):
            return left_behind(run)

    def _once_there(self, connect: Callable[[], _Result]) -> _Result:
        """The result of `connect`, once the server accepts a connection."""
        give_up_at = self._monotonic() + self._away_s
        is_logged = False
        while True:
            try:
                return connect()
            except StoreAwayError as error:
                if self._monotonic() >= give_up_at:
                    raise
                if not is_logged:
                    log.warning("%s Waiting for it.", error)
                is_logged = True
            self._sleep(0.5)

    def _refuse_shared_sessions(self, engine: PostgresEngine) -> None:
        """Raises if two connections get one session: there the lock would be given to both, and stay when they have gone.

        While the transaction of the other connection is open, a pooler has to give this one another session.
        """
        if self._is_checked:
            return
        other = PostgresEngine(self.address)
        try:
            with other.transaction():
                if other.session == engine.session:
                    raise _pooler(self.address)
                with engine.transaction():
                    pass
        finally:
            other.close()
        self._is_checked = True

    def _take_lock(self, engine: PostgresEngine, wait_s: float) -> None:
        give_up_at = self._monotonic() + wait_s
        while True:
            with engine.transaction():
                [row] = engine.rows("SELECT pg_try_advisory_lock($1) AS taken", [_LOADER_LOCK])
            if row["taken"]:
                return
            if self._monotonic() >= give_up_at:
                with engine.transaction():
                    found = next(iter(list(engine.rows(_WHO, [_LOADER_LOCK]))), None)
                raise BeingLoadedError(
                    f"{self.address.shown} is being loaded by {_described(found)}; try again when it is done.",
                    retry_after_s=60,
                )
            self._sleep(0.2)


def _pooler(address: PostgresAddress) -> ConfigurationError:
    return ConfigurationError(
        f"{address.shown} is a pooler in transaction mode: it gives each transaction another session, so that two loads could "
        "run at once. Name the server itself, or a pool in session mode, in the connection of [feedamp] warehouse_conn_id."
    )


def _described(backend: Row | None) -> str:
    if backend is None or backend["pid"] is None:
        return "another process"
    name = backend["application_name"] or "another process"
    return f"{name} (backend {backend['pid']}, from {backend['host'] or 'the same machine'})"


class PostgresEngine:
    """An open connection; its errors are raised as `FeedAmpError`, without values and secrets."""

    types: Mapping[Type, str] = _TYPES

    def __init__(self, address: PostgresAddress) -> None:
        from adbc_driver_postgresql import dbapi as driver

        self._address = address
        self._driver = driver
        self._losses = 0
        self.reconnect: Callable[[], None] | None = None  # what `recovers_from` does about a lost connection
        self.open()

    def open(self) -> None:
        """Connects; a new connection has no temporary tables and no lock."""
        self._scratches: dict[str, str] = {}  # columns of the temporary tables, by name
        self.session: int | None = None  # its number at the server
        with self._translated():
            self._connection = self._driver.connect(self._address.conninfo)
            self._cursor = self._connection.cursor()
        with self.transaction():
            for statement in ("SET TimeZone = 'UTC'", *_KEEPALIVE.split("; ")):
                self.execute(statement)
            self.session = self._session_now()

    def close(self) -> None:
        """Closes the connection, which releases the lock and drops temporary tables."""
        with suppress(dbapi.Error):  # a lost one cannot be closed properly
            self._cursor.close()
        with suppress(dbapi.Error):
            self._connection.close()

    def _session_now(self) -> int:
        [row] = self.rows("SELECT pg_backend_pid() AS session")
        return int(row["session"])

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        with self._translated():
            self._cursor.execute(sql, tuple(parameters) or None)

    def execute_all(self, statements: Sequence[str]) -> None:
        """Runs statements as one block, since the driver sends one statement at a time."""
        self.execute(f"DO $feedamp$ BEGIN {'; '.join(statements)}; END $feedamp$")

    def arrow(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Rows of a query; numeric columns have their digits as text."""
        with self._translated():
            self._cursor.execute(sql, tuple(parameters) or None)
            return self._cursor.fetch_arrow_table()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a query by column name, numeric columns as Decimal; all rows are held in memory."""
        found = self.arrow(sql, parameters)
        numeric = [f.name for f in found.schema if getattr(f.type, "type_name", "") == "numeric"]
        for row in found.to_pylist():
            yield row | {name: Decimal(row[name]) for name in numeric if row[name] is not None}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As `Engine.transaction`; raises a ConfigurationError if it is in another session than the lock."""
        try:
            if self.session is not None and self.session != self._session_now():
                raise _pooler(self._address)
            yield
            with self._translated():
                self._connection.commit()
        except BaseException:
            with suppress(dbapi.Error):  # a lost connection has ended the transaction
                self._connection.rollback()
            self._scratches.clear()  # tables that this transaction created or replaced no longer exist
            raise

    def refuses_value(self, error: Exception) -> bool:
        """Whether the server cannot hold a value (`safe_error`)."""
        return isinstance(error, MisfitError)

    def scratch(self, name: str, columns: str) -> None:
        """Empties a temporary table, created on first use: a new one for each manifest would exhaust the locks.

        One of the same name that has other columns is replaced.
        """
        if self._scratches.get(name) != columns:
            self.execute(f"DROP TABLE IF EXISTS pg_temp.{name}")
        self.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({columns})")
        self.execute(f"TRUNCATE pg_temp.{name}")
        self._scratches[name] = columns

    def stage(self, name: str, table: Table, reader: pa.RecordBatchReader) -> None:
        """Copies the rows into a temporary table, a batch at a time."""
        self.scratch(name, ", ".join(f"{column.name} {_TYPES[column.type]}" for column in table.lake_columns))
        given, unreadable = 0, None

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal given, unreadable
            try:
                for batch in reader:
                    given += batch.num_rows
                    yield _without_nul(batch)
            except Exception as error:
                unreadable = error
                raise

        batches = pa.RecordBatchReader.from_batches(reader.schema, counted())
        with self._translated():
            try:
                copied = self._cursor.adbc_ingest(name, batches, mode="append", temporary=True)
            except self._driver.Error:
                if unreadable is not None:  # the driver says only that something went wrong
                    raise unreadable from None
                raise
        if copied != given:
            raise IncompleteError(f"The server took {copied} of {given} rows of {table.name}.")
        self.execute(f"ANALYZE pg_temp.{name}")

    def forget_deleted(self, relations: Sequence[str]) -> None:
        """Rewrites tables, given with their schema, as they are now, with new statistics; raises as `rewrite_tables`."""
        for relation in relations:
            self._take_samples(relation)
        with self.running() as run:
            rewrite_tables(relations, run)

    @contextmanager
    def running(self) -> Iterator[Run]:
        """Runs statements outside of transactions, on a connection of its own."""
        with (
            self._translated(),
            closing(self._driver.connect(self._address.conninfo, autocommit=True)) as other,
            closing(other.cursor()) as cursor,
        ):

            def run(sql: str) -> list[tuple[Any, ...]]:
                cursor.execute(sql)
                return cursor.fetchall() if sql.startswith("SELECT") else []

            yield run

    def _take_samples(self, relation: str) -> None:
        """Takes new statistics of a table, which hold values of its rows."""
        schema, _, name = relation.partition(".")
        with self.transaction():
            [found] = self.rows(f"SELECT EXISTS (SELECT 1 FROM {relation}) AS any")
            if not found["any"]:
                # Of an empty table the server keeps the statistics that it has, so a row is there while they are taken.
                columns = self.relations(schema)[name]
                values = (
                    "'epoch'" if kind.startswith(("DATE", "TIME")) else "'0'" for kind in columns.values()
                )
                self.execute(f"INSERT INTO {relation} ({', '.join(columns)}) VALUES ({', '.join(values)})")
            self.execute(f"ANALYZE {relation}")
            if not found["any"]:
                self.execute(f"DELETE FROM {relation}")

    def recovers_from(self, error: Exception) -> bool:
        """Connects again if the connection is lost; a statement that ends the server every time is given up."""
        if not isinstance(error, StoreAwayError) or self.reconnect is None or self._losses >= _MOST_LOSSES:
            return False
        self._losses += 1
        self.close()
        self.reconnect()
        return True

    def relations(self, schema: str) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for row in self.rows(
            """SELECT relation.relname, field.attname, upper(format_type(field.atttypid, field.atttypmod)) AS type
            FROM pg_class relation
            JOIN pg_attribute field
              ON field.attrelid = relation.oid AND field.attnum > 0 AND NOT field.attisdropped
            WHERE relation.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
              AND relation.relkind IN ('r', 'v', 'p')
            ORDER BY relation.relname, field.attnum""",
            [schema],
        ):
            found.setdefault(row["relname"], {})[row["attname"]] = row["type"]
        return found

    def index(self, table: Table) -> Sequence[str]:
        """A primary key; for children an index by order only, since line numbers may be too long for an index."""
        if table.name in _CHILD_NAMES:
            return (f"CREATE INDEX ON feedamp.{table.name} (seller_id, mp_order_number)",)
        return (f"ALTER TABLE feedamp.{table.name} ADD PRIMARY KEY ({', '.join(table.key)})",)

    def users_of(self, schema: str, relation: str) -> list[str]:
        found = self.rows(
            """SELECT DISTINCT namespaces.nspname || '.' || views.relname AS name
            FROM pg_depend depends
            JOIN pg_rewrite rules ON rules.oid = depends.objid AND depends.classid = 'pg_rewrite'::regclass
            JOIN pg_class views ON views.oid = rules.ev_class
            JOIN pg_namespace namespaces ON namespaces.oid = views.relnamespace
            JOIN pg_class used ON used.oid = depends.refobjid AND used.oid <> views.oid
            WHERE depends.refclassid = 'pg_class'::regclass AND used.relname = $2
              AND used.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) ORDER BY name""",
            [schema, relation],
        )
        return [row["name"] for row in found]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Replaces driver errors, which quote statements, rows and the address, by safe ones."""
        try:
            yield
        except dbapi.Error as error:
            raise safe_error(self._address, error) from None


def _without_nul(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Replaces NUL characters, which Postgres cannot store, by an escape, as in the state database."""
    arrays = [
        pc.replace_substring(array, "\x00", "\\x00") if pa.types.is_string(array.type) else array
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
